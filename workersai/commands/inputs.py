"""What the commands read: files and standard input, as UTF-8, or one line that says why it can't be read."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

STANDARD_INPUT = Path("-")


def text_of(file: Path) -> str:
    """The text of a file, or of standard input for ``-``, without a byte order mark; its line ends stay as they are."""
    name = _name_of(file)
    try:
        content = _standard_input().read() if file == STANDARD_INPUT else file.read_bytes()
    except OSError as error:
        sys.exit(f"Can't read {name}: {error.strerror or error}.")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        sys.exit(f"Can't read {name}: byte {error.start:,} is not UTF-8. Convert it to UTF-8 first.")


def json_of(file: Path) -> Any:
    """The value that a file of JSON holds."""
    try:
        return json.loads(text_of(file))
    except (ValueError, RecursionError) as error:
        sys.exit(f"No JSON can be read from {_name_of(file)}: {error}.")


def lines_of_standard_input() -> Iterator[str]:
    """Its lines, each as soon as it has come."""
    for number, line in enumerate(_standard_input(), 1):
        try:
            yield line.decode("utf-8-sig")
        except UnicodeDecodeError:
            sys.exit(f"Line {number:,} of standard input is not UTF-8. Convert it to UTF-8 first.")


def is_typed() -> bool:
    """Whether somebody at a terminal writes what is read."""
    return _standard_input().isatty()


def _name_of(file: Path) -> str:
    return "standard input" if file == STANDARD_INPUT else str(file)


def _standard_input() -> BinaryIO:
    given = sys.stdin  # none where it was closed
    if given is None:
        sys.exit("Standard input is closed.")
    return given.buffer
