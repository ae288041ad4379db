"""Pacing: no more calls in a span of time than the account may make, over all threads, tasks and models."""

from __future__ import annotations

import heapq
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from pydantic_core import core_schema

from workersai.errors import ConfigurationError

_MOST_CALLS = 1_000_000


@dataclass(frozen=True)
class RateLimit:
    """So many calls in so many seconds, for all of this process that give a limit of the same name.

    The calls wait for their turn in the order in which they came; an attempt of a retry is a call as well. Several
    processes know nothing of each other: give each its share.

    Args:
        name: Who shares it; two limits of one name must be the same.
        calls: How many requests may begin within ``seconds``; the service takes 300 text generations a minute for an
            account (wire page, "Errors").
        seconds: The span; any span of that length, not only each full minute.

    Raises:
        ConfigurationError: a number is not above 0, or the name stands for another limit already.
    """

    name: str = "account"
    calls: int = 300
    seconds: float = 60.0

    def __post_init__(self) -> None:
        if not (isinstance(self.name, str) and self.name):
            raise ConfigurationError(f"A rate limit's name must be a string, and not empty; got {self.name!r:.80}.")
        if isinstance(self.calls, bool) or not isinstance(self.calls, int) or not 0 < self.calls <= _MOST_CALLS:
            raise ConfigurationError(f"calls must be a whole number above 0, not {self.calls!r:.80}.")
        if isinstance(self.seconds, bool) or not isinstance(self.seconds, int | float) or not 0 < self.seconds < 1e9:  # noqa: PLR2004 - as long as one likes
            raise ConfigurationError(f"seconds must be a number above 0, not {self.seconds!r:.80}.")
        limiter_of(self)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(
            cls._validated, serialization=core_schema.plain_serializer_function_ser_schema(asdict)
        )

    @classmethod
    def _validated(cls, value: Any) -> RateLimit:
        if isinstance(value, RateLimit):
            return value
        if isinstance(value, dict) and set(value) <= set(cls.__dataclass_fields__):  # as it is stored
            return cls(**value)
        raise ValueError("must be a workersai.RateLimit")


class Limiter:
    """Gives each call the time at which it may begin.

    A call may begin once the one that is ``calls`` places before it began ``seconds`` ago.
    """

    def __init__(self, limit: RateLimit, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit = limit
        self._clock = clock
        self._lock = threading.Lock()
        self._times: deque[float] = deque(maxlen=limit.calls)
        self._given_back: list[float] = []

    def reserve(self) -> float:
        """The next free time, by the clock of ``time.monotonic``."""
        with self._lock:
            now = self._clock()
            while self._given_back:
                slot = heapq.heappop(self._given_back)
                if slot >= now:
                    return slot
            full = len(self._times) == self.limit.calls
            slot = max(now, self._times[0] + self.limit.seconds) if full else now
            self._times.append(slot)
            return slot

    def give_back(self, slot: float) -> None:
        """Leaves a time to somebody else, since nothing is sent then."""
        with self._lock:
            heapq.heappush(self._given_back, slot)

    @contextmanager
    def turn(self) -> Iterator[float]:
        """A context to wait in, for so many seconds; who doesn't come to its end leaves the turn to somebody else."""
        slot = self.reserve()
        waited = False
        try:
            yield max(0.0, slot - self._clock())
            waited = True
        finally:
            if not waited:
                self.give_back(slot)


_limiters: dict[str, Limiter] = {}
_LOCK = threading.Lock()


def limiter_of(limit: RateLimit) -> Limiter:
    """The one limiter of this process for a limit.

    Raises:
        ConfigurationError: its name stands for another limit.
    """
    with _LOCK:
        limiter = _limiters.setdefault(limit.name, Limiter(limit))
    if limiter.limit != limit:
        raise ConfigurationError(
            f"The rate limit {limit.name!r} is {limiter.limit.calls} calls in {limiter.limit.seconds:g} s already: "
            "give this one another name."
        )
    return limiter
