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

VERSION = 1
"""Of the tables; a journal of another one is not touched."""

_FOLDER = "Check that its folder is there, and may be written to."
_ADVICE = {
    "not a database": "It is no journal of a batch job: choose another file.",
    "unable to open": _FOLDER,
    "readonly": "Check that it may be written to.",
    "full": "Free some space, then go on with it.",
    "malformed": "It is damaged: begin again with another one.",
}


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
            self._file = self._path.open("ab")
            try:
                _lock(self._file)
            except OSError:
                self._file.close()
                raise JournalError(
                    f"The journal {path} is in use by another job, here or in another process: wait for its end."
                ) from None
            if self._is_there():
                return
            self._file.close()

    def _is_there(self) -> bool:
        """Whether the file that is locked is still the one of that name; its owner may have removed it just now."""
        try:
            return os.path.samestat(os.fstat(self._file.fileno()), self._path.stat())
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Lets others have it."""
        with suppress(OSError):  # where an open file can't be removed
            self._path.unlink()
        self._file.close()


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
