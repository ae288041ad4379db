"""What a job asks of who drives it: the sync and the async client each do these in their own way."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from workersai.calls import Call
from workersai.errors import WorkersAIError
from workersai.flows import Flow, Send, Step, Turn, Wait


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

    results: Sequence[Any]


@dataclass(frozen=True)
class Leave:
    """Break off the calls that wait for their turn or for a retry; each ends with a :class:`NotSentError`."""


JobStep = Take | Work | Begin | Next | Hand | Leave
JobFlow = Generator[JobStep, Any, None]


class NotSentError(WorkersAIError):
    """The job was stopped before the call was sent, or sent again."""


class Watched:
    """A call under way that can be left, as long as it is not being sent.

    Attributes:
        waits: Whether it waits for its turn, or for a retry.
    """

    def __init__(self, begun: Begin) -> None:
        self.key = begun.key
        self.call = begun.call
        self.waits = False
        self._flow = begun.flow
        self._left = False
        self._lock = threading.Lock()

    def leave(self) -> bool:
        """Lets nothing more be sent; says whether it waits, and nothing of it will be heard any more."""
        with self._lock:
            self._left = True
            return self.waits

    def flow(self) -> Flow[Any]:
        """The flow of the call, which ends before it sends anything once it was left.

        Raises:
            NotSentError: it was left.
        """
        try:
            step = next(self._flow)
            while self._goes_on(step):
                try:
                    outcome = yield step
                except WorkersAIError as error:
                    step = self._flow.throw(error)
                else:
                    step = self._flow.send(outcome)
        except StopIteration as end:
            return end.value
        self._flow.close()
        raise NotSentError("The job was stopped before this was sent.")

    def _goes_on(self, step: Step) -> bool:
        with self._lock:
            self.waits = isinstance(step, Turn | Wait)
            return not (self._left and isinstance(step, Turn | Wait | Send))
