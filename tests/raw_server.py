"""A server that sends exactly the bytes a test wants, over real sockets: for what no well-behaved server does."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any, Literal

from workersai import AsyncClient, Client

Handler = Callable[[socket.socket, bytes], object]
"""Answers one request, given its head and body; the connection is kept unless it raises or returns False."""

Way = Literal["sync", "async", "httpx"]
WAYS: tuple[Way, ...] = ("sync", "async", "httpx")
"""The ways a request is sent: a Client, an AsyncClient, and an AsyncClient with http_client="httpx"."""

LONG = 120.0
"""Seconds that no test waits for, unless something hangs."""


class RawServer:
    """Listens on loopback, and hands each request to the handler in a thread of its connection."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port: int = self._listening.getsockname()[1]
        self.connections: list[socket.socket] = []
        self.ended = threading.Semaphore(0)
        """Released when the client has closed a connection."""
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def account(self) -> dict[str, Any]:
        """The arguments that point a client here."""
        return {"base_url": f"http://127.0.0.1:{self.port}", "account_id": "a", "api_token": "t", "max_retries": 0}

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connected = self._listening.accept()[0]
                self.connections.append(connected)
                threading.Thread(target=self._serve, args=(connected,), daemon=True).start()

    def _serve(self, connected: socket.socket) -> None:
        with contextlib.suppress(OSError), connected:
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while (request := _read_request(connected)) is not None:
                if self._handler(connected, request) is False:
                    break
        self.ended.release()

    def close(self) -> None:
        """Stops listening, and breaks all connections off."""
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for connected in self.connections:
            with contextlib.suppress(OSError):
                connected.shutdown(socket.SHUT_RDWR)


def _read_request(connected: socket.socket) -> bytes | None:
    data = b""
    while b"\r\n\r\n" not in data:
        received = connected.recv(65_536)
        if not received:
            return None
        data += received
    head, _, body = data.partition(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
    while len(body) < (int(length[1]) if length else 0):
        body += connected.recv(65_536)
    return head + b"\r\n\r\n" + body


@contextlib.contextmanager
def raw_server(handler: Handler) -> Iterator[RawServer]:
    """Runs a raw server for the time of a test."""
    server = RawServer(handler)
    try:
        yield server
    finally:
        server.close()


def completion(text: str) -> bytes:
    """The body of a reply with that text."""
    usage = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
    return json.dumps({"result": {"response": text, "usage": usage}, "success": True}).encode()


def reply(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    """A whole reply."""
    head = [f"HTTP/1.1 {status}", f"content-length: {len(body)}", "content-type: application/json", *headers]
    return "\r\n".join(head).encode("latin-1") + b"\r\n\r\n" + body


def chunked(*parts: bytes, end: bool = True) -> bytes:
    """A reply in chunks; without an end, more may follow."""
    head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-type: text/event-stream\r\n\r\n"
    return head + b"".join(map(chunk, parts)) + (b"0\r\n\r\n" if end else b"")


def chunk(data: bytes) -> bytes:
    """One chunk of a body."""
    return b"%x\r\n" % len(data) + data + b"\r\n"


def events(*texts: str, done: bool = True) -> bytes:
    """The events of a stream."""
    lines = b"".join(b"data: " + json.dumps({"response": text}).encode() + b"\n\n" for text in texts)
    return lines + (b"data: [DONE]\n\n" if done else b"")


def is_stream(request: bytes) -> bool:
    """Whether a request wants a stream."""
    return b'"stream"' in request


def call(
    way: Way,
    account: dict[str, Any],
    prompt: str,
    *,
    streamed: bool = False,
    on_text: Callable[[], object] = lambda: None,
    **options: Any,
) -> str:
    """The text of one answer, by one of the ways; ``on_text`` is called after each delta of a stream."""
    texts: list[str] = []
    if way == "sync":
        with Client(**account) as client:
            if not streamed:
                return client.run(prompt, **options).text
            for delta in client.stream(prompt, **options):
                texts.append(delta.text)
                on_text()
        return "".join(texts)

    async def main() -> str:
        async with AsyncClient(**account, http_client="httpx" if way == "httpx" else None) as client:
            if not streamed:
                return (await client.run(prompt, **options)).text
            async for delta in client.stream(prompt, **options):
                texts.append(delta.text)
                on_text()
        return "".join(texts)

    return asyncio.run(main())
