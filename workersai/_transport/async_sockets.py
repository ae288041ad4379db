"""Sockets for async calls: connected, tunneled and encrypted on the running event loop."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import TypeVar

import httpx

from workersai._transport.async_tls import OuterTls
from workersai._transport.limits import WaitLimit
from workersai._transport.proxies import Handshake, Origin, Proxy, open_tunnel
from workersai._transport.sockets import Address, address_from_literal, look_up

_NEXT_ADDRESS_AFTER = 0.25  # seconds (RFC 8305, "Happy Eyeballs")
_RECEIVE_SIZE = 4_096

ProtocolT = TypeVar("ProtocolT", bound=asyncio.Protocol)


async def connect(
    origin: Origin,
    proxy: Proxy | None,
    tls: ssl.SSLContext | None,
    limit: WaitLimit,
    new_protocol: Callable[[], ProtocolT],
) -> ProtocolT:
    """A connection to the origin, through the proxy if there is one, as the protocol that reads it.

    Raises:
        httpx.ConnectTimeout: It took longer than the limit, all steps together.
        httpx.ConnectError: The host can't be found, refuses the connection, or has no valid certificate.
        httpx.ProxyError: The proxy refuses.
    """
    import anyio  # noqa: PLC0415 - takes its time, and a new connection is rare

    first = origin if proxy is None else proxy
    with anyio.move_on_after(limit.for_connecting().seconds()):
        try:
            connected = await _connect_to_first(await _addresses(first.host, first.port))
            if proxy is not None and proxy.tls:
                return await _connect_through_tls(connected, proxy, origin, tls, new_protocol)
            if proxy is not None:
                await _open_plain_tunnel(connected, proxy, origin)
            return await _read_by(connected, new_protocol, tls if origin.tls else None, origin.host)
        except OSError as error:
            raise httpx.ConnectError(str(error)) from error
    raise httpx.ConnectTimeout("connecting timed out")


async def _addresses(host: str, port: int) -> Sequence[Address]:
    """Looks a host up; a look-up that is given up goes on in its daemon thread, which nothing waits for."""
    if literal := address_from_literal(host, port):
        return [literal]
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Sequence[Address]] = loop.create_future()

    def resolve(found: Sequence[Address] | BaseException) -> None:
        if future.done():
            return
        if isinstance(found, BaseException):
            future.set_exception(found)
        else:
            future.set_result(found)

    def call_back(found: Sequence[Address] | BaseException) -> None:
        with suppress(RuntimeError):  # the loop was closed
            loop.call_soon_threadsafe(resolve, found)

    look_up(host, port, call_back)
    return await future


async def _connect_to_first(addresses: Sequence[Address]) -> socket.socket:
    """Connects to the first address that accepts; each next one is tried after a quarter of a second."""
    waiting, failure = list(addresses), OSError("the host has no address")
    attempts: set[asyncio.Task[socket.socket]] = set()
    try:
        while waiting or attempts:
            if waiting:
                attempts.add(asyncio.ensure_future(_connect_to(waiting.pop(0))))
            done, attempts = await asyncio.wait(
                attempts, timeout=_NEXT_ADDRESS_AFTER if waiting else None, return_when=asyncio.FIRST_COMPLETED
            )
            for attempt in done:
                error = attempt.exception()
                if error is None:
                    attempts |= done - {attempt}
                    return attempt.result()
                if not isinstance(error, OSError):
                    raise error
                failure = error
    finally:
        for attempt in attempts:
            attempt.cancel()
            attempt.add_done_callback(_close_late)
    raise failure


def _close_late(attempt: asyncio.Task[socket.socket]) -> None:
    """Closes a connection that came too late to be used."""
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().close()


async def _connect_to(address: Address) -> socket.socket:
    family, kind, protocol, _, where = address
    attempt = socket.socket(family, kind, protocol)
    try:
        attempt.settimeout(0)
        await asyncio.get_running_loop().sock_connect(attempt, where)
        attempt.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        attempt.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    except BaseException:
        attempt.close()
        raise
    return attempt


async def _read_by(
    connected: socket.socket, new_protocol: Callable[[], ProtocolT], tls: ssl.SSLContext | None, host: str
) -> ProtocolT:
    try:
        _, protocol = await asyncio.get_running_loop().create_connection(
            new_protocol, sock=connected, ssl=tls, server_hostname=host if tls else None
        )
    except BaseException:
        connected.close()
        raise
    return protocol


async def _open_tunnel(
    handshake: Handshake,
    receive: Callable[[], Awaitable[bytes]],
    send: Callable[[bytes | memoryview], Awaitable[None]],
) -> None:
    try:
        step = next(handshake)
        while True:
            if step is None:
                step = handshake.send(await receive())
            else:
                await send(step)
                step = next(handshake)
    except StopIteration:
        return


async def _open_plain_tunnel(connected: socket.socket, proxy: Proxy, origin: Origin) -> None:
    loop = asyncio.get_running_loop()
    try:
        await _open_tunnel(
            open_tunnel(proxy, origin),
            lambda: loop.sock_recv(connected, _RECEIVE_SIZE),
            lambda data: loop.sock_sendall(connected, data),
        )
    except BaseException:
        connected.close()
        raise


async def _connect_through_tls(
    connected: socket.socket,
    proxy: Proxy,
    origin: Origin,
    tls: ssl.SSLContext | None,
    new_protocol: Callable[[], ProtocolT],
) -> ProtocolT:
    """Opens a tunnel through a proxy whose own connection is encrypted."""
    if tls is None:
        connected.close()
        raise OSError("no TLS context was given")
    outer = await _read_by(connected, OuterTls, tls, proxy.host)
    try:
        await _open_tunnel(open_tunnel(proxy, origin), outer.receive, outer.send)
        return await outer.encrypt(tls, origin.host, new_protocol)
    except BaseException:
        outer.abort()
        raise
