"""The end of streams that were left early, done by a thread of its own.

Strategy. A generator that nobody holds any more is closed by the garbage collector: in whichever thread allocates just
then, at whichever line, with whichever locks that thread holds. What the end of a stream needs (a tracker's sums, a
span's processor, another library's connection pool) takes locks, and taking one there could wait for a lock of the
very line that was interrupted, which never ends. So a stream that is left only ends its connection, which takes no
lock, and hands over the rest: :func:`submit` puts it into a ``SimpleQueue``, which may be used in a finalizer, and a
daemon thread does it a moment later. Code that must see the result, like the sums of a ``CostTracker``, calls
:func:`flush` first.
"""

from __future__ import annotations

import atexit
import logging
import os
import queue
import sys
import threading
import time
from collections.abc import Callable
from itertools import count

logger = logging.getLogger("workersai")

MAX_PENDING = 256
"""How many ends may wait before calls do some of them themselves."""

_MOMENT = 0.001  # seconds
_FLUSH_SECONDS = 10.0  # another library's close may take its time; nobody waits for it for ever

Work = Callable[[], object]


class _Here(threading.local):
    """Whether this thread is doing some of the work, which may look at a tracker: it can't wait for itself."""

    is_cleaning = False


_here = _Here()


class _Cleanup:
    """The queue, its thread, and what they count."""

    def __init__(self) -> None:
        self.queue: queue.SimpleQueue[tuple[int, Work]] = queue.SimpleQueue()
        self.pending: set[int] = set()
        self.numbers = count(1)
        self.thread: threading.Thread | None = None
        self.starting = threading.Lock()  # held by normal code only, which starts the thread

    def run(self) -> None:
        while True:
            self.do(*self.queue.get())

    def do(self, number: int, work: Work) -> None:
        _here.is_cleaning = True
        try:
            work()
        except Exception:
            logger.warning("The end of a stream that was left early failed", exc_info=True)
        finally:
            _here.is_cleaning = False
            self.pending.discard(number)


_state = _Cleanup()
_of_the_parent: list[_Cleanup] = []  # of a forked process: kept, so that nothing of it is finalized in the child


def start() -> None:
    """Starts the thread, unless it runs; called in normal code, before there can be anything to clean up."""
    if _state.thread is not None:
        return
    with _state.starting:
        if _state.thread is None:
            thread = threading.Thread(target=_state.run, name="workersai-cleanup", daemon=True)
            thread.start()
            _state.thread = thread


def submit(work: Work) -> None:
    """Has something done by the thread. Safe in a finalizer: it neither waits nor takes a lock."""
    number = next(_state.numbers)
    _state.pending.add(number)
    _state.queue.put((number, work))


def finish(work: Work) -> None:
    """Does something in a ``finally``: at once, or by the thread if the code is being ended by ``GeneratorExit``."""
    if isinstance(sys.exc_info()[1], GeneratorExit):
        submit(work)
    else:
        work()


def pending() -> int:
    """How many ends are waiting, or being done."""
    return len(_state.pending)


def relieve() -> None:
    """Does some of the work here if too much of it is waiting, so that what is kept stays bounded."""
    if len(_state.pending) > MAX_PENDING:
        drain()


def drain() -> None:
    """Does here what is waiting; not to be called in a finalizer or with a lock held."""
    while True:
        try:
            number, work = _state.queue.get_nowait()
        except queue.Empty:
            return
        _state.do(number, work)


def flush() -> None:
    """Returns once all that was submitted before is done; not to be called in a finalizer or with a lock held."""
    if not _state.pending or _here.is_cleaning:
        return
    drain()
    end = time.monotonic() + _FLUSH_SECONDS
    awaited = set(_state.pending)  # which the thread, or another one, is doing
    while not awaited.isdisjoint(_state.pending) and time.monotonic() < end:
        time.sleep(_MOMENT)
    _state.pending -= awaited  # what takes longer, or was lost as a signal handler raised, is awaited once


def _start_over() -> None:
    """In a forked process: the thread is not there, and its work is the parent's."""
    global _state  # noqa: PLW0603
    _of_the_parent.append(_state)
    _state = _Cleanup()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_over)
atexit.register(flush)
