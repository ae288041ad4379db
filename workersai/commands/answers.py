"""From a journal to the table of its answers."""

from __future__ import annotations

import shlex
from pathlib import Path

import typer

from workersai.batch import notes_of, results_of
from workersai.commands.cells import Changes
from workersai.commands.prompts import AnswerColumns, answers
from workersai.commands.tables import Table
from workersai.errors import BadRequestError


def write_answers(journal: Path, output: Path | None) -> None:
    """Writes the answers that a journal has, to the output that it names or to another.

    Raises:
        BadRequestError: they can't be written there.
        JournalError: the journal is damaged.
    """
    notes = notes_of(journal)
    if "columns" not in notes:
        raise BadRequestError(f"{journal} is no job of this command: workersai.batch.results_of reads its results.")
    target = Table(output or Path(notes["output"]))
    check_output(journal, target.path)
    columns = [(name, kind) for name, kind in notes["columns"]]
    ways = AnswerColumns(notes["answer"], notes["fields"], notes["structured"])
    changes = Changes()
    try:
        target.write(columns, lambda: answers(results_of(journal), ways, changes), changes)
    except BadRequestError as error:
        other = shlex.join(["workersai", "batch", "export", str(journal), "-o"])
        raise BadRequestError(f"{error} The answers are in the journal. Write them elsewhere: {other} FILE") from None
    for warning in changes.warnings():
        typer.echo(warning, err=True)
    typer.echo(f"Written: {target.path}", err=True)


def check_output(journal: Path, output: Path) -> None:
    """Fails if the output of a job is its journal, or its input.

    Raises:
        BadRequestError: it is.
    """
    written = {"--output": output, "the journal": journal}
    notes = notes_of(journal)
    check_apart({**written, "the input of the job": Path(notes["input"])} if "input" in notes else written)


def check_apart(paths: dict[str, Path]) -> None:
    """Fails where one file would be written over another.

    Raises:
        BadRequestError: two of them are the same.
    """
    seen: dict[Path, str] = {}
    for name, path in paths.items():
        first = seen.setdefault(path.resolve(), name)
        if first != name:
            raise BadRequestError(f"{first} and {name} are the same file, {path}: nothing was sent or written.")
