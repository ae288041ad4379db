"""What the local server was asked, kept for tests: each request, and how its reply ended."""

from __future__ import annotations

import threading
from collections import deque
from typing import Any, Literal

from starlette.requests import Request

from workersai.local.validation import body_from_json
from workersai.local.wire import WireError

Outcome = Literal["open", "complete", "disconnected", "failed"]

MOST_BYTES = 64 * 2**20
"""The bytes of requests that a log keeps unless it is told otherwise: 64 MiB."""

_KEPT = 1000
# What is kept of a body that was refused for what it says, so that a test can look at it.
_MOST_REFUSED_BYTES = 2**20


class RequestRecord:
    """One request, as the server saw it.

    The body is not kept if the request was refused by its head (address, token, route), or is too large; nor if it
    was refused for what it says, and has more than 1 MiB.

    Attributes:
        method: In capitals.
        path: Without the query, percent-decoded.
        query: The last value of each parameter.
        headers: Names in lower case; the value of ``authorization`` is ``***``.
        size: The bytes of the body that were read.
        connection: The client's port, which tells whether two requests came over one connection.
    """

    def __init__(self, request: Request, content: bytes | None, size: int) -> None:
        self.method = request.method
        self.path: str = request.scope["path"]
        self.query = dict(request.query_params)
        self.headers = {name: "***" if name == "authorization" else value for name, value in request.headers.items()}
        self.size = size
        self.connection: int | None = request.client.port if request.client else None
        self._head_size = sum(len(name) + len(value) for name, value in request.scope["headers"])
        self._head_size += len(self.path) + len(request.scope["query_string"])
        # Parsed, JSON takes up to 25 times its bytes, so it is kept as it came once the reply has ended.
        self._content = content
        self._parsed: tuple[Any] | None = None
        self._outcome: Outcome = "open"
        self._ended = threading.Event()

    def __repr__(self) -> str:
        return f"<{self.method} {self.path}: {self._outcome}>"

    @property
    def body(self) -> Any:
        """The parsed JSON, or None if there is none that can be parsed, or it was not kept."""
        parsed = self._parsed
        if parsed is None:
            parsed = (_parsed(self._content),)
            if not self._ended.is_set():
                self._parsed = parsed
        return parsed[0]

    @property
    def kept_bytes(self) -> int:
        """What the record takes in a log."""
        return self._head_size + len(self._content or b"")

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
            self._parsed = None

    def drop_large_body(self) -> None:
        """Forgets the body of a refused request; for :class:`RequestLog`, which counts it."""
        if len(self._content or b"") > _MOST_REFUSED_BYTES:
            self._content = self._parsed = None


class RequestLog:
    """The last requests, oldest first: 1,000 at most, and so many bytes. Any thread may read it.

    Args:
        most_bytes: What the records may take in all; the newest is always kept.
    """

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._lock = threading.Lock()
        self._most_bytes = most_bytes
        self._bytes = 0
        self._records: deque[RequestRecord] = deque()

    def add(self, record: RequestRecord) -> None:
        """Adds the newest, and drops the oldest beyond the bounds."""
        with self._lock:
            self._records.append(record)
            self._bytes += record.kept_bytes
            while len(self._records) > 1 and (len(self._records) > _KEPT or self._bytes > self._most_bytes):
                self._bytes -= self._records.popleft().kept_bytes

    def drop_large_body(self, record: RequestRecord) -> None:
        """Keeps a record without its body if that is large: the request was refused."""
        with self._lock:
            before = record.kept_bytes
            record.drop_large_body()
            if record in self._records:
                self._bytes -= before - record.kept_bytes

    def snapshot(self) -> list[RequestRecord]:
        """The requests up to now."""
        with self._lock:
            return list(self._records)


def _parsed(content: bytes | None) -> Any:
    try:
        return body_from_json(content or b"")
    except WireError:
        return None
