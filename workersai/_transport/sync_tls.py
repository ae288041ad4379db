"""TLS over a connection that is encrypted itself, as through a proxy with https, which sockets can't do."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from workersai._transport.limits import WaitLimit

RECEIVE_SIZE = 65_536


class Stream(Protocol):
    """A socket, or TLS over a connection that is encrypted itself."""

    def settimeout(self, seconds: float | None, /) -> None: ...
    def recv(self, size: int, /) -> bytes: ...
    def sendall(self, data: memoryview, /) -> None: ...
    def shutdown(self, how: int, /) -> None: ...
    def close(self) -> None: ...
    def fileno(self) -> int: ...


class TlsInTls:
    """A connection inside of another encrypted one, with the methods of a socket."""

    def __init__(self, stream: Stream, host: str, tls: ssl.SSLContext, limit: WaitLimit) -> None:
        self._stream = stream
        self._end: float | None = None  # of what is being done, however often it receives
        self._received, self._to_send = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = tls.wrap_bio(self._received, self._to_send, server_hostname=host)
        self._do(self._tls.do_handshake, limit)

    def _do(self, action: Callable[[], Any], limit: WaitLimit | None = None) -> Any:
        """Does something that may have to send or to receive first."""
        while True:
            try:
                result = action()
            except ssl.SSLWantReadError:
                self._stream.settimeout(self._left() if limit is None else limit.seconds())
                self._flush()
                received = self._stream.recv(RECEIVE_SIZE)
                self._received.write(received) if received else self._received.write_eof()
            else:
                self._flush()
                return result
            if limit is not None and limit.deadline.passed:
                raise TimeoutError("the TLS handshake took too long")

    def _flush(self) -> None:
        if self._to_send.pending:
            self._stream.sendall(memoryview(self._to_send.read()))

    def _left(self) -> float | None:
        left = None if self._end is None else self._end - time.monotonic()
        if left is not None and left <= 0:
            raise TimeoutError("timed out")
        return left

    def settimeout(self, seconds: float | None, /) -> None:
        self._end = None if seconds is None else time.monotonic() + seconds
        self._stream.settimeout(seconds)

    def recv(self, size: int, /) -> bytes:
        try:
            received: bytes = self._do(lambda: self._tls.read(size))
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            return b""
        return received

    def sendall(self, data: memoryview, /) -> None:
        sent = 0
        while sent < len(data):
            sent += self._do(partial(self._tls.write, data[sent:]))

    def pending(self) -> int:
        return self._tls.pending() + self._received.pending

    def shutdown(self, how: int, /) -> None:
        if isinstance(self._stream, socket.socket):
            socket.socket.shutdown(self._stream, how)  # an SSLSocket's own would discard its TLS state

    def close(self) -> None:
        self._stream.close()

    def fileno(self) -> int:
        return self._stream.fileno()
