"""A server that sends more than one reply to a request, or less: no caller is given what was meant for another."""

import asyncio
import re
import socket
import threading
from collections.abc import Callable

import pytest

from tests.raw_server import WAYS, Handler, Way, call, chunk, chunked, completion, events, is_stream, raw_server, reply
from workersai import AsyncClient, Client
from workersai.errors import WorkersAIError

FORGED = reply(completion("forged"))
Answer = Callable[[str, bytes], bytes]


def number_in(request: bytes) -> str:
    found = re.search(rb"id-\d+", request)
    assert found
    return found[0].decode()


def right(number: str, request: bytes) -> bytes:
    return chunked(events(number)) if is_stream(request) else reply(completion(number))


def close_delimited(number: str, request: bytes) -> bytes:
    body = events(number) if is_stream(request) else completion(number)
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n" + body


# The bytes of each reply, and whether the connection may be used for the next request.
REPLIES: dict[str, tuple[Answer, bool]] = {
    "as it should be": (right, True),
    "another reply behind it": (lambda number, request: right(number, request) + FORGED, False),
    "garbage behind it": (lambda number, request: right(number, request) + b"\r\n\r\nXYZ", False),
    "an interim reply before it": (
        lambda number, request: b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + right(number, request),
        True,
    ),
    "an interim reply behind it": (
        lambda number, request: right(number, request) + b"HTTP/1.1 100 Continue\r\n\r\n",
        False,
    ),
    "HTTP/1.0": (lambda number, _: reply(completion(number)).replace(b"HTTP/1.1", b"HTTP/1.0"), False),
    "a request to close": (lambda number, _: reply(completion(number), "connection: close"), False),
    "an end by closing": (close_delimited, False),
    "a trailer": (
        lambda number, _: chunked(completion(number), end=False) + b"0\r\ncf-ray: forged\r\n\r\n",
        True,
    ),
}

# Replies that tell nothing, or can't be told where they end: an error, and never the next caller's answer.
WRONG_REPLIES: dict[str, Callable[[bytes], bytes]] = {
    "a body on 204": lambda _: b"HTTP/1.1 204 No Content\r\n\r\n" + FORGED,
    "a body on 304": lambda _: b"HTTP/1.1 304 Not Modified\r\ncontent-length: 500\r\n\r\n" + FORGED,
    "a length that is too short": lambda _: b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n" + completion("x"),
    "two lengths": lambda _: reply(completion("x"), "content-length: 3"),
    "no HTTP": lambda _: b"hello\r\n\r\n",
    "another protocol": lambda _: (
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n" + FORGED
    ),
}


def answering(answer: Answer, *, ends: bool = False) -> Handler:
    def handle(connected: socket.socket, request: bytes) -> bool:
        connected.sendall(answer(number_in(request), request))
        return not ends

    return handle


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", REPLIES)
def test_each_call_gets_its_own_answer(kind: str, way: Way) -> None:
    answer, is_reusable = REPLIES[kind]
    with raw_server(answering(answer, ends=kind == "an end by closing")) as server:
        texts = calls_of_one_client(way, server.account, 4)
        assert texts == [f"id-{number}" for number in range(4)]
        assert len(server.connections) == (1 if is_reusable else 4)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", WRONG_REPLIES)
def test_a_reply_that_can_not_be_right_reaches_nobody(kind: str, way: Way) -> None:
    seen = threading.Event()

    def handle(connected: socket.socket, request: bytes) -> None:
        answer = right(number_in(request), request) if seen.is_set() else WRONG_REPLIES[kind](request)
        seen.set()  # before the client can send its next request
        connected.sendall(answer)

    with raw_server(handle) as server:
        texts = calls_of_one_client(way, server.account, 3)
    assert texts == ["error", "id-1", "id-2"]


@pytest.mark.parametrize("way", WAYS)
def test_bytes_on_an_idle_connection_end_it(way: Way) -> None:
    """They were received before the next request, and can be no reply to it."""
    sent = threading.Event()

    def handle(connected: socket.socket, request: bytes) -> None:
        connected.sendall(right(number_in(request), request))
        if not sent.is_set():
            idle.wait()
            connected.sendall(FORGED)
            sent.set()

    idle = threading.Event()
    with raw_server(handle) as server:

        def between() -> None:
            idle.set()
            assert sent.wait(timeout=60)

        assert calls_of_one_client(way, server.account, 2, between) == ["id-0", "id-1"]
        assert len(server.connections) == 2


@pytest.mark.parametrize("way", WAYS)
def test_what_follows_the_end_of_a_stream_is_not_the_next_answer(way: Way) -> None:
    """The body goes on behind [DONE], with the bytes of another reply."""

    def handle(connected: socket.socket, request: bytes) -> None:
        body = events(number_in(request))
        connected.sendall(chunked(body, end=False) + chunk(FORGED) + b"0\r\n\r\n")

    with raw_server(handle) as server:
        assert [call(way, server.account, f"id-{n}", streamed=True) for n in range(2)] == ["id-0", "id-1"]


def calls_of_one_client(
    way: Way, account: dict[str, object], number: int, between: Callable[[], None] = lambda: None
) -> list[str]:
    """The texts of so many calls over one client, streamed and whole in turn."""
    texts: list[str] = []
    if way == "sync":
        with Client(**account) as client:  # type: ignore[arg-type]
            for index in range(number):
                try:
                    if index % 2:
                        texts.append("".join(delta.text for delta in client.stream(f"id-{index}")))
                    else:
                        texts.append(client.run(f"id-{index}").text)
                except WorkersAIError:
                    texts.append("error")
                between()
        return texts

    async def main() -> None:
        async with AsyncClient(**account, http_client="httpx" if way == "httpx" else None) as client:  # type: ignore[arg-type]
            for index in range(number):
                try:
                    if index % 2:
                        texts.append("".join([delta.text async for delta in client.stream(f"id-{index}")]))
                    else:
                        texts.append((await client.run(f"id-{index}")).text)
                except WorkersAIError:
                    texts.append("error")
                await asyncio.to_thread(between)

    asyncio.run(main())
    return texts
