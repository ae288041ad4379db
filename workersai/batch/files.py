"""The file of a journal: who may have it open, and what its errors mean."""

from __future__ import annotations

import os
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from workersai.errors import JournalError

APPLICATION = 0x57414942
"""What a journal has as SQLite's application id: "WAIB"."""

VERSION = 2
"""Of the tables; a journal of another one is not touched."""

_PRIVATE = 0o600  # a journal holds prompts and answers; SQLite gives its other files the same mode
_SAFELY = sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_CLOEXEC", "O_BINARY"))
_FOLDER = "Check that its folder is there, and may be written to."
_DAMAGED = (
    "It is damaged, so that nothing is read from it: what of it is whole, `sqlite3 JOURNAL .recover` may show. Start "
    "the job again with another journal."
)
_ADVICE = {
    "not a database": "It is no journal of a batch job: choose another file.",
    "unable to open": _FOLDER,
    "readonly": "Check that it may be written to.",
    "full": "Free some space, then go on with it.",
    "malformed": _DAMAGED,
    "decode": _DAMAGED,
    "too big": _DAMAGED,
    "no such": _DAMAGED,
}


class DamageError(ValueError):
    """Something in a journal is not as it was written."""


class Lock:
    """Keeps other jobs from a journal, until this process ends, however that ends.

    It is the system's lock of an empty file beside the journal: closing another handle of the journal itself would
    take away SQLite's own locks of it.

    Raises:
        JournalError: another job has it.
        OSError: the file can't be made.
    """

    def __init__(self, path: Path) -> None:
        self._path = path.with_name(f"{path.name}-lock")
        while True:
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | _SAFELY
            self._file = os.fdopen(os.open(self._path, flags, _PRIVATE), "ab")
            try:
                _lock(self._file)
            except OSError:
                self._file.close()
                raise JournalError(
                    f"The journal {path} is in use by another job, here or in another process: wait for its end."
                ) from None
            if self.is_there():
                return
            self._file.close()

    def is_there(self) -> bool:
        """Whether the file that is locked is still the one of that name; its owner may have removed it just now."""
        return is_at(self._path, os.fstat(self._file.fileno()))

    def is_elsewhere(self) -> bool:
        """Whether the file still exists, but not at its name: its folder was moved."""
        return not self.is_there() and os.fstat(self._file.fileno()).st_nlink > 0

    def release(self) -> None:
        """Lets others have it."""
        if self.is_there():
            with suppress(OSError):  # where an open file can't be removed
                self._path.unlink()
        self._file.close()


def is_at(path: Path, status: os.stat_result) -> bool:
    """Whether a path still leads to the file with that status."""
    try:
        return os.path.samestat(status, path.stat())
    except OSError:  # it, or its folder, is gone
        return False


def create_private(path: Path) -> bool:
    """Makes an empty file that only its owner can read; False if there is something already.

    Raises:
        OSError: it can't be made.
    """
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | _SAFELY, _PRIVATE))
    except FileExistsError:
        return False
    return True


def _lock(file: BinaryIO) -> None:
    if sys.platform == "win32":
        import msvcrt  # noqa: PLC0415 - it is there only

        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        import fcntl  # noqa: PLC0415

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextmanager
def told(path: Path | None) -> Iterator[None]:
    """Tells errors of SQLite and of the file as ours.

    Raises:
        JournalError: in place of any of them.
    """
    try:
        yield
    except OSError as error:
        raise JournalError(
            f"The journal {path} can't be opened: {error.strerror}. {_ADVICE['unable to open']}"
        ) from error
    except sqlite3.Error as error:
        advice = next(
            (advice for words, advice in _ADVICE.items() if words in str(error)), "Go on with it once that is mended."
        )
        raise JournalError(f"The journal {path or 'of this job'} can't be used: {error}. {advice}") from error


@contextmanager
def reading(path: Path | None) -> Iterator[None]:
    """Tells also a value that a journal can't have as an error of the journal.

    Raises:
        JournalError: in place of whatever fails on it.
    """
    try:
        with told(path):
            yield
    except DamageError as error:
        raise JournalError(f"The journal {path or 'of this job'} can't be used: {error}. {_DAMAGED}") from None
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise JournalError(f"The journal {path or 'of this job'} can't be read. {_DAMAGED}") from error
