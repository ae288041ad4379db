"""What the commands print: the words of a model as they are, notes and errors beside them."""

import os
import re
import sys
from typing import TextIO

# C0 and C1 but for the newline and the tab, and DEL: what a terminal would take for commands.
_CONTROL_CHARACTERS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def write(text: str) -> None:
    """Writes a model's text to stdout at once; at a terminal, without control characters."""
    sys.stdout.write(_shown(text, sys.stdout))
    sys.stdout.flush()


def drop_output() -> None:
    """Lets go of what is kept for a stdout that can't be written, or Python would fail on it once more at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def note(text: str) -> None:
    """A line beside the answers: dim, on stderr."""
    _print_to_stderr(text, "dim")


def complain(text: str) -> None:
    """What went wrong, on stderr."""
    _print_to_stderr(text, "red")


def _print_to_stderr(text: str, style: str) -> None:
    from rich.console import Console  # noqa: PLC0415 - takes longer to import than all else here
    from rich.text import Text  # noqa: PLC0415

    # As Text, since the words of others are no markup.
    Console(stderr=True).print(Text(_shown(text, sys.stderr), style), soft_wrap=True)


def _shown(text: str, stream: TextIO) -> str:
    if stream.isatty():
        text = _CONTROL_CHARACTERS.sub("", text)
    # What the stream's encoding can't hold is written as \u and its number, so that nothing is lost.
    return text.encode(stream.encoding, "backslashreplace").decode(stream.encoding)
