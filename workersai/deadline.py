"""The time that a whole call may take, over all its attempts."""

from __future__ import annotations

import math
import time

from workersai.errors import APITimeoutError, WorkersAIError

END_OF_BODY = 0.1  # seconds that the end of a body may take once the answer is whole


class Deadline:
    """Runs from where it is made.

    Args:
        seconds: What the call may take; None for no limit.
    """

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._end = None if seconds is None else time.monotonic() + seconds

    def left(self) -> float | None:
        """Seconds that are left, not below 0; None where there is no limit."""
        return None if self._end is None else max(0.0, self._end - time.monotonic())

    @property
    def passed(self) -> bool:
        """Whether it has come."""
        return self.left() == 0

    def leaves(self, seconds: float) -> bool:
        """Whether more than ``seconds`` are left."""
        left = self.left()
        return left is None or left > seconds

    def check(self) -> None:
        """Fails when it has come.

        Raises:
            APITimeoutError: it has.
        """
        if self.passed:
            raise self.error()

    def check_turn(self, seconds: float) -> None:
        """Fails at once where a rate limit gives the call its turn too late.

        Raises:
            APITimeoutError: it does.
        """
        if not self.leaves(seconds):
            raise APITimeoutError(
                f"The rate limit would give this call its turn in {math.ceil(seconds)} s, after its deadline of "
                f"{self._seconds:g} s: it was not sent. Send fewer calls at once, or raise deadline.",
                retryable=False,
            )

    def error(self, failure: WorkersAIError | None = None) -> APITimeoutError:
        """The error of a call that took longer, as the failure showed; no retry of the same call could help."""
        error = APITimeoutError(
            f"The call took longer than its deadline of {self._seconds:g} s. Ask for less, or raise deadline.",
            retryable=False,
        )
        error.never_sent = failure is not None and failure.never_sent
        return error
