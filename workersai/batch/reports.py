"""A journal for who only reads it, also while its job is at work."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from workersai.batch.files import APPLICATION, VERSION, DamageError, reading
from workersai.batch.results import result_of_row
from workersai.batch.tables import check_complete, check_pages, counted, fact, stored
from workersai.batch.values import BatchResult, Progress
from workersai.errors import JournalError


def progress_of(journal: str | os.PathLike[str]) -> Progress:
    """How far the job of a journal is.

    Raises:
        JournalError: there is no such journal.
    """
    with _opened(journal) as db:
        return Progress() if db is None else counted(db)


def results_of(journal: str | os.PathLike[str]) -> Generator[BatchResult, None, None]:
    """The results that a journal has, in the order of the requests.

    Raises:
        JournalError: there is no such journal, or it is damaged.
    """
    with _opened(journal) as db:
        if db is None:
            return
        check_pages(db)
        check_complete(db)
        (awaited,) = db.execute("SELECT count(*) FROM results").fetchone()
        for one in stored(db, -1):
            yield result_of_row(*one)
            awaited -= 1
        if awaited:
            raise DamageError("it does not hold as many results as it counts")


def notes_of(journal: str | os.PathLike[str]) -> dict[str, Any]:
    """The ``notes`` that were given to the job of a journal.

    Raises:
        JournalError: there is no such journal.
    """
    with _opened(journal) as db:
        notes: dict[str, Any] = {} if db is None else fact(db, "notes", {})
        return notes


@contextmanager
def _opened(journal: str | os.PathLike[str]) -> Iterator[sqlite3.Connection | None]:
    """The database; None for one that its job is just making."""
    path = Path(journal)
    if not path.is_file():
        what = f"{path} is not a file, so it is no journal" if path.exists() else f"There is no journal {path}"
        raise JournalError(f"{what}.")
    with reading(path), closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as db:
        db.execute("BEGIN")  # so that all that is read is of one moment
        known = db.execute("PRAGMA application_id").fetchone()[0] == APPLICATION
        if not known and db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            raise JournalError(f"{path} is no journal of a batch job.")
        if known and db.execute("PRAGMA user_version").fetchone()[0] != VERSION:
            raise JournalError(f"{path} is the journal of another version of workersai: ask that one.")
        yield db if known else None
