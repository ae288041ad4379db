"""How long one wait on a connection may take."""

from __future__ import annotations

from dataclasses import dataclass

from workersai.deadline import Deadline

MAX_CONNECT_SECONDS = 10.0
"""The longest that a connection may take to be established; a host that is up accepts one well within this time."""

_SHORTEST_WAIT = 0.001  # seconds; with none at all, what has been received already would not be read


@dataclass(frozen=True)
class WaitLimit:
    """The limits of the waits of one attempt.

    Args:
        timeout: Seconds for each wait; None for no limit.
        deadline: The end of the whole call.
    """

    timeout: float | None
    deadline: Deadline

    def seconds(self) -> float | None:
        """How long the next wait may take; None for no limit."""
        left = self.deadline.left()
        if left is None:
            return self.timeout
        return max(_SHORTEST_WAIT, left if self.timeout is None else min(self.timeout, left))

    def for_connecting(self) -> WaitLimit:
        """The limits while a connection is being established, all steps of it together."""
        seconds = MAX_CONNECT_SECONDS if self.timeout is None else min(self.timeout, MAX_CONNECT_SECONDS)
        left = self.deadline.left()
        return WaitLimit(None, Deadline(seconds if left is None else min(seconds, left)))
