"""Pacing: no more calls in a span of time than the account may make, over all threads, tasks and models."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from workersai.rate_limit import RateLimit, check_agreed
from workersai.waiting import Alarm, Turn, WaitingLine, attempt_to_hold, first_place, last_place

__all__ = ["Limiter", "RateLimit", "check_agreed", "limiter_of", "limiter_of_account"]

logger = logging.getLogger("workersai")

_WORTH_A_WORD = 1.0  # seconds
_LONGEST_WAIT = 1e6  # seconds in one piece; about what every platform can wait


class Limiter:
    """Gives each call the time at which it may begin.

    A call may begin once the one that is ``calls`` places before it began ``seconds`` ago. Nobody waits for another
    to say so, which might be a thread or an event loop that stands still: each waits for its own time.

    Strategy: the times of the last ``calls`` calls that began say when each place of the line is due, so that only the
    order of those that wait is kept (:class:`~workersai.waiting.WaitingLine`). Joining is O(1), leaving O(log n).

    A turn may be left by a finalizer, which the garbage collector can run in the midst of any of these methods, in the
    thread that holds the lock. So leaving only notes the turn, and takes the lock if it is free; else its holder sees
    to the notes before and after it releases it. A signal handler may raise anywhere: a ``with`` on a lock is entered
    and left in C, and the order of two changes is such that a call too few is made for it, never one too many.
    """

    def __init__(self, limit: RateLimit, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit = limit
        self._clock = clock
        self._begun: deque[float] = deque(maxlen=limit.calls)  # when the last calls began, or might have
        self._waiting = WaitingLine()
        self.start_over()

    def join(self, turn: Turn) -> None:
        """Gives a turn its place behind all others."""
        try:
            with self._lock:
                now = self._catch_up()
                if self._waiting or not self._is_free(now):
                    self._waiting.append(turn)
                    turn.time = self._due(len(self._waiting) - 1)
                else:
                    self._begun.append(now)
                    turn.time = now
        finally:
            self._settle()

    def leave(self, turn: Turn) -> None:
        """Gives a turn up whose time has not come: each that waits behind it moves up."""
        self._leaving.append(turn)
        self._settle()

    def pause(self, turn: Turn) -> float:
        """How many seconds the owner of a turn may sleep, unless woken, before it asks again; 0: its time has come."""
        left = turn.seconds()
        if not left:
            return left
        try:
            with self._lock:
                now = self._catch_up()
                turn.is_stale = False
                is_due = turn not in self._waiting
                left = 0.0 if is_due else self._due(first_place(turn.level)) - now
        finally:
            self._settle()
        return min(left, _LONGEST_WAIT)

    @contextmanager
    def turn(self, wake: Callable[[], object]) -> Iterator[Turn]:
        """A context to wait in; who doesn't come to its end leaves the turn to the others."""
        turn = Turn(wake, self._clock)
        waited = False
        try:
            self.join(turn)
            if (seconds := turn.seconds()) > _WORTH_A_WORD:
                logger.info("A call waits %.0f s for its turn: the rate limit is %s.", seconds, self.limit)
            yield turn
            waited = True
        finally:
            if not waited:
                self.leave(turn)

    def take(self, check: Callable[[float], None] | None = None) -> None:
        """Waits for a turn in this thread; ``check`` gets the seconds that it will take at most, and may refuse."""
        alarm = Alarm()
        with self.turn(alarm.set) as turn:
            if check is not None:
                check(turn.seconds())
            while seconds := self.pause(turn):
                alarm.wait(seconds)

    async def taken(self, check: Callable[[float], None] | None = None) -> None:
        """Waits for a turn on the running event loop; ``check`` is as for :meth:`take`."""
        moved_up, loop = asyncio.Event(), asyncio.get_running_loop()

        def wake() -> None:
            with suppress(RuntimeError):  # its loop was closed, and it with it
                loop.call_soon_threadsafe(moved_up.set)

        with self.turn(wake) as turn:
            if check is not None:
                check(turn.seconds())
            while seconds := self.pause(turn):
                import anyio  # noqa: PLC0415 - takes its time, and most calls need not wait

                with anyio.move_on_after(seconds):
                    await moved_up.wait()
                moved_up.clear()

    def start_over(self) -> None:
        """Forgets who waits, as in a child process: its parent's threads are not there, and one may hold the lock."""
        now = self._clock()
        for _ in range(len(self._waiting)):
            if self._due(0) <= now:
                self._begun.append(self._due(0))
        self._lock: Any = threading.RLock()  # Any: _is_owned is in no stub
        self._attempt = attempt_to_hold(self._lock)
        self._waiting = WaitingLine()
        self._leaving: deque[Turn] = deque()
        self._moved_up: deque[Turn] = deque()

    def _is_free(self, now: float) -> bool:
        return len(self._begun) < self.limit.calls or self._due(0) <= now

    def _due(self, place: int) -> float:
        """When a place of the line may begin; 0 is the first of those that wait."""
        rounds, index = divmod(place, self.limit.calls)
        return self._begun[index] + self.limit.seconds * (1 + rounds)

    def _catch_up(self) -> float:
        """Takes all turns out of the line that were left, or whose time has come; the time that it is now."""
        self._let_go()
        now = self._clock()
        self._forget(now)
        return now

    def _settle(self) -> None:
        """Lets those go who leave, and wakes those who moved up. Waits for nobody: a finalizer may call it."""
        while self._leaving and not self._lock._is_owned():  # noqa: SLF001 - nothing public says so
            is_mine = False
            try:
                with self._attempt as is_mine:
                    if is_mine:
                        self._let_go()
            except RuntimeError:
                if is_mine:
                    raise
                return  # its holder does the same after it
        while self._moved_up and not self._lock._is_owned():  # noqa: SLF001
            with suppress(IndexError):  # another thread was faster
                turn = self._moved_up.popleft()
                if turn.is_stale:
                    turn.time = min(turn.time, self._due(last_place(turn.level)))
                    turn.wake()

    def _let_go(self) -> None:
        self._mark(self._waiting.repair())
        if self._leaving:
            self._forget(self._clock())  # a turn whose time has come is over for the others as well
        while self._leaving:
            turn = self._leaving[0]
            self._mark(self._waiting.remove(turn))
            if self._leaving and self._leaving[0] is turn:
                self._leaving.popleft()

    def _forget(self, now: float) -> None:
        while self._waiting and (due := self._due(0)) <= now:
            turn = self._waiting.first()
            self._begun.append(due)
            self._mark(self._waiting.remove(turn))

    def _mark(self, moved: list[Turn]) -> None:
        for turn in moved:
            if not turn.is_stale:
                turn.is_stale = True
                self._moved_up.append(turn)


_limiters: dict[tuple[str | None, str | None], Limiter] = {}  # changed by single operations only, without a lock


def limiter_of_account(account_id: str) -> Limiter:
    """The limiter that all calls of an account share; where none was given yet, one with the service's own numbers.

    That one is of those who give none: it binds nobody who gives other numbers later.
    """
    given = _limiters.get((None, account_id)) or _limiters.get(("", account_id))
    return given or _limiters.setdefault(("", account_id), Limiter(RateLimit()))


def limiter_of(limit: RateLimit, account_id: str) -> Limiter:
    """The one limiter of this process for a limit.

    Raises:
        ConfigurationError: it has other numbers.
    """
    key = (limit.name, None) if limit.name else (None, account_id)
    limiter = _limiters.get(key) or _limiters.setdefault(key, Limiter(limit))
    check_agreed(limit, limiter.limit, "this process")
    return limiter


def _forked() -> None:
    for limiter in list(_limiters.values()):
        limiter.start_over()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
