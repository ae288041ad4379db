"""Sockets for sync calls: connected, encrypted and tunneled within one time limit.

No lock is taken, here or in the pool: closing a connection is safe in a finalizer and after a signal handler raised.
"""

from __future__ import annotations

import _thread
import contextlib
import errno
import ipaddress
import queue
import select
import selectors
import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from typing import Any

import httpx

from workersai._transport.limits import WaitLimit
from workersai._transport.proxies import Origin, Proxy, open_tunnel
from workersai._transport.sync_tls import Stream, TlsInTls
from workersai._wait_queue import WaitQueue

_NEXT_ADDRESS_AFTER = 0.25  # seconds (RFC 8305, "Happy Eyeballs")
_HANDSHAKE_RECEIVE_SIZE = 4_096
_CONNECTING = (0, errno.EINPROGRESS, errno.EWOULDBLOCK, getattr(errno, "WSAEWOULDBLOCK", 0))

Address = tuple[Any, Any, int, str, Any]
"""What getaddrinfo returns for each address: family, kind, protocol, canonical name, socket address."""


Callback = Callable[["Sequence[Address] | BaseException"], object]

_LOOK_UPS: dict[tuple[str, int], list[Callback]] = {}
_LOOK_UPS_LOCK = threading.RLock()  # held for a moment, in normal code only


def connect(origin: Origin, proxy: Proxy | None, tls: ssl.SSLContext | None, limit: WaitLimit) -> Stream:
    """A connection to the origin, through the proxy if there is one.

    Raises:
        httpx.ConnectTimeout: It took longer than the limit, all steps together.
        httpx.ConnectError: The host can't be found, refuses the connection, or has no valid certificate.
        httpx.ProxyError: The proxy refuses.
    """
    limit = limit.for_connecting()
    first = origin if proxy is None else proxy
    stream: Stream | None = None
    try:
        stream = _connect_to_first(_addresses(first.host, first.port, limit), limit)
        if proxy is not None:
            if proxy.tls:
                stream = _encrypt(stream, proxy.host, _required(tls), limit)
            _open_tunnel(stream, proxy, origin, limit)
        if origin.tls:
            stream = _encrypt(stream, origin.host, _required(tls), limit)
    except TimeoutError as error:
        _close(stream)
        raise httpx.ConnectTimeout(str(error) or "timed out") from None
    except OSError as error:
        _close(stream)
        raise httpx.ConnectError(str(error)) from error
    except BaseException:
        _close(stream)
        raise
    return stream


def _required(tls: ssl.SSLContext | None) -> ssl.SSLContext:
    if tls is None:
        raise httpx.ConnectError("no TLS context was given")
    return tls


def _close(stream: Stream | None) -> None:
    if stream is not None:
        stream.close()


def _addresses(host: str, port: int, limit: WaitLimit) -> Sequence[Address]:
    """Looks a host up, in a thread of its own, since nothing else bounds the time that it takes."""
    if literal := address_from_literal(host, port):
        return [literal]
    results: WaitQueue[Sequence[Address] | BaseException] = WaitQueue()
    look_up(host, port, results.put)
    try:
        found = results.get(timeout=limit.seconds())
    except queue.Empty:
        raise TimeoutError(f"looking up {host} timed out") from None
    if isinstance(found, BaseException):
        raise found
    return found


def address_from_literal(host: str, port: int) -> Address | None:
    """The address of a host that is given by its number; None for a name, which must be looked up."""
    try:
        version = ipaddress.ip_address(host).version
    except ValueError:
        return None
    if version == 4:  # noqa: PLR2004
        return socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port)
    return socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port, 0, 0)


