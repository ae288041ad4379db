"""The entry point of the command ``workersai``, which is there without the libraries that the command needs."""

import sys


def main() -> None:
    """Runs the command, or says what to install for it."""
    try:
        from workersai.commands import app  # noqa: PLC0415 - an extra
    except ImportError as error:
        sys.exit(f"The command needs {error.name}, which is not installed: pip install 'workersai[cli]'")
    app()
