"""The token is in no local variable of a traceback, and in no attribute of an error, whatever ends the call."""

import asyncio
import gc
import pickle
import signal
import socket
import threading
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from langchain_workersai import ChatWorkersAI
from tests.raw_server import LONG, WAYS, Handler, Way, call, chunked, events, raw_server, reply
from workersai import AsyncClient, Client
from workersai.errors import WorkersAIError

TOKEN = "s3cr3t-token-value-0123456789"


def chain(error: BaseException) -> list[BaseException]:
    found: list[BaseException] = []
    waiting: list[BaseException | None] = [error]
    while waiting:
        each = waiting.pop()
        if each is not None and each not in found:
            found.append(each)
            waiting += [each.__cause__, each.__context__, *getattr(each, "exceptions", ())]
    return found


def places_of_token(error: BaseException, *, in_frames: bool = True) -> list[str]:
    """Where a program that prints all it can of an error would print the token."""
    found = []
    for each in chain(error):
        shown = {
            "str": str(each),
            "repr": repr(each),
            "args": repr(each.args),
            "vars": repr(vars(each)),
            "request": repr(getattr(getattr(each, "request_info", None), "headers", "")),
        }
        found += [f"{type(each).__name__}.{name}" for name, text in shown.items() if TOKEN in text]
        for frame in traceback.TracebackException.from_exception(each, capture_locals=True).stack:
            if in_frames and "/tests/" not in frame.filename:  # whose own variables hold it
                found += [f"{frame.name}: {name}" for name, text in (frame.locals or {}).items() if TOKEN in text]
    return found


def wait(connected: socket.socket, request: bytes) -> None:
    connected.recv(1)  # until the client leaves


def half(connected: socket.socket, request: bytes) -> None:
    connected.sendall(chunked(events("a ", done=False), end=False))
    connected.recv(1)


def quoting(template: bytes, status: str) -> Handler:
    """Quotes the request's header, as a gateway does that is being debugged."""

    def handle(connected: socket.socket, request: bytes) -> None:
        (line,) = [line for line in request.split(b"\r\n") if line.lower().startswith(b"authorization")]
        connected.sendall(reply(template % line, status=status))

    return handle


def quoting_in_a_header(connected: socket.socket, request: bytes) -> None:
    (line,) = [line for line in request.split(b"\r\n") if line.lower().startswith(b"authorization")]
    connected.sendall(reply(b'{"errors":[{"code":5006,"message":"x"}]}', f"cf-ray: {line.decode()}", status="400 Bad"))


def sending(data: bytes) -> Handler:
    def handle(connected: socket.socket, request: bytes) -> bool:
        connected.sendall(data)
        return False

    return handle


FAILURES: dict[str, Handler] = {
    "no reply": wait,
    "half a stream": half,
    "no HTTP": sending(b"HTTP/9.9 abc \x00\r\n\r\n"),
    "a broken chunk": sending(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nZZ\r\nxx"),
    "a cut head": sending(b"HTTP/1.1 200"),
    "a cut body": sending(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{"),
    "a head that is too long": sending(b"HTTP/1.1 200 OK\r\nx: " + b"a" * 200_000 + b"\r\n\r\n"),
    "broken gzip": sending(reply(b"x" * 20, "content-encoding: gzip")),
    "a page that quotes it": quoting(b"<html><head><title>%s</title>", "502 Bad"),
    "a text that quotes it": quoting(b"debug %s", "502 Bad"),
    "an error that quotes it": quoting(b'{"errors":[{"code":5006,"message":"%s"}]}', "400 Bad"),
    "a header that quotes it": quoting_in_a_header,
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("failure", FAILURES)
def test_no_failure_shows_it(failure: str, streamed: bool, way: Way) -> None:
    stalls = failure in ("no reply", "half a stream")
    with raw_server(FAILURES[failure]) as server, pytest.raises(WorkersAIError) as caught:
        call(way, {**server.account, "api_token": TOKEN}, "hi", streamed=streamed, timeout=0.3 if stalls else LONG)
    # The body of a reply that quotes it is a variable, like any body.
    assert places_of_token(caught.value, in_frames="quotes" not in failure) == []
    assert TOKEN.encode() not in pickle.dumps(caught.value)


@pytest.mark.parametrize("way", ["async", "httpx"])
@pytest.mark.parametrize("handler", [wait, half])
def test_a_cancelled_call_does_not_show_it(handler: Handler, way: Way) -> None:
    received = threading.Event()

    def handle(connected: socket.socket, request: bytes) -> None:
        received.set()
        handler(connected, request)

    async def main(account: dict[str, Any]) -> BaseException:
        async with AsyncClient(**account, http_client="httpx" if way == "httpx" else None) as client:

            async def read() -> None:
                async for _ in client.stream("hi"):
                    pass

            task = asyncio.ensure_future(read())
            assert await asyncio.to_thread(received.wait, LONG)
            task.cancel()
            (ended,) = await asyncio.gather(task, return_exceptions=True)
            assert isinstance(ended, asyncio.CancelledError)
            return ended

    with raw_server(handle) as server:
        error = asyncio.run(main({**server.account, "api_token": TOKEN}))
        assert places_of_token(error) == []


def test_nor_does_one_that_a_model_makes_within_a_time_limit() -> None:
    async def main(account: dict[str, Any]) -> None:
        await asyncio.wait_for(ChatWorkersAI(**account).ainvoke("hi"), 0.3)

    with raw_server(wait) as server, pytest.raises(asyncio.TimeoutError) as caught:
        asyncio.run(main({**server.account, "api_token": TOKEN}))
    assert places_of_token(caught.value) == []


class Interruption(BaseException):
    """As Ctrl-C raises."""


@pytest.fixture
def alarm() -> Iterator[Callable[[float], None]]:
    """Sets an alarm whose handler raises, as that of Ctrl-C does."""

    def interrupt(*_: object) -> None:
        raise Interruption

    previous = signal.signal(signal.SIGALRM, interrupt)
    yield lambda seconds: signal.setitimer(signal.ITIMER_REAL, seconds) and None
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, previous)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="Windows has no interval timers")
@pytest.mark.parametrize("handler", [wait, half])
def test_nor_does_an_interrupted_one(handler: Handler, alarm: Callable[[float], None]) -> None:
    with raw_server(handler) as server, Client(**{**server.account, "api_token": TOKEN}) as client:
        alarm(0.3)
        with pytest.raises(Interruption) as caught:
            list(client.stream("hi"))
        assert places_of_token(caught.value) == []


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="Windows has no interval timers")
def test_nor_does_one_that_is_interrupted_while_it_sends(alarm: Callable[[float], None]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:  # which reads nothing
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        with Client(base_url=address, account_id="a", api_token=TOKEN) as client:
            alarm(0.3)
            with pytest.raises(Interruption) as caught:
                client.run("x" * 9_000_000, model="@cf/a/long")
    assert places_of_token(caught.value) == []


def test_the_objects_of_a_call_in_progress_do_not_show_it() -> None:
    others = {id(thing) for thing in gc.get_objects()}
    with raw_server(half) as server, Client(**{**server.account, "api_token": TOKEN}) as client:
        stream = client.stream("hi")
        next(stream)
        created = [thing for thing in gc.get_objects() if id(thing) not in others]
        ours = [thing for thing in created if str(type(thing).__module__).startswith("workersai")]
        assert ours
        assert [(type(thing).__name__, repr(thing)[:80]) for thing in ours if TOKEN in repr(thing)] == []
        stream.close()
