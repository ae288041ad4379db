"""TLS over a connection that is encrypted itself, as through a proxy with https, for async calls.

Not asyncio's ``start_tls``: Python 3.10's refuses such a connection, and 3.11's breaks on an invalid certificate.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import TypeVar

from typing_extensions import override

_DECRYPT_SIZE = 65_536

ProtocolT = TypeVar("ProtocolT", bound=asyncio.Protocol)


class OuterTls(asyncio.Protocol):
    """Reads a connection to a proxy: first for whoever opens a tunnel, and then for the TLS inside of it."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._received = bytearray()
        self._has_ended = False
        self._failure: Exception | None = None
        self._inner: asyncio.Protocol | None = None
        self._tls: ssl.SSLObject
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()

    # What opens the tunnel calls

    async def receive(self) -> bytes:
        """What was received since the last time; waits for it. Empty at the end of the connection."""
        if not self._received and not self._has_ended:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        received = bytes(self._received)
        self._received.clear()
        return received

    async def send(self, data: bytes | memoryview) -> None:
        """Sends a few bytes."""
        if self._transport is not None:
            self._transport.write(data)

    def abort(self) -> None:
        """Breaks the connection off."""
        if self._transport is not None:
            self._transport.abort()

    async def encrypt(self, tls: ssl.SSLContext, host: str, new_protocol: Callable[[], ProtocolT]) -> ProtocolT:
        """Does the inner handshake; returns the protocol that reads the connection from then on.

        Raises:
            OSError: The handshake fails, or the host has no valid certificate.
        """
        self._tls = tls.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        while True:
            try:
                self._tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self.flush()
                received = await self.receive()
                self._incoming.write(received) if received else self._incoming.write_eof()
        self.flush()
        transport = self._transport
        if transport is None or self._has_ended:
            raise OSError("the connection was closed during the TLS handshake")
        protocol = new_protocol()
        protocol.connection_made(_InnerTransport(transport, self))
        self._inner = protocol
        self._decrypt(protocol)  # what came with the end of the handshake
        return protocol

    # What the transport inside calls

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypts and sends."""
        self._tls.write(data)
        self.flush()

    def flush(self) -> None:
        """Sends what is encrypted."""
        if self._outgoing.pending and self._transport is not None:
            self._transport.write(self._outgoing.read())

    # What asyncio calls

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - for the type checker
        self._transport = transport

    @override
    def data_received(self, data: bytes) -> None:
        if self._inner is None:
            self._received += data
            self._wake()
            return
        self._incoming.write(data)
        self._decrypt(self._inner)

    def _decrypt(self, inner: asyncio.Protocol) -> None:
        try:
            while data := self._tls.read(_DECRYPT_SIZE):
                inner.data_received(data)
        except ssl.SSLWantReadError:
            self.flush()  # as an answer to an update of the keys
            return
        except ssl.SSLZeroReturnError:
            pass  # the orderly end
        except ssl.SSLError as error:
            self._failure = error
        self.abort()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._has_ended = True
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.close()  # as in AsyncConnection
        self._wake()
        inner, self._inner = self._inner, None
        if inner is not None:
            inner.connection_lost(exc or self._failure)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    @override
    def pause_writing(self) -> None:
        if self._inner is not None:
            self._inner.pause_writing()

    @override
    def resume_writing(self) -> None:
        if self._inner is not None:
            self._inner.resume_writing()


class _InnerTransport(asyncio.Transport):
    """What the protocol inside sees of the connection."""

    def __init__(self, transport: asyncio.Transport, outer: OuterTls) -> None:
        super().__init__({"socket": transport.get_extra_info("socket")})
        self._transport, self._outer = transport, outer

    @override
    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._outer.write(data)

    @override
    def pause_reading(self) -> None:
        self._transport.pause_reading()

    @override
    def resume_reading(self) -> None:
        self._transport.resume_reading()

    @override
    def is_closing(self) -> bool:
        return self._transport.is_closing()

    @override
    def abort(self) -> None:
        self._transport.abort()
