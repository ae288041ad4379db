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
from dataclasses import asdict, dataclass
from typing import Any

from pydantic_core import core_schema

from workersai.checks import is_number, shown
from workersai.errors import ConfigurationError

logger = logging.getLogger("workersai")

_MOST_CALLS = 1_000_000
_WORTH_A_WORD = 1.0  # seconds
_LONGEST_WAIT = 1e6  # seconds in one piece; about what every platform can wait


@dataclass(frozen=True)
class RateLimit:
    """So many calls in so many seconds, for all of this process that keep the same limit.

    The calls wait for their turn in the order in which they came; an attempt of a retry is a call as well. Several
    processes know nothing of each other: give each its share. The service takes 300 text generations a minute for an
    account (wire page, "Errors").

    Args:
        calls: How many requests may begin within ``seconds``.
        seconds: The span; any span of that length, not only each full minute.
        name: Who shares it; by default all calls of the same account that give no name. Where calls share a limit,
            its numbers must be the same.

    Raises:
        ConfigurationError: a number is not above 0, or the name is no text.
    """

    calls: int = 300
    seconds: float = 60.0
    name: str | None = None

    def __post_init__(self) -> None:
        if self.name is not None and not (isinstance(self.name, str) and self.name):
            raise ConfigurationError(f"A rate limit's name must be a string, and not empty; got {shown(self.name)}.")
        if isinstance(self.calls, bool) or not isinstance(self.calls, int) or not 0 < self.calls <= _MOST_CALLS:
            raise ConfigurationError(f"calls must be a whole number above 0, not {shown(self.calls)}.")
        if not (is_number(self.seconds) and 0 < self.seconds < 1e9):  # noqa: PLR2004 - as long as one likes
            raise ConfigurationError(f"seconds must be a number above 0, not {shown(self.seconds)}.")

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(
            cls._validated, serialization=core_schema.plain_serializer_function_ser_schema(asdict)
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: core_schema.CoreSchema, handler: Any) -> dict[str, Any]:
        types = {"calls": "integer", "seconds": "number", "name": "string"}
        return {"type": "object", "properties": {name: {"type": kind} for name, kind in types.items()}}

    @classmethod
    def _validated(cls, value: Any) -> RateLimit:
        if isinstance(value, RateLimit):
            return value
        if isinstance(value, dict) and set(value) <= set(cls.__dataclass_fields__):  # as it is stored
            return cls(**value)
        raise ValueError("must be a workersai.RateLimit")


@dataclass(eq=False)
class Turn:
    """A place in the line: the time at which its call may begin, which gets earlier where one before it leaves."""

    time: float
    wake: Callable[[], object]
    """Called, from any thread, when the time has become earlier than :meth:`seconds` last said."""
    clock: Callable[[], float]
    told: bool = False

    def seconds(self) -> float:
        """How long there is to wait, at the least."""
        self.told = False  # before the time is read: what changes from here on is told
        return min(max(0.0, self.time - self.clock()), _LONGEST_WAIT)

    def move_up(self, at: float) -> None:
        """Takes the time of the one before it."""
        self.time = at
        if not self.told:
            self.told = True
            self.wake()