def look_up(host: str, port: int, callback: Callback) -> None:
    """Looks a host up in a daemon thread, which calls back with its addresses or the error.

    Calls that look the same host up at once share one thread: a slow resolver would collect thousands.
    """

    def report(found: Sequence[Address] | BaseException) -> None:
        with _LOOK_UPS_LOCK:
            waiting = _LOOK_UPS.pop((host, port), [])
        for each in waiting:
            each(found)

    def work() -> None:
        try:
            found: Sequence[Address] | BaseException = socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            found = OSError(str(error))
        report(found)

    with _LOOK_UPS_LOCK:
        callbacks = _LOOK_UPS.setdefault((host, port), [])
        callbacks.append(callback)
        if len(callbacks) > 1:
            return  # the same look-up is in progress
    try:
        # Not threading.Thread, whose start waits for the thread in a way that a signal handler's exception breaks.
        _thread.start_new_thread(work, ())
    except RuntimeError as error:  # there are too many threads
        report(OSError(str(error)))


def _connect_to_first(addresses: Sequence[Address], limit: WaitLimit) -> socket.socket:
    """Connects to the first address that accepts; each next one is tried after a quarter of a second.

    So several addresses that don't answer take no longer than one.
    """
    waiting, failure = list(addresses), OSError("the host has no address")
    with selectors.DefaultSelector() as selector, contextlib.ExitStack() as losers:
        while waiting or selector.get_map():
            if waiting:
                try:
                    attempt = _begin_connecting(waiting.pop(0))
                except OSError as error:
                    failure = error
                    continue
                losers.callback(attempt.close)
                selector.register(attempt, selectors.EVENT_WRITE)
            patience = limit.seconds()
            if waiting:
                patience = _NEXT_ADDRESS_AFTER if patience is None else min(patience, _NEXT_ADDRESS_AFTER)
            for key, _ in selector.select(patience):
                attempt = key.fileobj  # type: ignore[assignment]  # only sockets are registered
                selector.unregister(attempt)
                if (code := attempt.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)) == 0:
                    return _detached(attempt)
                failure = OSError(code, errno.errorcode.get(code, "connection failed"))
            if limit.deadline.passed:
                raise TimeoutError("connecting timed out")
    raise failure


def _begin_connecting(address: Address) -> socket.socket:
    family, kind, protocol, _, where = address
    attempt = socket.socket(family, kind, protocol)
    attempt.settimeout(0)
    code = attempt.connect_ex(where)
    if code not in _CONNECTING:
        attempt.close()
        raise OSError(code, errno.errorcode.get(code, "connection failed"))
    return attempt


def _detached(attempt: socket.socket) -> socket.socket:
    """The same connection as another object, so that closing the attempts doesn't close it."""
    connected = socket.socket(attempt.family, attempt.type, attempt.proto, fileno=attempt.detach())
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    return connected


def _open_tunnel(stream: Stream, proxy: Proxy, origin: Origin, limit: WaitLimit) -> None:
    handshake = open_tunnel(proxy, origin)
    try:
        step = next(handshake)
        while True:
            stream.settimeout(limit.seconds())
            if step is None:
                step = handshake.send(stream.recv(_HANDSHAKE_RECEIVE_SIZE))
            else:
                stream.sendall(memoryview(step))
                step = next(handshake)
            if limit.deadline.passed:
                raise TimeoutError("the proxy took too long")
    except StopIteration:
        return


def _encrypt(stream: Stream, host: str, tls: ssl.SSLContext, limit: WaitLimit) -> Stream:
    if not isinstance(stream, socket.socket) or isinstance(stream, ssl.SSLSocket):
        return TlsInTls(stream, host, tls, limit)
    stream.settimeout(limit.seconds())
    encrypted = tls.wrap_socket(stream, server_hostname=host, do_handshake_on_connect=False)
    try:
        encrypted.do_handshake()  # the timeout holds for the handshake as a whole
    except BaseException:
        encrypted.close()
        raise
    return encrypted


def has_input(stream: Stream) -> bool:
    """Whether something can be read at once: of an idle connection, its end, or bytes that nobody asked for."""
    pending = getattr(stream, "pending", None)
    return (pending is not None and pending() > 0) or is_readable(stream.fileno())


def is_readable(descriptor: int) -> bool:
    """Whether a socket has something to read, or was closed."""
    if descriptor < 0:
        return True
    if not hasattr(select, "poll"):  # Windows
        return bool(select.select([descriptor], [], [], 0)[0])
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))
