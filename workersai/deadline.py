"""The time that a whole call may take, over all its attempts."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Mapping
from typing import Any

import httpx

from workersai.errors import APITimeoutError

_A_MOMENT = 0.001  # seconds; a timeout of none at all would not even try


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
        """Whether there are more seconds left than these."""
        left = self.left()
        return left is None or left > seconds

    def check(self, seconds: float) -> None:
        """Fails at once where a wait would outlast it.

        Raises:
            APITimeoutError: it would.
        """
        if not self.leaves(seconds):
            raise self.error()

    def error(self) -> APITimeoutError:
        """The error of a call that took longer; no retry of the same call could help."""
        return APITimeoutError(
            f"The call took longer than its deadline of {self._seconds:g} s. Ask for less, or raise deadline.",
            retryable=False,
        )


class Guard:
    """Holds the sync client to a deadline: there, only the socket's own timeouts can end a wait."""

    def __init__(self, deadline: Deadline) -> None:
        self._deadline = deadline
        self._timer: threading.Timer | None = None

    def watch_request(self, request: httpx.Request) -> None:
        """Keeps the timeouts of each phase, from connecting to the reply's head, within the time that is left."""
        if self._deadline.left() is None:
            return
        timeouts: dict[str, float | None] = request.extensions["timeout"]
        given = dict(timeouts)

        def shorten(_event: str, _info: Mapping[str, Any]) -> None:
            left = max(self._deadline.left() or 0.0, _A_MOMENT)
            timeouts.update({phase: min(seconds or left, left) for phase, seconds in given.items() if phase != "pool"})

        shorten("", {})
        request.extensions["trace"] = shorten

    def watch_reply(self, response: httpx.Response) -> None:
        """Ends the connection when the time is up: a body that dribbles would meet every timeout between its pieces."""
        left = self._deadline.left()
        stream = response.extensions.get("network_stream")
        if left is None or stream is None:
            return
        connection = stream.get_extra_info("socket")
        if isinstance(connection, socket.socket):
            self._timer = threading.Timer(left, _shut, [connection])
            self._timer.daemon = True
            self._timer.start()

    def end(self) -> None:
        """Nothing is watched any more."""
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()


def _shut(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:  # it is closed
        return
