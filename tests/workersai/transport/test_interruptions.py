"""Calls that meet an exception being handled, a fork, a close, a late timer, or a reply before its time."""

import asyncio
import gc
import gzip
import os
import queue
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import httpx
import pytest

from tests.raw_server import LONG, WAYS, RawServer, Way, call, chunk, chunked, completion, events, raw_server, reply
from workersai import AsyncClient, Client, pools
from workersai._transport.http1 import ReplyParser
from workersai._transport.sync_pool import SyncPool
from workersai.errors import APIConnectionError, RequestTooLargeError, ServerError
from workersai.protocol.request import Request
from workersai.transport import error_from_httpx

POSIX = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")


def answer(connected: socket.socket, request: bytes) -> None:
    streamed = b'"stream"' in request
    connected.sendall(chunked(events("one ", "two")) if streamed else reply(completion("ok")))


def pool_of(client: Client) -> SyncPool:
    pool = client._pool().transport
    assert isinstance(pool, SyncPool)
    return pool


# Exceptions


def in_an_except_block(work: Callable[[], object]) -> None:
    """Does something while another exception is being handled, as a fallback does."""
    try:
        int("the caller's own error")
    except ValueError:
        work()


@pytest.mark.parametrize("way", WAYS)
def test_a_call_in_an_except_block_raises_its_own_error(way: Way) -> None:
    """The parser's checks raise in callbacks of httptools, which takes the caller's exception for the cause."""

    def refuse(connected: socket.socket, request: bytes) -> None:
        connected.sendall(b"HTTP/1.1 101 Other\r\n\r\n")

    with raw_server(refuse) as server, pytest.raises(APIConnectionError):
        in_an_except_block(lambda: call(way, server.account, "hi", deadline=LONG))


@POSIX
@pytest.mark.parametrize("handling", [False, True])
def test_ctrl_c_in_the_midst_of_a_reply_is_ctrl_c(handling: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(self: ReplyParser, name: bytes, value: bytes) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(1_000):  # until the interpreter runs the handler
            pass

    monkeypatch.setattr(ReplyParser, "on_header", interrupted)
    with raw_server(answer) as server, Client(**server.account) as client:
        run = partial(client.run, "hi")
        with pytest.raises(KeyboardInterrupt):
            in_an_except_block(run) if handling else run()


def test_an_exception_that_is_its_own_cause_is_reported() -> None:
    error = httpx.ReadError("broken")
    error.__cause__ = error
    request = Request("http://localhost/", {}, b"", None)
    assert "broken" in str(error_from_httpx(error, request))


# Permits and idle connections


def test_collected_streams_return_just_their_permits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The collector finalizes a permit and the stream that gives it back, in any order."""
    monkeypatch.setattr(pools, "LIMITS", httpx.Limits(max_connections=2))

    class Cycle:
        def __init__(self, held: Any) -> None:
            self.held, self.itself = held, self

    with raw_server(answer) as server, Client(**server.account) as client:
        pool = pool_of(client)
        for _ in range(6):  # three times as many as there are permits
            stream = client.stream("hi")
            next(stream)
            Cycle(stream)
            del stream
            gc.collect()
        assert client.run("still there?", deadline=LONG).text == "ok"
        permits = []  # held, since one that goes away is replaced
        with suppress(queue.Empty):
            while True:
                permits.append(pool._permits.get(timeout=0))
        assert sum(permit is not None and not permit.is_replaced for permit in permits) == 2


def test_idle_connections_expire_while_others_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "LIMITS", httpx.Limits(max_connections=100, keepalive_expiry=0.2))
    together = threading.Barrier(10)

    def handle(connected: socket.socket, request: bytes) -> None:
        if b"together" in request:
            together.wait(LONG)
        answer(connected, request)

    with raw_server(handle) as server, Client(**server.account) as client:
        threads = [threading.Thread(target=client.run, args=("together",)) for _ in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        time.sleep(0.3)  # what is idle expires
        for _ in range(3):
            client.run("alone")
        for _ in range(10):
            assert server.ended.acquire(timeout=LONG)
        assert len(pool_of(client)._open) <= 2


# Forks


@POSIX
def test_a_forked_child_leaves_the_streams_of_its_parent_alone() -> None:
    program = """
        import gc, os, sys
        from workersai import Client
        from workersai.errors import WorkersAIError

        client = Client(account_id="a", api_token="t", base_url=sys.argv[1], max_retries=0)
        stream = client.stream("hi")
        text = next(stream).text
        child = os.fork()
        if child == 0:
            try:
                next(stream)
            except WorkersAIError:
                del stream
                gc.collect()
                os._exit(0)
            os._exit(1)
        assert os.waitpid(child, 0)[1] == 0, "a child can't read its parent's stream"
        print("the child is done", flush=True)
        print(text + "".join(delta.text for delta in stream))
    """
    go_on = threading.Event()

    def handle(connected: socket.socket, request: bytes) -> None:
        connected.sendall(chunked(events("one ", done=False), end=False))
        assert go_on.wait(LONG)
        connected.sendall(chunk(events("two")) + b"0\r\n\r\n")

    with raw_server(handle) as server:
        command = [sys.executable, "-c", textwrap.dedent(program), server.account["base_url"]]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
            assert process.stdout is not None
            assert process.stdout.readline() == "the child is done\n"
            go_on.set()
            printed, _ = process.communicate(timeout=LONG)
    assert printed == "one two\n"


@POSIX
def test_a_forked_child_finds_no_tracker_locked() -> None:
    program = """
        import os, threading
        from workersai import CostTracker

        tracker = CostTracker()
        inside, leave = threading.Event(), threading.Event()

        def hold():
            with tracker._lock:
                inside.set()
                leave.wait()

        threading.Thread(target=hold, daemon=True).start()
        inside.wait()
        child = os.fork()
        if child == 0:
            tracker.keep(1.0)
            with CostTracker():
                os._exit(7)
        leave.set()
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=LONG,
        check=True,
    )
    assert done.stdout == "7\n"


