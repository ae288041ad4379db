"""One connection for sync calls: a request is sent over it, and the reply is read, each wait within its limit."""

from __future__ import annotations

import os
import socket
import time
import weakref
from contextlib import suppress

import httpx

from workersai._transport.http1 import ReplyParser, request_bytes
from workersai._transport.limits import WaitLimit
from workersai._transport.sockets import has_input
from workersai._transport.sync_tls import RECEIVE_SIZE, Stream
from workersai.protocol.request import Request

_SLICE = 65_536  # bytes to send within one timeout


class SyncConnection:
    """One connection, and the reply that is being read from it.

    Attributes:
        parser: The reply so far.
        idle_since: When the last reply was complete, by ``time.monotonic``.
        user: The reply that is read from it; None if it is idle. The reference is weak, so that a lost one is noticed.
    """

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self.parser = ReplyParser()
        self.idle_since = 0.0
        self._process = os.getpid()
        self.user: weakref.ref[object] | None = None

    def send(self, request: Request, limit: WaitLimit) -> None:
        """Sends a request, and reads the head of its reply.

        Raises:
            httpx.TransportError: It can't be sent, or no valid head is received in time.
        """
        self.parser.start()
        failure: OSError | None = None
        try:
            self._send_all(request_bytes(request), limit)
        except TimeoutError:
            raise httpx.WriteTimeout("timed out") from None
        except OSError as error:
            failure = error  # the server may have replied before it closed the connection, as to a request too large
        try:
            while not self.parser.has_head:
                self._receive(limit)
        except httpx.TransportError:
            if failure is not None:
                raise httpx.WriteError(str(failure)) from None
            raise

    def _send_all(self, data: memoryview, limit: WaitLimit) -> None:
        for start in range(0, len(data), _SLICE):
            self._stream.settimeout(limit.seconds())
            self._stream.sendall(data[start : start + _SLICE])

    def read(self, limit: WaitLimit) -> bytes:
        """The next chunk of the body, as it was sent; empty at the end.

        Raises:
            httpx.TransportError: The body is broken off, or nothing is received in time.
        """
        while not self.parser.buffered:
            if self.parser.is_complete:
                return b""
            self._receive(limit)
        return self.parser.take_body()

    def _receive(self, limit: WaitLimit) -> None:
        if limit.deadline.passed:
            raise httpx.ReadTimeout("timed out")
        if self._process != os.getpid():
            raise httpx.ReadError("the connection belongs to the process that this one was forked from")
        self._stream.settimeout(limit.seconds())
        try:
            data = self._stream.recv(RECEIVE_SIZE)
        except TimeoutError:
            raise httpx.ReadTimeout("timed out") from None
        except OSError as error:
            raise httpx.ReadError(str(error)) from None
        if data:
            self.parser.feed(data)
        else:
            self.parser.feed_end()

    def is_usable(self, max_idle_seconds: float) -> bool:
        """Whether an idle connection can take a request: nothing was received since its last reply."""
        return time.monotonic() - self.idle_since < max_idle_seconds and not has_input(self._stream)

    def interrupt(self) -> None:
        """Ends the connection for the server, and for the thread that reads it."""
        if self._process != os.getpid():
            return  # a fork's copy: the connection is the parent's
        with suppress(OSError):  # it is closed already
            if isinstance(self._stream, socket.socket):
                socket.socket.shutdown(self._stream, socket.SHUT_RDWR)  # an SSLSocket's own would discard its TLS state
            else:
                self._stream.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Closes it."""
        self.interrupt()
        self._stream.close()
        self.parser.discard()
