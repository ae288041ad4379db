"""The sync client's sockets, held to the deadline of the call that waits on them."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterable
from typing import Any

import httpcore
import httpx
from typing_extensions import override

from workersai.deadline import here

_A_MOMENT = 0.001  # seconds; a timeout of none at all would not even try
_SLICE = 65_536  # bytes to write under one timeout


def hold_to_deadlines(http: httpx.Client) -> None:
    """Makes each wait on a pool's sockets end with the deadline of its call.

    httpx has timeouts of single waits only, and reads them once for a whole head or body: who sends a byte now and
    then would meet them for ever. It offers no way of giving its pools another network backend, hence the private
    names; without them, a deadline would be looked at between the pieces of a body only.
    """
    for transport in (http._transport, *http._mounts.values()):  # noqa: SLF001
        pool = getattr(transport, "_pool", None)
        if pool is not None:
            pool._network_backend = _Backend(pool._network_backend)  # noqa: SLF001


def _within(seconds: float | None) -> float | None:
    """The seconds of a wait, as far as the deadline leaves them."""
    left = None if here.deadline is None else here.deadline.left()
    if left is None:
        return seconds
    return max(_A_MOMENT, left if seconds is None else min(seconds, left))


class _Backend(httpcore.NetworkBackend):
    def __init__(self, backend: httpcore.NetworkBackend) -> None:
        self._backend = backend

    @override
    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        return _Stream(self._backend.connect_tcp(host, port, _within(timeout), local_address, socket_options))

    @override
    def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore.NetworkStream:
        return _Stream(self._backend.connect_unix_socket(path, _within(timeout), socket_options))

    @override
    def sleep(self, seconds: float) -> None:
        self._backend.sleep(seconds)


class _Stream(httpcore.NetworkStream):
    """A socket that is held to the deadline.

    httpcore writes a request's head and its body apart, and nothing at its end. Each would be a packet of its own,
    which wakes the server for the head alone: so what is short is held until the end, or until something is read.
    """

    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream
        self._held = b""

    @override
    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        if self._held:
            self._write_held(timeout)
        return self._stream.read(max_bytes, timeout if here.deadline is None else _within(timeout))

    @override
    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._held += buffer
        if not buffer or len(self._held) > _SLICE:
            self._write_held(timeout)

    def _write_held(self, timeout: float | None) -> None:
        held, self._held = self._held, b""
        for start in range(0, len(held), _SLICE):
            self._stream.write(held[start : start + _SLICE], _within(timeout))

    @override
    def close(self) -> None:
        sock = self._stream.get_extra_info("socket")
        with contextlib.suppress(OSError):  # which is closed, or was never connected
            socket.socket.shutdown(sock, socket.SHUT_RDWR)  # wakes the thread that reads it, which close alone doesn't
        self._stream.close()

    @override
    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        self._write_held(timeout)
        return _Stream(self._stream.start_tls(ssl_context, server_hostname, _within(timeout)))

    @override
    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