# Closing


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="Windows has no interval timers")
def test_a_signal_handler_may_close_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """While its pool is being made, with the lock of the pools held."""
    client = Client(account_id="a", api_token="t", base_url="http://127.0.0.1:9", max_retries=0)
    closed = False

    def close(*_: object) -> None:
        nonlocal closed
        client.close()
        closed = True

    make = client._new_pool

    def make_slowly() -> Any:
        os.kill(os.getpid(), signal.SIGALRM)
        while not closed:
            time.sleep(0.001)
        return make()

    previous = signal.signal(signal.SIGALRM, close)
    try:
        monkeypatch.setattr(client, "_new_pool", make_slowly)
        with pytest.raises(RuntimeError, match="was closed"):
            client.run("hi")
    finally:
        signal.signal(signal.SIGALRM, previous)


# Bodies and timers


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("endless", [gzip.compress(b"") * 1_000, b"a" * 50_000], ids=["empty members", "a long name"])
def test_a_body_that_decodes_to_nothing_is_bounded(endless: bytes, way: Way) -> None:
    """Its bytes count as received, though none are decoded."""
    beginning = b"" if endless.startswith(b"\x1f") else b"\x1f\x8b\x08\x08" + bytes(6)  # a header with a name

    def handle(connected: socket.socket, request: bytes) -> bool:
        head = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n"
        connected.sendall(head + (chunk(beginning) if beginning else b""))
        for _ in range(10_000):
            connected.sendall(chunk(endless))
        return False

    with raw_server(handle) as server, pytest.raises(ServerError, match="max_reply_bytes"):
        call(way, server.account, "hi", max_reply_bytes=500_000)


def test_a_timer_of_a_loop_that_stood_still_does_not_end_a_stream() -> None:
    """What was received while the loop stood still counts, though the timeout is over by then."""
    received, go_on = threading.Event(), threading.Event()

    def handle(connected: socket.socket, request: bytes) -> None:
        connected.sendall(chunked(events("one ", done=False), end=False))
        assert received.wait(LONG)
        connected.sendall(chunk(events("two ", done=False)))
        go_on.set()
        time.sleep(0.1)
        connected.sendall(chunk(events("three")) + b"0\r\n\r\n")

    async def main(server: RawServer) -> str:
        async with AsyncClient(**server.account, timeout=3.0) as client:
            text = ""
            async for delta in client.stream("hi"):
                text += delta.text
                if not received.is_set():

                    def stand_still() -> None:
                        received.set()
                        assert go_on.wait(LONG)
                        time.sleep(3.2)  # longer than the timeout of the wait that has begun

                    asyncio.get_running_loop().call_later(0.05, stand_still)
            return text

    with raw_server(handle) as server:
        assert asyncio.run(main(server)) == "one two three"


@pytest.mark.parametrize("way", ["sync", "async"])
def test_a_reply_that_comes_before_the_end_of_the_upload_is_read(way: Way) -> None:
    """As servers answer a request that is too large: the reply, the end of their side, and reading for a while."""
    refused = b'{"success":false,"errors":[{"code":3006,"message":"too large"}]}'

    def serve() -> None:
        with listening.accept()[0] as connected:
            connected.recv(1_000)
            connected.sendall(reply(refused, "connection: close", status="413 Too Large"))
            connected.shutdown(socket.SHUT_WR)
            while connected.recv(65_536):
                pass

    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = threading.Thread(target=serve)
        server.start()
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        account: dict[str, Any] = {"base_url": address, "account_id": "a", "api_token": "t", "max_retries": 0}
        with pytest.raises(RequestTooLargeError):
            call(way, account, "x" * 9_000_000, model="@cf/a/long", deadline=LONG)
        server.join(LONG)
