"""When a failed call is tried again, and who is told."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from workersai.errors import WorkersAIError

_FIRST_BACKOFF = 0.5  # seconds; doubled with each further attempt
_LONGEST_BACKOFF = 8.0
_LONGEST_RETRY_AFTER = 60.0  # a service that asks for more is taken to be down


@dataclass(frozen=True)
class Retry:
    """A further attempt that is about to be made, as ``on_retry`` is told of it.

    Attributes:
        error: Why the attempt before it failed.
        attempt: The number of the attempt that failed; the first one is 1.
        wait: Seconds until the next one.
    """

    error: WorkersAIError
    attempt: int
    wait: float


OnRetry = Callable[[Retry], object]
"""Told of each retry before the wait; with :class:`~workersai.AsyncClient`, what it returns is awaited if it can be."""


def backoff(error: WorkersAIError, tries: int) -> float | None:
    """Seconds to wait before the next attempt, or None where the service asks for a longer wait than is worth it.

    Args:
        error: Why the last attempt failed.
        tries: How many attempts were retries so far.
    """
    if error.retry_after is not None:
        return error.retry_after if error.retry_after <= _LONGEST_RETRY_AFTER else None
    # Full jitter: clients that failed together must not come back together.
    return random.uniform(0, min(_LONGEST_BACKOFF, _FIRST_BACKOFF * 2 ** min(tries, 10)))  # noqa: S311 - not a secret
