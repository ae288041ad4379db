"""Connections for async calls: a pool for one origin on one event loop.

Everything here happens on the loop's thread, between two awaits, so there is nothing to lock. A call that is cancelled,
or that doesn't end as planned, closes its connection, and it is never used again.
"""

from __future__ import annotations

import asyncio
import math
import ssl
from collections import deque
from contextlib import suppress

import httpx

from workersai._transport.async_connection import AsyncConnection
from workersai._transport.async_sockets import connect
from workersai._transport.limits import WaitLimit
from workersai._transport.proxies import Origin, Proxy
from workersai.protocol.request import Request

_DEFAULT_MAX_CONNECTIONS = 1_000


class AsyncPool:
    """Connections to one origin, for the calls on one event loop.

    Args:
        origin: Where they lead.
        proxy: What they lead through.
        tls: The TLS context, for an origin or a proxy with TLS.
        limits: How many may be in use at once and idle, and how long an idle one is kept.
    """

    def __init__(self, origin: Origin, proxy: Proxy | None, tls: ssl.SSLContext | None, limits: httpx.Limits) -> None:
        self._origin, self._proxy, self._tls = origin, proxy, tls
        self._max_idle = math.inf if limits.max_keepalive_connections is None else limits.max_keepalive_connections
        self._max_idle_seconds = math.inf if limits.keepalive_expiry is None else limits.keepalive_expiry
        self._free = limits.max_connections or _DEFAULT_MAX_CONNECTIONS
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._idle: deque[AsyncConnection] = deque()
        self._open: set[AsyncConnection] = set()
        self.closed = False

    def new_reply(self) -> AsyncReply:
        """A reply that is still to be requested."""
        return AsyncReply(self)

    async def take_connection(self, limit: WaitLimit) -> AsyncConnection:
        """A free connection, or a new one.

        Raises:
            httpx.TransportError: None can be established, or all are in use until the deadline.
        """
        await self._take_permit(limit)
        try:
            while self._idle:
                connection = self._idle.pop()  # the one used last, so that the others can expire
                if connection.is_usable(self._max_idle_seconds):
                    self._open.add(connection)
                    return connection
                connection.close()
            connection = await connect(self._origin, self._proxy, self._tls, limit, AsyncConnection)
            if self.closed:  # while it was being made
                connection.close()
                raise httpx.ConnectError("the client was closed")  # noqa: TRY301 - the permit is given back below
        except BaseException:
            self._give_permit()
            raise
        self._open.add(connection)
        return connection

    async def _take_permit(self, limit: WaitLimit) -> None:
        """Waits for a permit until the deadline; waiting for other calls doesn't count towards the timeout."""
        if self.closed:
            raise httpx.ConnectError("the client was closed")
        if self._free > 0:
            self._free -= 1
            return
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        self._waiting.append(waiter)
        left = limit.deadline.left()
        timer = None if left is None else loop.call_later(left, _fail, waiter)
        try:
            await waiter
        except (asyncio.CancelledError, httpx.PoolTimeout):
            with suppress(ValueError):  # it was taken out
                self._waiting.remove(waiter)
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self._give_permit()  # it came at the same moment
            raise
        finally:
            if timer is not None:
                timer.cancel()

    def _give_permit(self) -> None:
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
        self._free += 1

    def give_connection(self, connection: AsyncConnection) -> None:
        """Takes a connection back: it becomes idle if its reply was read to the end, and is closed otherwise."""
        if connection in self._open:
            self._open.discard(connection)
            self._give_permit()
        if self.closed or not connection.parser.is_reusable or len(self._idle) >= self._max_idle:
            connection.close()
        else:
            connection.become_idle()
            self._idle.append(connection)
            while not self._idle[0].is_fresh(self._max_idle_seconds):
                self._idle.popleft().close()

    def close(self) -> None:
        """Closes all connections. Calls end at once; those that are connecting, within 10 seconds."""
        self.closed = True
        while self._waiting:
            _fail(self._waiting.popleft(), httpx.ConnectError("the client was closed"))
        for connection in [*self._idle, *self._open]:
            connection.close(httpx.ReadError("the client was closed"))
        self._idle.clear()

    async def aclose(self) -> None:
        """The same, as httpx's clients have it."""
        self.close()

    def forget(self) -> None:
        """Drops the connections of an event loop that is closed."""
        for connection in [*self._idle, *self._open]:
            connection.close()
        self._idle.clear()


def _fail(waiter: asyncio.Future[None], error: Exception | None = None) -> None:
    if not waiter.done():
        waiter.set_exception(error or httpx.PoolTimeout("all connections are in use"))


class AsyncReply:
    """A request's reply, with the connection that it is read from.

    Attributes:
        status: The HTTP status.
        headers: The headers by name in lower case.
    """

    def __init__(self, pool: AsyncPool) -> None:
        self._pool = pool
        self._connection: AsyncConnection | None = None
        self.status = 0
        self.headers: dict[str, str] = {}

    async def request(self, request: Request, limit: WaitLimit) -> None:
        """Sends a request over a free connection, or a new one, and reads the head of the reply.

        Raises:
            httpx.TransportError: There is no reply.
        """
        self._connection = await self._pool.take_connection(limit)
        await self._connection.send(request, limit)
        self.status, self.headers = self._connection.parser.status, self._connection.parser.headers

    async def read(self, limit: WaitLimit) -> bytes:
        """The next chunk of the body as it was sent, empty at the end.

        Raises:
            httpx.TransportError: The body is broken off, or nothing is received in time.
        """
        return b"" if self._connection is None else await self._connection.read(limit)

    async def aclose(self) -> None:
        """Gives the connection back; one whose reply wasn't read to the end is closed. It doesn't wait."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._pool.give_connection(connection)