class Limiter:
    """Gives each call the time at which it may begin.

    A call may begin once the one that is ``calls`` places before it began ``seconds`` ago. Nobody waits for another
    to say so, which might be a thread or an event loop that stands still: each waits for its own time.
    """

    def __init__(self, limit: RateLimit, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit = limit
        self._clock = clock
        self._times: deque[float] = deque()  # of those that began lately, and of those that wait
        self._waiting: list[Turn] = []
        self._leaving: deque[Turn] = deque()
        self.start_over()

    def join(self, wake: Callable[[], object]) -> Turn:
        """The next free turn."""
        with self._alone():
            now = self._clock()
            self._forget(now)
            full = len(self._times) >= self.limit.calls
            at = max(now, self._times[-self.limit.calls] + self.limit.seconds) if full else now
            turn = Turn(at, wake, self._clock)
            self._times.append(at)
            if at > now:
                self._waiting.append(turn)
            return turn

    def leave(self, turn: Turn) -> None:
        """Gives a turn up whose time has not come: each that waits behind it moves up."""
        self._leaving.append(turn)
        with self._alone():
            pass

    @contextmanager
    def turn(self, wake: Callable[[], object]) -> Iterator[Turn]:
        """A context to wait in; who doesn't come to its end leaves the turn to the others."""
        turn = self.join(wake)
        if (seconds := turn.seconds()) > _WORTH_A_WORD:
            logger.info("A call waits %.0f s for its turn: the rate limit is %s.", seconds, self.limit)
        waited = False
        try:
            yield turn
            waited = True
        finally:
            if not waited:
                self.leave(turn)

    async def taken(self, check: Callable[[float], None] | None = None) -> None:
        """Waits for a turn on the running event loop; ``check`` is told the seconds at the least, and may refuse."""
        moved_up, loop = asyncio.Event(), asyncio.get_running_loop()

        def wake() -> None:
            with suppress(RuntimeError):  # its loop was closed, and it with it
                loop.call_soon_threadsafe(moved_up.set)

        with self.turn(wake) as turn:
            if check is not None:
                check(turn.seconds())
            while seconds := turn.seconds():
                import anyio  # noqa: PLC0415 - takes its time, and most calls need not wait

                with anyio.move_on_after(seconds):
                    await moved_up.wait()
                moved_up.clear()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Holds the lock, and at the end lets those go who leave.

        Garbage collection may have somebody leave in the midst of it, in the same thread: that one waits for the end.
        """
        with self._lock:
            self._depth += 1
            try:
                yield
            finally:
                while self._depth == 1 and self._leaving:
                    self._let_go(self._leaving.popleft())
                self._depth -= 1

    def _let_go(self, turn: Turn) -> None:
        self._forget(self._clock())
        if turn not in self._waiting:
            return  # its time has come, and is over for the others as well
        place = self._waiting.index(turn)
        behind = self._waiting[place + 1 :]
        times = [turn.time, *(other.time for other in behind)]
        del self._waiting[place]
        self._times.pop()
        for other, at in zip(behind, times, strict=False):
            other.move_up(at)

    def start_over(self) -> None:
        """Forgets who waits, as in a child process: its parent's threads are not there, and one may hold the lock."""
        self._lock = threading.RLock()
        self._depth = 0
        self._times = deque(at for at in self._times if at <= self._clock())
        self._waiting.clear()
        self._leaving.clear()

    def _forget(self, now: float) -> None:
        while self._waiting and self._waiting[0].time <= now:
            del self._waiting[0]
        while self._times and self._times[0] <= now - self.limit.seconds:
            self._times.popleft()


_limiters: dict[tuple[str | None, str | None], Limiter] = {}
_LOCK = threading.Lock()  # only held to look up a limiter, or to make one


def limiter_of_account(account_id: str) -> Limiter:
    """The limiter that all calls of an account share; where none was given yet, one with the service's own numbers.

    That one is of those who give none: it binds nobody who gives other numbers later.
    """
    with _LOCK:
        given = _limiters.get((None, account_id))
        return given or _limiters.setdefault(("", account_id), Limiter(RateLimit()))


def limiter_of(limit: RateLimit, account_id: str) -> Limiter:
    """The one limiter of this process for a limit.

    Raises:
        ConfigurationError: it has other numbers.
    """
    key = (limit.name, None) if limit.name else (None, account_id)
    with _LOCK:
        limiter = _limiters.setdefault(key, Limiter(limit))
    check_agreed(limit, limiter.limit, "this process")
    return limiter


def check_agreed(limit: RateLimit, kept: RateLimit, where: str) -> None:
    """Fails where a limit has other numbers than the one that is kept under the same name.

    Raises:
        ConfigurationError: it has.
    """
    if kept != limit:
        whose = f"named {limit.name!r}" if limit.name else "of this account"
        raise ConfigurationError(
            f"The rate limit {whose} is {kept.calls} calls in {kept.seconds:g} s already, for all of {where}: use the "
            "same numbers, or give this one a name of its own."
        )


def _forked() -> None:
    global _LOCK  # noqa: PLW0603 - a thread that is not in the child may hold it
    _LOCK = threading.Lock()
    for limiter in _limiters.values():
        limiter.start_over()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
