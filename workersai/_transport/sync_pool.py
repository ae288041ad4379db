"""Connections for sync calls: a pool for one origin, which takes no lock.

Strategy. An abandoned stream is closed by the garbage collector, in whichever thread and at whichever line allocates
just then; a signal handler raises at any line. A lock taken by this code could be held by the very line that is
interrupted, and the process would hang. So the pool consists of operations that CPython makes atomic:

- idle connections are a ``deque``; ``append`` and ``pop`` need no lock;
- the limit on connections is a ``WaitQueue`` of permits, which may be used in a finalizer. A permit that is lost,
  because a signal handler raised at the wrong moment, is replaced when its object goes away;
- a connection belongs to one reply at a time. A call that doesn't end as planned closes it, and it is never used
  again. One whose reply went away without closing it, because a signal handler raised, is closed by a later call.
"""

from __future__ import annotations

import math
import queue
import ssl
import time
import weakref
from collections import deque
from contextlib import suppress

import httpx

from workersai._transport.limits import WaitLimit
from workersai._transport.proxies import Origin, Proxy
from workersai._transport.sockets import connect
from workersai._transport.sync_connection import SyncConnection
from workersai._wait_queue import WaitQueue
from workersai.protocol.request import Request

_DEFAULT_MAX_CONNECTIONS = 1_000
_FIRST_SWEEP = 64  # open connections, from which on those that were lost are looked for


class _Permit:
    """The right to use a connection; another one is free as soon as nobody holds it any more."""

    __slots__ = ("_free", "is_replaced")

    def __init__(self, free: WaitQueue[_Permit | None]) -> None:
        self.is_replaced = False  # a garbage collection may finalize it and bring it back (PEP 442)
        self._free = weakref.ref(free)  # else the two would keep each other alive

    def __del__(self) -> None:
        free = getattr(self, "_free", lambda: None)()  # a signal handler may have raised in __init__
        if free is not None and not self.is_replaced:
            self.is_replaced = True
            free.put(_Permit(free))


class SyncPool:
    """Connections to one origin, for any number of threads.

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
        self._idle: deque[SyncConnection] = deque()
        self._open: set[SyncConnection] = set()
        self._next_sweep = _FIRST_SWEEP
        self._permits: WaitQueue[_Permit | None] = WaitQueue()
        for _ in range(limits.max_connections or _DEFAULT_MAX_CONNECTIONS):
            self._permits.put(_Permit(self._permits))
        self.closed = False

    def new_reply(self) -> SyncReply:
        """A reply that is still to be requested."""
        return SyncReply(self)

    def take_permit(self, limit: WaitLimit) -> _Permit:
        """Waits for a permit until the deadline; waiting for other calls doesn't count towards the timeout.

        Raises:
            httpx.PoolTimeout: All connections are in use.
            httpx.ConnectError: The client was closed.
        """
        while True:
            try:
                permit = self._permits.get(timeout=limit.deadline.left())
            except queue.Empty:
                raise httpx.PoolTimeout("all connections are in use") from None
            if permit is None or self.closed:
                self._permits.put(None)  # for the next one that waits
                raise httpx.ConnectError("the client was closed")
            if not permit.is_replaced:
                return permit

    def give_permit(self, permit: _Permit) -> None:
        """Lets another call use a connection."""
        if not permit.is_replaced:
            self._permits.put(permit)

    def take_connection(self, user: SyncReply, limit: WaitLimit) -> SyncConnection:
        """An idle connection that is usable, or a new one, for a reply that gives it back.

        Raises:
            httpx.TransportError: None can be established.
        """
        with suppress(IndexError):  # none is idle
            while True:
                connection = self._idle.pop()  # the one used last, so that the others can expire
                if connection.is_usable(self._max_idle_seconds):
                    connection.user = weakref.ref(user)
                    return connection
                self._discard(connection)
        if len(self._open) >= self._next_sweep:
            self._close_lost()
        connection = SyncConnection(connect(self._origin, self._proxy, self._tls, limit))
        connection.user = weakref.ref(user)
        self._open.add(connection)
        if self.closed:  # while it was being established
            self._discard(connection)
            raise httpx.ConnectError("the client was closed")
        return connection

    def _close_expired(self) -> None:
        with suppress(IndexError):
            while time.monotonic() - self._idle[0].idle_since > self._max_idle_seconds:
                self._discard(self._idle.popleft())  # another thread may have taken the first: the next is young

    def _close_lost(self) -> None:
        """Closes connections whose reply is gone; again once there are twice as many, so that it stays cheap."""
        for connection in list(self._open):
            user, expired = connection.user, time.monotonic() - connection.idle_since > self._max_idle_seconds
            if expired if user is None else user() is None:  # lost on its way from or to the idle ones
                self._discard(connection)
        self._next_sweep = max(_FIRST_SWEEP, 2 * len(self._open))

    def _discard(self, connection: SyncConnection) -> None:
        self._open.discard(connection)
        connection.close()

    def give_connection(self, connection: SyncConnection) -> None:
        """Takes a connection back: it becomes idle if its reply was read to the end, and is closed otherwise."""
        if self.closed or not connection.parser.is_reusable or len(self._idle) >= self._max_idle:
            self._discard(connection)
            return
        connection.idle_since = time.monotonic()
        connection.user = None
        self._idle.append(connection)
        self._close_expired()
        if self.closed:  # in the meantime, by another thread, which may not have seen it
            self._discard(connection)

    def close(self) -> None:
        """Closes all connections. Calls in other threads end at once; those that are connecting, within 10 seconds."""
        self.closed = True
        self._permits.put(None)
        with suppress(IndexError):
            while True:
                self._discard(self._idle.pop())
        for connection in list(self._open):
            connection.interrupt()  # the threads that use them close them


class SyncReply:
    """A request's reply, with the connection that it is read from.

    Attributes:
        status: The HTTP status.
        headers: The headers by name in lower case.
    """

    def __init__(self, pool: SyncPool) -> None:
        self._pool = pool
        self._permit: _Permit | None = None
        self._connection: SyncConnection | None = None
        self.status = 0
        self.headers: dict[str, str] = {}

    def request(self, request: Request, limit: WaitLimit) -> None:
        """Sends a request over a free connection, or a new one, and reads the head of the reply.

        Raises:
            httpx.TransportError: There is no reply.
        """
        self._permit = self._pool.take_permit(limit)
        self._connection = self._pool.take_connection(self, limit)
        self._connection.send(request, limit)
        self.status, self.headers = self._connection.parser.status, self._connection.parser.headers

    def read(self, limit: WaitLimit) -> bytes:
        """The next chunk of the body as it was sent, empty at the end.

        Raises:
            httpx.TransportError: The body is broken off, or nothing is received in time.
        """
        return b"" if self._connection is None else self._connection.read(limit)

    def close(self) -> None:
        """Gives connection and permit back; a connection whose reply wasn't read to the end is closed. No lock."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._pool.give_connection(connection)
        permit, self._permit = self._permit, None
        if permit is not None:
            self._pool.give_permit(permit)

    def abandon(self) -> None:
        """The same: nothing of it waits or takes a lock, so that a finalizer may do it."""
        self.close()
