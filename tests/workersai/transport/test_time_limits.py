"""The deadline holds in each phase of a call, for each way of making it: this table is that of docs/reliability.md."""

import itertools
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from tests.raw_server import LONG, WAYS, RawServer, Way, call, chunk, chunked, events, raw_server
from workersai.errors import APITimeoutError, ServerError, WorkersAIError

DEADLINE = 0.3
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
Stall = Callable[[socket.socket, threading.Event], object]


def dribble(connected: socket.socket, over: threading.Event, data: bytes) -> None:
    for byte in itertools.cycle(data):
        if over.wait(0.02):
            return
        connected.sendall(bytes((byte,)))


def flood(connected: socket.socket, over: threading.Event, data: bytes) -> None:
    while not over.is_set():
        connected.sendall(data)


def compressed_flood(connected: socket.socket, over: threading.Event) -> None:
    connected.sendall(HEAD + b"content-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n")
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    while not over.is_set():
        connected.sendall(chunk(packer.compress(bytes(1_048_576)) + packer.flush(zlib.Z_SYNC_FLUSH)))


def after(beginning: bytes, then: Callable[[socket.socket, threading.Event, bytes], None], data: bytes = b"") -> Stall:
    def stall(connected: socket.socket, over: threading.Event) -> None:
        connected.sendall(beginning)
        then(connected, over, data)

    return stall


def nothing(connected: socket.socket, over: threading.Event, data: bytes) -> None:
    over.wait(LONG)


LENGTH = b"content-length: 100000000000\r\n\r\n"
CHUNKS = b"transfer-encoding: chunked\r\n\r\n"

# What the server does once it has read the request, by the phase that it stalls in.
PHASES: dict[str, Stall] = {
    "no reply": after(b"", nothing),
    "half a head": after(HEAD, nothing),
    "a head byte by byte": after(HEAD + b"x: ", dribble, b"a"),
    "interim replies byte by byte": after(b"", dribble, b"HTTP/1.1 103 Early Hints\r\n\r\n"),
    "no body": after(HEAD + LENGTH, nothing),
    "a body byte by byte": after(HEAD + LENGTH, dribble, b" "),
    "the length of a chunk byte by byte": after(HEAD + CHUNKS, dribble, b"0"),
    "tiny chunks without end": after(HEAD + CHUNKS, flood, b"1\r\n \r\n" * 100),
    "half a stream": after(chunked(events("a ", done=False), end=False), nothing),
    "events byte by byte": after(HEAD + CHUNKS, dribble, b"".join(chunk(bytes((b,))) for b in b": wait\n\n")),
}

# What ends without the deadline, by a bound, long before it in bytes if not in time.
FLOODS: dict[str, Stall] = {
    "interim replies without end": after(b"", flood, b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" * 100),
    "a head without end": after(HEAD + b"x: ", flood, b"a" * 10_000),
    "a body without end": after(HEAD + LENGTH, flood, b" " * 100_000),
    "a compressed body without end": compressed_flood,
    "chunk extensions without end": after(HEAD + CHUNKS + b"1;", flood, b"a" * 10_000),
    "trailers without end": after(HEAD + CHUNKS + b"1\r\n \r\n0\r\n", flood, b"x: a\r\n" * 1_000),
}


@contextmanager
def stalling(stall: Stall) -> Iterator[RawServer]:
    over = threading.Event()

    def handle(connected: socket.socket, request: bytes) -> bool:
        with suppress(OSError):  # the client leaves
            stall(connected, over)
        return False

    with raw_server(handle) as server:
        try:
            yield server
        finally:
            over.set()


def ends_by_deadline(way: Way, account: dict[str, Any], prompt: str = "hi", **options: Any) -> APITimeoutError:
    """The error of a call that ends at its deadline: its timeout is a hundred times longer."""
    began = time.monotonic()
    with pytest.raises(APITimeoutError, match=r"longer than its deadline of 0\.3 s") as caught:
        call(way, account, prompt, deadline=DEADLINE, timeout=LONG, **options)
    assert time.monotonic() - began < LONG / 2
    assert not caught.value.retryable
    return caught.value


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("phase", PHASES)
def test_the_deadline_ends_each_phase(phase: str, streamed: bool, way: Way) -> None:
    with stalling(PHASES[phase]) as server:
        error = ends_by_deadline(way, server.account, streamed=streamed)
    if phase == "half a stream" and streamed:
        assert error.partial is not None
        assert error.partial.text == "a "


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("kind", FLOODS)
def test_a_flood_is_ended_by_a_bound_or_by_the_deadline(kind: str, streamed: bool, way: Way) -> None:
    endless = way == "httpx" and kind == "interim replies without end"  # which httpx's own parser reads for ever
    options: dict[str, Any] = {"timeout": LONG, "max_reply_bytes": 5_000_000, "deadline": 1 if endless else LONG}
    with stalling(FLOODS[kind]) as server, pytest.raises(WorkersAIError) as caught:
        call(way, server.account, "hi", streamed=streamed, **options)
    assert isinstance(caught.value, APITimeoutError) == endless, caught.value


@pytest.mark.parametrize("way", WAYS)
def test_the_deadline_ends_the_sending_of_a_long_body(way: Way) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:  # accepts connections, and reads nothing
        account = {
            "base_url": f"http://127.0.0.1:{listening.getsockname()[1]}",
            "account_id": "a",
            "api_token": "t",
            "max_retries": 0,
        }
        ends_by_deadline(way, account, "x" * 9_000_000, model="@cf/a/long")


@pytest.mark.parametrize("way", WAYS)
def test_the_deadline_ends_a_tls_handshake_and_a_connection_that_is_not_accepted(way: Way) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=1) as listening:
        port = listening.getsockname()[1]
        account: dict[str, Any] = {"account_id": "a", "api_token": "t", "max_retries": 0}
        ends_by_deadline(way, {**account, "base_url": f"https://127.0.0.1:{port}"})
        waiting = []
        for _ in range(4):  # until the backlog is full: from then on, nobody answers
            waiting.append(socket.socket())
            waiting[-1].settimeout(0)
            waiting[-1].connect_ex(("127.0.0.1", port))
        error = ends_by_deadline(way, {**account, "base_url": f"http://127.0.0.1:{port}"})
        for each in waiting:
            each.close()
    assert isinstance(error, APITimeoutError)


@pytest.mark.parametrize("way", WAYS)
def test_without_a_deadline_the_timeout_ends_a_stall(way: Way) -> None:
    with stalling(PHASES["no reply"]) as server, pytest.raises(APITimeoutError, match=r"timeout 0\.2 s"):
        call(way, server.account, "hi", timeout=0.2)


def test_a_reply_over_the_bound_is_a_server_error() -> None:
    with stalling(FLOODS["a body without end"]) as server, pytest.raises(ServerError, match="max_reply_bytes"):
        call("sync", server.account, "hi", max_reply_bytes=1_000_000)
