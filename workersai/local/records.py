"""What the local server was asked, kept for tests: each request, and how its reply ended."""

from __future__ import annotations

import threading
from collections import deque
from typing import Any, Literal

from starlette.requests import Request

Outcome = Literal["open", "complete", "disconnected", "failed"]

_KEPT = 1000


class RequestRecord:
    """One request, as the server saw it.

    Attributes:
        method: In capitals.
        path: Without the query, percent-decoded.
        query: The last value of each parameter.
        headers: Names in lower case; the value of ``authorization`` is ``***``.
        body: The parsed JSON, or None if there is none that can be parsed.
        connection: The client's port, which tells whether two requests came over one connection.
    """

    def __init__(self, request: Request, body: Any) -> None:
        self.method = request.method
        self.path: str = request.scope["path"]
        self.query = dict(request.query_params)
        self.headers = {name: "***" if name == "authorization" else value for name, value in request.headers.items()}
        self.body = body
        self.connection: int | None = request.client.port if request.client else None
        self._outcome: Outcome = "open"
        self._ended = threading.Event()

    def __repr__(self) -> str:
        return f"<{self.method} {self.path}: {self._outcome}>"

    @property
    def outcome(self) -> Outcome:
        """How the reply ended.

        ``complete``: it was sent whole. ``disconnected``: the client left before. ``failed``: the server cut it off.
        """
        return self._outcome

    def wait(self, timeout: float = 60.0) -> Outcome:
        """Blocks until the reply has ended, and returns how.

        Raises:
            TimeoutError: it has not within ``timeout`` seconds.
        """
        if not self._ended.wait(timeout):
            raise TimeoutError(f"{self!r} did not end within {timeout} seconds.")
        return self._outcome

    def end(self, outcome: Outcome) -> None:
        """Says how the reply ended; for the server. The first word counts."""
        if not self._ended.is_set():
            self._outcome = outcome
            self._ended.set()


class RequestLog:
    """The last 1,000 requests, oldest first. Any thread may read it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._records: deque[RequestRecord] = deque(maxlen=_KEPT)

    def add(self, record: RequestRecord) -> None:
        """Adds the newest."""
        with self._lock:
            self._records.append(record)

    def snapshot(self) -> list[RequestRecord]:
        """The requests up to now."""
        with self._lock:
            return list(self._records)
