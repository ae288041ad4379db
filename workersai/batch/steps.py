"""What a job asks of who drives it: the sync and the async client each do these in their own way."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from workersai.batch.values import BatchResult
from workersai.calls import Call
from workersai.errors import WorkersAIError
from workersai.flows import Flow


@dataclass(frozen=True)
class Take:
    """Take so many of the caller's requests, or those that are left; the outcome is a list, empty at the end."""

    most: int


@dataclass(frozen=True)
class Work:
    """Do something that reads or writes the journal, and may take a moment; the outcome is what it returns."""

    what: Callable[[], Any]


Key = tuple[Literal["call", "submit", "poll"], int]


@dataclass(frozen=True)
class Begin:
    """Begin a call, which goes on beside everything else."""

    key: Key
    call: Call
    flow: Flow[Any]


@dataclass(frozen=True)
class Ended:
    """A call that was begun has ended, with what its flow returned, or with an error."""

    key: Key
    value: Any = None
    error: WorkersAIError | None = None


@dataclass(frozen=True)
class Next:
    """Wait until a call has ended, at most so many seconds; the outcome is a list of all that have :class:`Ended`."""

    seconds: float | None


@dataclass(frozen=True)
class Hand:
    """Hand these results to the caller."""

    results: Sequence[BatchResult]


JobStep = Take | Work | Begin | Next | Hand
JobFlow = Generator[JobStep, Any, None]
