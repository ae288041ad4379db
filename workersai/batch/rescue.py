"""A journal whose file was deleted, moved or replaced while its job ran: what it holds is saved."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from workersai.batch.files import Lock, create_private
from workersai.errors import JournalError


@dataclass(frozen=True)
class Rescue:
    """Where the content of a journal is now.

    Attributes:
        error: What the job must end with.
        path: The restored journal.
        lock: Its lock.
        db: Its database; None if the open one is still the right one.
    """

    error: JournalError
    path: Path
    lock: Lock
    db: sqlite3.Connection | None


def rescue(db: sqlite3.Connection, path: Path, lock: Lock) -> Rescue:
    """Writes what the open file holds to a new one, which is at its old place if that is free.

    Raises:
        JournalError: it can't be written.
    """
    if lock.is_elsewhere():
        error = JournalError(
            f"The folder of the journal {path} was moved or renamed while the job ran, so the job was stopped. All "
            "answers are in the journal, where it is now: continue the job from there."
        )
        return Rescue(error, path, lock, None)
    try:
        target, own = _free_place(path, lock)
        restored = sqlite3.connect(target, isolation_level=None, check_same_thread=False)
        db.backup(restored)
    except (OSError, sqlite3.Error) as problem:
        raise JournalError(
            f"The journal {path} was deleted or moved while the job ran, and can't be restored: {problem}. The job was "
            "stopped; the answers of this run are lost unless you still have that file."
        ) from problem
    what = "deleted or renamed" if target == path else "replaced by another file"
    error = JournalError(
        f"The journal {path} was {what} while the job ran, so the job was stopped. No answer is lost: the journal was "
        f"restored as {target}. Continue with it; on the command line: workersai batch resume {target}"
    )
    return Rescue(error, target, own, restored)


def _free_place(path: Path, lock: Lock) -> tuple[Path, Lock]:
    """A new, empty file, with its lock."""
    for number in count():
        target = path if number == 0 else path.with_name(f"{path.name}.restored-{number}")
        try:
            own = lock if target == path and lock.is_there() else Lock(target)
        except JournalError:  # somebody has started a job there meanwhile
            continue
        if create_private(target):
            break
        if own is not lock:
            own.release()
    return target, own


def leave(path: Path, lock: Lock, rescued: Rescue) -> None:
    """Removes what belongs to the old file, now that its database is closed: SQLite would add it to the new one."""
    if rescued.lock is lock:
        return
    if lock.is_there():
        for name in ("-wal", "-shm"):
            path.with_name(f"{path.name}{name}").unlink(missing_ok=True)
    lock.release()
