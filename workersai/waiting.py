"""The line of those that wait for a rate limit: who is next, who moved up, and how to wake a thread.

Leaving a line of n costs O(log n), and wakes at most as many. For that, the line is kept in levels: level k holds the
places 2**k - 1 to 2**(k + 1) - 2, so that all levels but the last are full. When a turn leaves, the first turn of each
level behind it moves to the end of the level before. Only these turns are woken: any other turn is on the level that it
knew of, and sleeps until the first place of that level is due. So a turn is woken about log n times, however many leave
in front of it, never sleeps past its time, and depends on no other thread or event loop to be told of it.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any


@dataclass(eq=False)
class Turn:
    """A place in the line: when its call may begin at the latest. That gets earlier when turns before it leave."""

    wake: Callable[[], object]
    """Called from any thread, and from finalizers, when the turn has moved up: it must not take a lock."""
    clock: Callable[[], float]
    time: float = 0.0
    level: int = 0
    is_stale: bool = False
    """Whether the turn has moved up since its owner last looked."""

    def seconds(self) -> float:
        """The longest that there is left to wait."""
        self.is_stale = False  # before the time is read: what changes from here on wakes again
        return max(0.0, self.time - self.clock())


class WaitingLine:
    """Turns in their order of arrival.

    An exception may end each method anywhere (a signal handler that raises). The order itself is changed by single
    operations in C, which nothing interrupts. The levels may be left unsound; :meth:`repair` makes them again.
    """

    def __init__(self) -> None:
        self._turns: OrderedDict[Turn, None] = OrderedDict()
        self._levels: list[OrderedDict[Turn, None]] = []
        self._is_sound = True

    def __len__(self) -> int:
        return len(self._turns)

    def __contains__(self, turn: object) -> bool:
        return turn in self._turns

    def first(self) -> Turn:
        """The turn that is next."""
        return next(iter(self._turns))

    def append(self, turn: Turn) -> None:
        """Takes a turn in as the last one."""
        levels, self._is_sound = self._levels, False
        self._turns[turn] = None
        _put_on_level(levels, turn, len(self._turns) - 1)
        self._is_sound = levels is self._levels

    def remove(self, turn: Turn) -> list[Turn]:
        """Takes a turn out, and returns those that are on another level for it: each is now the last of its level."""
        if turn not in self._turns:
            return []
        levels, self._is_sound = self._levels, False
        del self._turns[turn]
        del levels[turn.level][turn]
        moved: list[Turn] = []
        for lower, upper in pairwise(levels[turn.level :]):
            first, _ = upper.popitem(last=False)
            lower[first] = None
            first.level -= 1
            moved.append(first)
        if not levels[-1]:
            levels.pop()
        self._is_sound = levels is self._levels
        return moved

    def repair(self) -> list[Turn]:
        """Makes the levels again, if a change was interrupted, and returns all turns: each may be on another level."""
        if self._is_sound:
            return []
        levels: list[OrderedDict[Turn, None]] = []
        for place, turn in enumerate(self._turns):
            _put_on_level(levels, turn, place)
        self._levels = levels
        self._is_sound = True
        return list(self._turns)


def _put_on_level(levels: list[OrderedDict[Turn, None]], turn: Turn, place: int) -> None:
    turn.level = (place + 1).bit_length() - 1
    if turn.level == len(levels):
        levels.append(OrderedDict())
    levels[turn.level][turn] = None


def first_place(level: int) -> int:
    """The first place of a level, from 0."""
    return (1 << level) - 1


def last_place(level: int) -> int:
    """The last place of a level."""
    return (2 << level) - 2


def attempt_to_hold(lock: Any) -> Any:
    """A context that holds an RLock if it is free, without waiting for it; its value is whether it is held.

    If it is not, leaving the context raises RuntimeError, as releasing the lock of another thread does. The context is
    entered and left in C, between which and the ``with`` no signal handler runs: one that raises can't leave the lock
    taken, as it can between a call of ``acquire`` and a ``try``.
    """
    methods = {
        "__enter__": staticmethod(partial(lock.acquire, blocking=False)),
        "__exit__": staticmethod(lock.__exit__),
    }
    return type("Attempt", (), methods)()


class Alarm:
    """Wakes one thread, like ``threading.Event``; but :meth:`set` takes no lock that the thread may hold itself.

    A finalizer may call it, which runs in whichever thread the garbage collector runs in.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def set(self) -> None:
        """Ends the wait that lasts now, or else the next one."""
        with suppress(RuntimeError):  # it is set already
            self._lock.release()

    def wait(self, seconds: float) -> None:
        """Waits until it is set, and so many seconds at most; then it is not set any more."""
        self._lock.acquire(timeout=seconds)
