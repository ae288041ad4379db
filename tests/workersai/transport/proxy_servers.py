"""Proxies for tests, over real sockets, and a service over TLS behind them."""

from __future__ import annotations

import base64
import contextlib
import re
import select
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import trustme

from tests.raw_server import LONG, chunked, completion, events, is_stream, reply

Handler = Callable[[socket.socket], object]
"""Serves one connection, in a thread of its own."""

HOST = "service.test"
ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"
SOCKS_DONE = b"\x05\x00\x00\x01\x7f\x00\x00\x01\x00\x50"


@contextlib.contextmanager
def listening(handler: Handler) -> Iterator[int]:
    """Serves connections on loopback; gives the port. At the end all connections are broken off."""
    connections: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def serve(connected: socket.socket, same: socket.socket) -> None:
        try:
            with contextlib.suppress(OSError), connected:
                handler(connected)
        finally:
            with contextlib.suppress(OSError):
                same.shutdown(socket.SHUT_RDWR)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                connected = server.accept()[0]
                # Another object for the same connection, since a TLS handshake takes the first one's away.
                connections.append(connected.dup())
                threads.append(threading.Thread(target=serve, args=(connected, connections[-1]), daemon=True))
                threads[-1].start()

    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        accepting = threading.Thread(target=accept, daemon=True)
        accepting.start()
        try:
            yield server.getsockname()[1]
        finally:
            with contextlib.suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)
            accepting.join(LONG)
            for connected in connections:
                with contextlib.suppress(OSError), connected:
                    connected.shutdown(socket.SHUT_RDWR)
            for thread in threads:
                thread.join(LONG)


def over_tls(authority: trustme.CA, name: str, handler: Handler) -> Handler:
    """The handler, behind TLS with a certificate for that name."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(name).configure_cert(context)

    def serve(connected: socket.socket) -> None:
        with context.wrap_socket(connected, server_side=True) as encrypted:
            handler(encrypted)

    return serve


def read_until(connected: socket.socket, end: bytes) -> bytes:
    data = b""
    while not data.endswith(end):
        received = connected.recv(65_536)
        if not received:
            raise ConnectionError("closed by the client")
        data += received
    return data


def answer_requests(connected: socket.socket) -> None:
    """The service: one answer for each request, whole or streamed."""
    while True:
        head, _, body = read_until(connected, b"}").partition(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
        assert length is not None
        assert len(body) == int(length[1])
        connected.sendall(chunked(events("o", "k")) if is_stream(body) else reply(completion("ok")))


@dataclass
class Tunnels:
    """What a proxy was requested to connect to, and with which authentication."""

    service_port: int
    targets: list[str] = field(default_factory=list)
    credentials: list[str] = field(default_factory=list)

    def connect(self, client: socket.socket) -> None:
        """An HTTP proxy, which takes CONNECT."""
        head = read_until(client, b"\r\n\r\n").decode()
        target = re.match(r"CONNECT (\S+) HTTP/1\.1\r\n", head)
        assert target is not None
        self.targets.append(target[1])
        if pair := re.search(r"proxy-authorization: Basic (\S+)", head):
            self.credentials.append(base64.b64decode(pair[1]).decode())
        self._relay(client, ESTABLISHED)

    def socks(self, client: socket.socket) -> None:
        """A SOCKS 5 proxy, which takes a password if it is offered one."""
        _, count = take(client, 2)
        (method,) = take(client, count)
        client.sendall(bytes((5, method)))
        if method == 2:
            take(client, 1)
            name, password = (take(client, take(client, 1)[0]).decode() for _ in range(2))
            self.credentials.append(f"{name}:{password}")
            client.sendall(b"\x01\x00")
        assert take(client, 4) == b"\x05\x01\x00\x03", "the proxy looks up the name"
        host = take(client, take(client, 1)[0]).decode()
        self.targets.append(f"{host}:{int.from_bytes(take(client, 2), 'big')}")
        self._relay(client, SOCKS_DONE)

    def _relay(self, client: socket.socket, established: bytes) -> None:
        with socket.create_connection(("127.0.0.1", self.service_port)) as service:
            client.sendall(established)
            while True:
                for source in select.select([client, service], [], [])[0]:
                    target = service if source is client else client
                    data = source.recv(65_536)
                    if not data:
                        return
                    while isinstance(source, ssl.SSLSocket) and source.pending():
                        data += source.recv(65_536)
                    target.sendall(data)


def take(connected: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        received = connected.recv(size - len(data))
        if not received:
            raise ConnectionError("closed by the client")
        data += received
    return data


@contextlib.contextmanager
def service_behind_tls(authority: trustme.CA) -> Iterator[Tunnels]:
    """The service, which is reached through tunnels only, since nothing resolves its name."""
    with listening(over_tls(authority, HOST, answer_requests)) as port:
        yield Tunnels(port)


def account(port: int = 443) -> dict[str, Any]:
    """The arguments that point a client at the service behind a proxy."""
    return {"base_url": f"https://{HOST}:{port}/v4", "account_id": "a", "api_token": "t0ken-t0ken", "max_retries": 0}
