"""A queue whose ``get`` ends when its timeout is over, and whose ``put`` may be used in a finalizer.

``queue.SimpleQueue`` promises both, but doesn't keep the first: in CPython before 3.13, ``get(timeout=...)`` waits
forever if the timeout is over at the moment when it looks again (Modules/_queuemodule.c hands the negative rest to a
lock, to which it means no timeout). On a busy machine, that happens. ``queue.Queue`` takes a lock, which the very line
that a garbage collection interrupts may hold.
"""

from __future__ import annotations

import math
import queue
import threading
import time
from collections import deque
from contextlib import suppress
from typing import Generic, TypeVar

T = TypeVar("T")

_LONGEST_WAIT = 1.0  # seconds, after which a thread looks by itself: a signal handler that raises may cost a wake-up


class WaitQueue(Generic[T]):
    """A queue for any number of threads. It consists of operations that CPython makes atomic, and takes no lock."""

    def __init__(self) -> None:
        self._items: deque[T] = deque()
        self._turns: deque[threading.Lock] = deque()  # of the threads that wait: released to wake one of them

    def put(self, item: T) -> None:
        """Adds an item. Safe in a finalizer and a signal handler: it neither waits nor takes a lock."""
        self._items.append(item)
        self._wake_one()

    def get(self, timeout: float | None = None) -> T:
        """Takes the oldest item; waits for one, at most so many seconds, or without a limit.

        Raises:
            queue.Empty: None has come in time.
        """
        end = math.inf if timeout is None else time.monotonic() + timeout
        while True:
            with suppress(IndexError):
                item = self._items.popleft()
                if self._items:
                    self._wake_one()  # the one that was woken for it may be this thread
                return item
            left = end - time.monotonic()
            if left <= 0:
                raise queue.Empty
            self._wait(min(left, _LONGEST_WAIT))

    def empty(self) -> bool:
        """Whether there is no item just now."""
        return not self._items

    def _wait(self, seconds: float) -> None:
        """Returns when there may be an item, or when the time is over."""
        turn = threading.Lock()
        turn.acquire()
        try:
            self._turns.append(turn)
            if not self._items:  # one that came before the line above has woken nobody
                turn.acquire(timeout=seconds)
        except BaseException:
            self._wake_one()  # in place of this thread, which will take no item
            raise
        finally:
            with suppress(ValueError):  # it was woken
                self._turns.remove(turn)

    def _wake_one(self) -> None:
        with suppress(IndexError):
            self._turns.popleft().release()
