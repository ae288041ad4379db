"""One connection for async calls: a request is sent over it, and the reply is read, each wait within its limit."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

import httpx

from workersai._transport.http1 import ReplyParser, request_bytes
from workersai._transport.limits import WaitLimit
from workersai._transport.sockets import is_readable
from workersai.protocol.request import Request

_SLICE = 65_536  # bytes to send within one timeout
_MAX_BUFFERED = 65_536  # bytes of a body that wait to be read; beyond, the server is slowed down


class AsyncConnection(asyncio.Protocol):
    """One connection, and the reply that is being read from it.

    Attributes:
        parser: The reply so far.
        idle_since: When the last reply was complete, by ``time.monotonic``.
    """

    def __init__(self) -> None:
        self.parser = ReplyParser()
        self.idle_since = 0.0
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._descriptor = -1
        self._waiter: asyncio.Future[None] | None = None
        self._failure: httpx.TransportError | None = None
        self._is_idle = self._is_lost = self._is_reading_paused = self._is_writing_paused = False

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is established."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - for the type checker
        self._transport = transport
        self._descriptor = transport.get_extra_info("socket").fileno()

    def data_received(self, data: bytes) -> None:
        """Something was received; what nobody asked for ends the connection."""
        if self._is_idle:
            self.close()
            return
        try:
            self.parser.feed(data)
        except httpx.TransportError as error:
            self._fail(error)
            return
        if self.parser.buffered > _MAX_BUFFERED and self._transport is not None and not self._is_reading_paused:
            self._is_reading_paused = True
            self._transport.pause_reading()
        self._wake()

    def eof_received(self) -> None:
        """The server has sent all that it will send."""

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection has ended, in order or not."""
        transport, self._transport = self._transport, None  # asyncio's abort() fails on a transport that has ended
        self._is_lost = True
        if transport is not None:
            transport.close()  # or Python 3.10 warns that a TLS transport is unclosed
        if exc is not None and not self.parser.is_complete:
            self._fail(httpx.ReadError(str(exc)))
            return
        try:
            self.parser.feed_end()
        except httpx.TransportError as error:
            self._fail(error)
        self._wake()

    def pause_writing(self) -> None:
        """The server doesn't keep up with what is sent."""
        self._is_writing_paused = True

    def resume_writing(self) -> None:
        """The server has caught up: sending is resumed."""
        self._is_writing_paused = False
        self._wake()

    def _time_out(self, kind: type[httpx.TimeoutException]) -> None:
        if self._waiter is not None and not self._waiter.done():  # else something came in the same turn of the loop
            self._fail(kind("timed out"))

    def _fail(self, error: httpx.TransportError) -> None:
        self._failure = self._failure or error
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # What calls do

    async def send(self, request: Request, limit: WaitLimit) -> None:
        """Sends a request, and waits for the head of its reply.

        Raises:
            httpx.TransportError: It can't be sent, or no valid head is received in time.
        """
        self._is_idle = False
        self.parser.start()
        await self._send_all(request_bytes(request), limit)
        while not self.parser.has_head:
            await self._wait(limit, httpx.ReadTimeout)

    async def _send_all(self, data: memoryview, limit: WaitLimit) -> None:
        for start in range(0, len(data), _SLICE):
            if self._transport is None or self._is_lost:
                return  # the server may have replied before, as to a request too large
            self._transport.write(data[start : start + _SLICE])
            while self._is_writing_paused and not self._is_lost:
                await self._wait(limit, httpx.WriteTimeout)

    async def read(self, limit: WaitLimit) -> bytes:
        """The next chunk of the body, as it was sent; empty at the end.

        Raises:
            httpx.TransportError: The body is broken off, or nothing is received in time.
        """
        while not self.parser.buffered:
            if self.parser.is_complete:
                return b""
            await self._wait(limit, httpx.ReadTimeout)
        body = self.parser.take_body()
        self._resume_reading()
        return body

    def _resume_reading(self) -> None:
        if self._is_reading_paused and self._transport is not None:
            self._is_reading_paused = False
            self._transport.resume_reading()

    async def _wait(self, limit: WaitLimit, timeout: type[httpx.TimeoutException]) -> None:
        """Waits until something happens."""
        if self._failure is not None:
            raise self._failure
        if limit.deadline.passed:
            raise timeout("timed out")
        seconds = limit.seconds()
        self._waiter = self._loop.create_future()
        timer = None if seconds is None else self._loop.call_later(seconds, self._time_out, timeout)
        try:
            await self._waiter
        finally:
            self._waiter = None
            if timer is not None:
                timer.cancel()
        if self._failure is not None and not self.parser.buffered and not self.parser.is_complete:
            raise self._failure

    def become_idle(self) -> None:
        """Keeps it for another call."""
        self._is_idle = True
        self.idle_since = time.monotonic()
        self._resume_reading()

    def is_fresh(self, max_idle_seconds: float) -> bool:
        """Whether it was in use within so many seconds."""
        return time.monotonic() - self.idle_since < max_idle_seconds

    def is_usable(self, max_idle_seconds: float) -> bool:
        """Whether an idle connection can take a request: nothing was received since its last reply."""
        if self._transport is None or self._is_lost or self._transport.is_closing():
            return False
        return self.is_fresh(max_idle_seconds) and not is_readable(self._descriptor)

    def close(self, error: httpx.TransportError | None = None) -> None:
        """Breaks the connection off: an orderly end would wait for the server, maybe for ever."""
        if error is not None:
            self._fail(error)
        self.parser.discard()
        transport, self._transport = self._transport, None
        if transport is not None:
            with suppress(RuntimeError):  # its loop was closed
                transport.abort()
