"""A file that takes another one's place once it is whole, and follows no links on its way."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from workersai.errors import BadRequestError

# Where the platform has them: no link is followed, a pipe in the way blocks nobody, and line ends stay as they are.
_SAFELY = sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY"))


def part_path(path: Path) -> Path:
    """The file that is written before it takes the place of ``path``."""
    return path.with_name(f"{path.name}.part")


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A new file, which takes the place of ``path`` at the end of the block. Who writes the same file waits.

    Raises:
        BadRequestError: something else has the name of the new file.
        OSError: it can't be made.
    """
    part = part_path(path)
    file, replaced = _create(part), False
    try:
        _keep_mode(path, file)
        yield file
        file.flush()
        os.fsync(file.fileno())
        if sys.platform == "win32":  # where an open file can't be renamed
            file.close()
        part.replace(path)
        replaced = True
    finally:
        if not replaced:
            with suppress(OSError):
                part.unlink()
        file.close()


def check_part(path: Path) -> None:
    """Fails now if the new file could not be made in the end.

    Raises:
        BadRequestError: something else has its name.
    """
    part = part_path(path)
    with suppress(FileNotFoundError):
        _check_own(part, part.lstat())


def _create(part: Path) -> BinaryIO:
    while True:
        try:
            descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | _SAFELY, 0o666)
        except FileExistsError:
            _remove_stale(part)
            continue
        file = os.fdopen(descriptor, "w+b")
        _lock(file)
        if _is_at(file, part):  # and nobody took it for stale before it was locked
            return file
        file.close()


def _remove_stale(part: Path) -> None:
    """Removes what a process that was killed has left, once nobody writes it any more."""
    try:
        _check_own(part, part.lstat())
        file = os.fdopen(os.open(part, os.O_RDWR | _SAFELY), "r+b")
    except FileNotFoundError:
        return
    with file:
        _check_own(part, os.fstat(file.fileno()))
        _lock(file)
        if _is_at(file, part):
            with suppress(FileNotFoundError):
                part.unlink()


def _check_own(part: Path, status: os.stat_result) -> None:
    own = not hasattr(os, "geteuid") or status.st_uid == os.geteuid()
    if not (stat.S_ISREG(status.st_mode) and own):
        raise BadRequestError(
            f"{part} is in the way: it is a link, a folder, or another user's file. Remove it, or choose another "
            "--output."
        )


def _keep_mode(path: Path, file: BinaryIO) -> None:
    """Gives the new file the mode of the one that it replaces: a private output stays private."""
    with suppress(FileNotFoundError):
        status = path.lstat()
        if stat.S_ISREG(status.st_mode) and hasattr(os, "fchmod"):
            os.fchmod(file.fileno(), stat.S_IMODE(status.st_mode))


def _is_at(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.lstat())
    except FileNotFoundError:
        return False


def _lock(file: BinaryIO) -> None:
    """Waits until nobody else writes it; on Windows, an open file can't be removed anyway."""
    if sys.platform != "win32":
        import fcntl  # noqa: PLC0415 - it is there only

        fcntl.flock(file, fcntl.LOCK_EX)
