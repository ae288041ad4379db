"""The journal of a job: one SQLite file with its requests, the batches that were sent, and the results.

Whatever is known only to this process would be lost with it, so each step is written down before the next is taken.
A request is in ``requests`` for good. It is in ``work`` until it has a result, there with the batch (``part``) and the
place in it that it was sent in; then it is in ``results``.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workersai.batch.files import APPLICATION, VERSION, Lock, told
from workersai.batch.tables import Row, Stored, counted, stored
from workersai.batch.values import Progress
from workersai.errors import JournalError

_TABLES = """
CREATE TABLE job (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE requests (
    number INTEGER PRIMARY KEY, reference TEXT NOT NULL, request TEXT NOT NULL, metadata TEXT, batched INTEGER NOT NULL
);
CREATE TABLE work (
    number INTEGER PRIMARY KEY, batched INTEGER NOT NULL, tries INTEGER NOT NULL DEFAULT 0, part INTEGER, place INTEGER
);
CREATE INDEX work_by_part ON work (part, batched, number);
CREATE TABLE parts (
    id INTEGER PRIMARY KEY, state TEXT NOT NULL, request_id TEXT, most_cost REAL NOT NULL,
    prompt_tokens INTEGER, completion_tokens INTEGER, cost REAL
);
CREATE TABLE results (
    number INTEGER PRIMARY KEY, completion TEXT, error TEXT,
    prompt_tokens INTEGER, completion_tokens INTEGER, cost REAL
);
"""
_ROWS = "SELECT number, reference, request, metadata, work.batched, tries FROM work JOIN requests USING (number)"


@dataclass(frozen=True)
class Outcome:
    """What a row ended with: a completion or an error, as text, and what it cost where that is known."""

    number: int
    completion: str | None = None
    error: str | None = None
    tokens: tuple[int | None, int | None] = (None, None)
    cost: float | None = None


class Journal:
    """A journal; nothing else of it may be used before :meth:`open`, or after :meth:`close`.

    Only one job may have it open; others may read its progress.

    Args:
        path: Where it is, or is to be made; None for one of this process alone, which is gone with it.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._is_new = False
        self._lock: Lock | None = None
        self._db: sqlite3.Connection

    def open(self, *, must_exist: bool) -> None:
        """Opens it, or makes it.

        Raises:
            JournalError: it is no journal, is in use, or can't be made; or it isn't there, and must be.
        """
        with told(self.path):
            if self.path is not None:
                if must_exist and not self.path.exists():
                    raise JournalError(f"There is no journal {self.path}.")
                self._lock = Lock(self.path)
                self._is_new = not self.path.exists()
            # Work on it is done by one thread at a time, which need not be the same one.
            self._db = sqlite3.connect(self.path or "", isolation_level=None, check_same_thread=False)
            self._make_or_know()
            self._db.execute("PRAGMA journal_mode=WAL")

    def _make_or_know(self) -> None:
        known = self._value("PRAGMA application_id") == APPLICATION
        if not known and self._value("SELECT count(*) FROM sqlite_master"):
            raise JournalError(f"{self.path} is a database, and no journal of a batch job: choose another file.")
        if known and self._value("PRAGMA user_version") != VERSION:
            raise JournalError(f"{self.path} is the journal of another version of workersai: go on with that one.")
        if not known:
            self._db.executescript(
                f"BEGIN; {_TABLES} PRAGMA application_id={APPLICATION}; PRAGMA user_version={VERSION}; COMMIT;"
            )

    def close(self) -> None:
        """Closes it, as far as it is open; it is one file again, or none where it was new and nothing was begun."""
        if "_db" in self.__dict__:
            with suppress(
                sqlite3.Error, JournalError
            ):  # somebody reads it just now, or nothing can be written any more
                self._is_new = self._is_new and not self.fact("ready")
                self._db.execute("PRAGMA journal_mode=DELETE")
            self._db.close()
            if self._is_new and self.path is not None:
                self.path.unlink(missing_ok=True)
        if self._lock is not None:
            self._lock.release()

    @contextmanager
    def transaction(self, *, for_good: bool = False) -> Iterator[None]:
        """All or nothing of what is written inside; ``for_good``: on the disk, should the power fail right after.

        Raises:
            JournalError: the disk is full, or the file can't be written any more.
        """
        with told(self.path):
            self._db.execute(f"PRAGMA synchronous={'FULL' if for_good else 'NORMAL'}")
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            finally:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")

    def note(self, **facts: Any) -> None:
        """Keeps facts of the job, by name."""
        self._db.executemany(
            "INSERT OR REPLACE INTO job VALUES (?, ?)", [(name, json.dumps(value)) for name, value in facts.items()]
        )

    def fact(self, name: str, default: Any = None) -> Any:
        """A fact of the job."""
        kept = self._all("SELECT value FROM job WHERE name = ?", (name,))
        return json.loads(kept[0][0]) if kept else default

    def clear(self) -> None:
        """Forgets all rows, of a job whose requests were not read to their end."""
        for table in ("job", "requests", "work", "results"):
            self._db.execute(f"DELETE FROM {table}")  # noqa: S608 - one of these names

    def add(self, rows: Sequence[Row]) -> None:
        """Takes rows in."""
        self._db.executemany(
            "INSERT INTO requests VALUES (?, ?, ?, ?, ?)",
            [(row.number, row.reference, row.request, row.metadata, row.batched) for row in rows],
        )
        self._db.executemany(
            "INSERT INTO work (number, batched) VALUES (?, ?)", [(row.number, row.batched) for row in rows]
        )

    def batched(self) -> int:
        """How many rows are to go in a batch, and were not sent yet."""
        return int(self._value("SELECT count(*) FROM work WHERE part IS NULL AND batched"))

    def call_all(self) -> None:
        """Lets the rows that were not sent yet go as single calls."""
        self._db.execute("UPDATE work SET batched = 0 WHERE part IS NULL")

    def waiting(self, *, batched: bool, after: int = -1) -> Generator[Row, None, None]:
        """The rows after that number that were not sent yet, in order."""
        return self._rows(
            f"{_ROWS} WHERE part IS NULL AND work.batched = ? AND number > ? ORDER BY number",
            (batched, after),
        )

    def open_part(self, numbers: Sequence[int], most_cost: float) -> int:
        """Notes that these rows are about to be sent as a batch, which may cost so much, and numbers it."""
        cursor = self._db.execute("INSERT INTO parts (state, most_cost) VALUES ('sending', ?)", (most_cost,))
        part = cursor.lastrowid
        self._db.executemany(
            "UPDATE work SET part = ?, place = ? WHERE number = ?",
            [(part, place, number) for place, number in enumerate(numbers)],
        )
        return int(part or 0)

    def sent(self, part: int, request_id: str) -> None:
        """Notes the id that the service gave a batch."""
        self._db.execute("UPDATE parts SET state = 'sent', request_id = ? WHERE id = ?", (request_id, part))

    def take_back(self, part: int, *, state: str) -> None:
        """Lets the rows of a batch be sent again: one that was ``refused``, or of which that is ``unclear``."""
        self._db.execute("UPDATE parts SET state = ? WHERE id = ?", (state, part))
        self._db.execute("UPDATE work SET part = NULL, place = NULL WHERE part = ?", (part,))

    def parts(self, state: str) -> list[tuple[int, str, float]]:
        """The batches in a state, each with the id that the service gave it, and what it may cost."""
        found = self._all("SELECT id, request_id, most_cost FROM parts WHERE state = ?", (state,))
        return [(int(part), str(request_id), float(cost)) for part, request_id, cost in found]

    def rows_of(self, part: int) -> list[Row]:
        """The rows of a batch, by their places."""
        return list(
            self._rows(
                f"{_ROWS} WHERE part = ? ORDER BY place",
                (part,),
            )
        )

    def finish_part(self, part: int, tokens: tuple[int | None, int | None], cost: float | None) -> None:
        """Notes that a batch has ended, and what it cost; rows of it that have no result are sent again."""
        self._db.execute(
            "UPDATE parts SET state = 'done', prompt_tokens = ?, completion_tokens = ?, cost = ? WHERE id = ?",
            (*tokens, cost, part),
        )
        self._db.execute(
            "UPDATE work SET part = NULL, place = NULL, tries = tries + 1 WHERE part = ?",
            (part,),
        )

    def finish(self, outcomes: Sequence[Outcome]) -> None:
        """Keeps what rows ended with; nothing more is to be done for them."""
        self._db.executemany(
            "INSERT OR REPLACE INTO results VALUES (?, ?, ?, ?, ?, ?)",
            [(out.number, out.completion, out.error, *out.tokens, out.cost) for out in outcomes],
        )
        self._db.executemany("DELETE FROM work WHERE number = ?", [(out.number,) for out in outcomes])

    def ask_failed_again(self) -> None:
        """Takes the rows that ended with an error up again."""
        self._db.execute(
            "INSERT INTO work (number, batched) SELECT number, batched FROM results JOIN requests USING (number) "
            "WHERE error IS NOT NULL"
        )
        self._db.execute("DELETE FROM results WHERE error IS NOT NULL")

    def results(self, after: int = -1) -> Generator[Stored, None, None]:
        """The rows after that number that have a result, in order."""
        with told(self.path):
            yield from stored(self._db, after)

    def progress(self) -> Progress:
        """How far the job is, counted from the tables."""
        with told(self.path):
            return counted(self._db)

    def _rows(self, query: str, values: Sequence[Any]) -> Generator[Row, None, None]:
        with told(self.path):
            for row in self._db.execute(query, values):
                yield Row(*row)

    def _all(self, query: str, values: Sequence[Any] = ()) -> list[Any]:
        with told(self.path):
            return self._db.execute(query, values).fetchall()

    def _value(self, query: str) -> Any:
        return self._all(query)[0][0]
