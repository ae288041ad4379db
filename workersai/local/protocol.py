"""uvicorn's HTTP with what it lacks: a head that is never completed has a time limit, and connections have a number.

A client that opens connections and sends half a request on each would otherwise hold all the files that the process may
open, for as long as it likes.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any

import h11
from starlette.types import Receive, Scope, Send
from typing_extensions import override
from uvicorn.protocols.http.h11_impl import H11Protocol

from workersai.local.watch import TRANSPORT
from workersai.local.wire import WireError, error_envelope, to_json

# Seconds that a client has for the head of a request, from the connection or from the head's first byte.
HEAD_SECONDS = 10.0
_MOST_CONNECTIONS = 10_000
_LEAST_CONNECTIONS = 16


class Protocol(H11Protocol):
    """One connection. The application is passed the transport as well, so that a fault can close it."""

    head_timer: asyncio.TimerHandle | None = None
    waiting_since = 0.0

    @override
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        super().connection_made(transport)
        app = self.app

        async def with_transport(scope: Scope, receive: Receive, send: Send) -> None:
            await app({**scope, TRANSPORT: transport}, receive, send)

        self.app = with_transport
        self._start_timer()
        if len(self.connections) > most_connections():
            self._close_longest_waiting()

    @override
    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch_head()

    @override
    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch_head()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self.stop_timer()
        super().connection_lost(exc)

    def _watch_head(self) -> None:
        """Starts the time limit once a head has begun, and ends it once the head is complete."""
        if self.transport.is_closing() or self.conn.their_state is not h11.IDLE:
            self.stop_timer()
        elif self.head_timer is None and self.conn.trailing_data[0]:
            self._start_timer()

    def _start_timer(self) -> None:
        self.waiting_since = time.monotonic()
        self.head_timer = self.loop.call_later(HEAD_SECONDS, self._refuse_late_head)

    def stop_timer(self) -> None:
        """Ends the time limit of a head."""
        if self.head_timer is not None:
            self.head_timer.cancel()
            self.head_timer = None

    def _refuse_late_head(self) -> None:
        self.head_timer = None
        if self.transport.is_closing():
            return
        # A client that has sent nothing expects no reply either.
        if self.conn.trailing_data[0] and self.conn.our_state is h11.IDLE:
            self.transport.write(self._late_reply())
        self.transport.close()

    def _late_reply(self) -> bytes:
        words = f"AiError: Timeout: the head of the request was not complete after {HEAD_SECONDS:g} seconds"
        body = to_json(error_envelope(WireError(408, 3007, words)))
        headers = [("content-type", "application/json"), ("content-length", str(len(body))), ("connection", "close")]
        events: list[Any] = [
            h11.Response(status_code=408, headers=headers, reason=b"Request Timeout"),
            h11.Data(data=body),
            h11.EndOfMessage(),
        ]
        return b"".join(self.conn.send(event) or b"" for event in events)

    def _close_longest_waiting(self) -> None:
        """Makes room for this connection: of those that have sent no head yet, the oldest is closed."""
        waiting = [each for each in self.connections if isinstance(each, Protocol) and each.head_timer is not None]
        oldest = min(waiting, key=lambda each: each.waiting_since)
        if oldest is not self:
            oldest.stop_timer()
            oldest.transport.abort()


def most_connections() -> int:
    """How many connections a server keeps: half of the files that the process may open, the other half is for it."""
    if sys.platform == "win32":
        return _MOST_CONNECTIONS
    import resource  # noqa: PLC0415 - Windows has none

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 0 or soft == resource.RLIM_INFINITY:
        return _MOST_CONNECTIONS
    return max(_LEAST_CONNECTIONS, min(_MOST_CONNECTIONS, soft // 2))
