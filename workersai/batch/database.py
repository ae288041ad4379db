"""The file of a journal as its job has it open: transactions, facts, and what happens if somebody takes it away."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from workersai._cleanup import flush
from workersai.batch.files import APPLICATION, VERSION, Lock, create_private, is_at, reading, told
from workersai.batch.rescue import leave, rescue
from workersai.batch.tables import TABLES, check_complete, check_pages, checksum, fact
from workersai.errors import JournalError

# What is open. The garbage collector ends the parts of an abandoned job in any order: it must leave these files to the
# clean-up thread.
_OPEN: set[Database] = set()


class Database:
    """The open file of a journal; nothing else of it may be used before :meth:`open`, or after :meth:`close`.

    Only one job may have it open; others may read its progress.

    Args:
        path: Where it is, or is to be made; None for one of this process alone, which is gone with it.

    Attributes:
        path: Where it is; elsewhere than before, once it had to be restored.
        lost: Set once the file was deleted, moved or replaced: the error that the job must end with. Until then, what
            comes in is still kept.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.lost: JournalError | None = None
        self._is_new = False
        self._status: os.stat_result | None = None
        self._lock: Lock | None = None
        self._db: sqlite3.Connection

    def open(self, *, must_exist: bool) -> None:
        """Opens it, or makes it.

        Raises:
            JournalError: it is no journal, is in use, or can't be made; or it isn't there, and must be.
        """
        flush()  # a job that was left may still be closing this journal
        with reading(self.path):
            if self.path is not None:
                if must_exist and not self.path.exists():
                    raise JournalError(f"There is no journal {self.path}.")
                self._lock = Lock(self.path)
                self._is_new = create_private(self.path)
            # Work on it is done by one thread at a time, which need not be the same one.
            self._db = sqlite3.connect(self.path or "", isolation_level=None, check_same_thread=False)
            self._make_or_know()
            self._db.execute("PRAGMA journal_mode=WAL")
            self._status = None if self.path is None else self.path.stat()
            _OPEN.add(self)

    def _make_or_know(self) -> None:
        known = self._value("PRAGMA application_id") == APPLICATION
        if not known and self._value("SELECT count(*) FROM sqlite_master"):
            raise JournalError(f"{self.path} is a database, and no journal of a batch job: choose another file.")
        if known and self._value("PRAGMA user_version") != VERSION:
            raise JournalError(f"{self.path} is the journal of another version of workersai: go on with that one.")
        if not known:
            self._db.executescript(
                f"BEGIN; {TABLES} PRAGMA application_id={APPLICATION}; PRAGMA user_version={VERSION}; COMMIT;"
            )
        else:
            check_pages(self._db)
            check_complete(self._db)

    def close(self) -> None:
        """Closes it, as far as it is open; it is one file again, or none where it was new and nothing was begun."""
        _OPEN.discard(self)
        if "_db" in self.__dict__:
            if self._is_there():  # or its other files are elsewhere
                with suppress(sqlite3.Error, JournalError):  # somebody reads it just now, or nothing can be written
                    self._is_new = self._is_new and not self.fact("ready")
                    self._db.execute("PRAGMA journal_mode=DELETE")
            self._db.close()
            if self._is_new and self.path is not None and self._is_there():
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
        self.check_place()

    def check_place(self) -> None:
        """Notices that the file was deleted, moved or replaced: its content is put where it can be found again.

        Raises:
            JournalError: it can't be.
        """
        if self.path is None or self._lock is None or self._is_there():
            return
        with told(self.path):
            if not fact(self._db, "ready"):
                raise JournalError(f"{self.path} was deleted or moved while the rows were read. Nothing was sent.")
            rescued = rescue(self._db, self.path, self._lock)
            self.lost = rescued.error
            if rescued.db is None:
                return
            self._db.close()
            leave(self.path, self._lock, rescued)
            self._db, self._lock, self.path = rescued.db, rescued.lock, rescued.path
            self._is_new, self._status = False, self.path.stat()
            self._db.execute("PRAGMA journal_mode=WAL")

    def _is_there(self) -> bool:
        return self.path is None or self._status is None or is_at(self.path, self._status)

    def note(self, **facts: Any) -> None:
        """Keeps facts of the job, by name."""
        texts = [(name, json.dumps(value)) for name, value in facts.items()]
        self._db.executemany(
            "INSERT OR REPLACE INTO job VALUES (?, ?, ?)", [(name, text, checksum(name, text)) for name, text in texts]
        )

    def fact(self, name: str, default: Any = None) -> Any:
        """A fact of the job."""
        with reading(self.path):
            return fact(self._db, name, default)

    def _all(self, query: str, values: Sequence[Any] = ()) -> list[Any]:
        with told(self.path):
            return self._db.execute(query, values).fetchall()

    def _value(self, query: str) -> Any:
        return self._all(query)[0][0]
