"""The command ``workersai`` as a whole: what all of its commands share."""

# No postponed annotations here: Typer reads them at run time.
import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from workersai._version import __version__
from workersai.errors import BadRequestError, WorkersAIError

app = typer.Typer(
    help="Cloudflare Workers AI from the command line.\n\nCLOUDFLARE_ACCOUNT_ID and CLOUDFLARE_API_TOKEN say who "
    "calls; `workersai serve` is for trying things without an account.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)

INTERRUPTED = 130
"""The exit code of a command that Ctrl-C ended, as shells have it."""

ModelOption = Annotated[str | None, typer.Option("--model", "-m", help="Full name of the model.", show_default=False)]
SystemOption = Annotated[str | None, typer.Option(help="What the model is told first, as its system message.")]


@app.callback(invoke_without_command=True)
def common(
    *, version: Annotated[bool, typer.Option("--version", help="Print the version and exit.", is_eager=True)] = False
) -> None:
    """Cloudflare Workers AI from the command line."""
    if version:
        typer.echo(f"workersai {__version__}")
        raise typer.Exit


def schema_of(path: Path, option: str) -> dict[str, Any]:
    """The JSON Schema in a file.

    Raises:
        BadRequestError: it can't be read, or is none.
    """
    try:
        schema = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadRequestError(f"{option}: {path} can't be read as JSON: {error}.") from None
    if not isinstance(schema, dict):
        raise BadRequestError(f"{option}: {path} holds {type(schema).__name__}, and no JSON Schema of an object.")
    return schema


def main() -> None:
    """Runs the command; a failure of ours is one message and the exit code 1."""
    try:
        app()
    except WorkersAIError as error:
        sys.exit(str(error))
    except BrokenPipeError:  # who reads has left, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
