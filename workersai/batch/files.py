"""The file of a journal: who may have it open, and what its errors mean."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from workersai.errors import JournalError

APPLICATION = 0x57414942
"""What a journal has as SQLite's application id: "WAIB"."""

_ADVICE = {
    "not a database": "It is no journal of a batch job: choose another file.",
    "unable to open": "Check that its folder is there, and may be written to.",
    "readonly": "Check that it may be written to.",
    "full": "Free some space, then go on with it.",
    "malformed": "It is damaged: begin again with another one.",
}


class Lock:
    """Keeps other jobs from a journal, until this process ends, however that ends.

    It is a transaction on an empty database beside the journal.

    Raises:
        JournalError: another job has it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path.with_name(f"{path.name}-lock")
        while True:
            self._db = sqlite3.connect(self._path, isolation_level=None, timeout=0, check_same_thread=False)
            try:
                self._db.execute("BEGIN EXCLUSIVE")
            except sqlite3.OperationalError as error:
                self._db.close()
                if "locked" not in str(error):
                    raise
                raise JournalError(
                    f"The journal {path} is in use by another job, here or in another process: wait for its end."
                ) from None
            if self._path.exists():  # else its owner removed it just now
                return
            self._db.close()

    def release(self) -> None:
        """Lets others have it."""
        with suppress(OSError):  # where an open file can't be removed
            self._path.unlink()
        self._db.close()


@contextmanager
def told(path: Path | None) -> Iterator[None]:
    """Tells SQLite's errors as ours.

    Raises:
        JournalError: in place of any of them.
    """
    try:
        yield
    except sqlite3.Error as error:
        advice = next(
            (advice for words, advice in _ADVICE.items() if words in str(error)), "Go on with it once that is mended."
        )
        raise JournalError(f"The journal {path or 'of this job'} can't be used: {error}. {advice}") from error
