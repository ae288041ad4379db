"""The deadline of a call, over all its attempts, and what is told of a retry."""

import asyncio
import contextlib
import itertools
import logging
import random
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler
from langchain_core.tracers.run_collector import RunCollectorCallbackHandler
from tenacity import RetryCallState

from langchain_workersai import ChatWorkersAI
from langchain_workersai.errors import RateLimitError as InLangChain
from tests.support import PATIENCE, Driver, Serve, connection, outcome_in_time
from workersai import AsyncClient, Client, CostTracker, Retry
from workersai.errors import APIConnectionError, APITimeoutError, BadRequestError, RateLimitError, ServerError
from workersai.local import Answer, Gate, LocalServer, RawReply
from workersai.retries import backoff
from workersai.transport import read_head

BUSY = RawReply(b'{"success":false,"errors":[{"code":3040,"message":"busy"}]}', 429, headers={"Retry-After": "0"})
LATER = RawReply(b'{"success":false,"errors":[{"code":3040,"message":"busy"}]}', 429, headers={"Retry-After": "30"})
SECONDS = 0.3


def too_late(call: Callable[[], object], seconds: float = SECONDS) -> APITimeoutError:
    """The error of a call that is to end at its deadline, as its words say: no other timeout is so short."""
    began = time.monotonic()
    with pytest.raises(APITimeoutError, match=re.escape(f"longer than its deadline of {seconds:g} s")) as caught:
        call()
    assert time.monotonic() - began >= seconds
    assert not caught.value.retryable
    return caught.value


def test_a_server_that_says_nothing(driver: Driver, serve: Serve) -> None:
    gate = Gate()
    server = serve(lambda _: Answer("late", hold={0: gate}))
    too_late(lambda: driver.run(connection(server), "hi", deadline=SECONDS))
    too_late(lambda: driver.stream(connection(server), "hi", deadline=SECONDS))
    gate.open()
    assert len(server.requests) <= 2, "nothing is tried again after it"


def test_a_body_that_stalls(driver: Driver, serve: Serve) -> None:
    gate = Gate()
    server = serve(lambda _: Answer(pieces=["a ", "b"], hold={1: gate}))

    def attempt(seconds: float) -> str | None:
        partial = too_late(lambda: driver.stream(connection(server), "hi", deadline=seconds), seconds).partial
        return partial.text if partial else None

    assert outcome_in_time(attempt, bool) == "a "
    gate.open()


def test_a_retry_that_the_deadline_leaves_no_time_for_is_not_waited_for(
    driver: Driver, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    server = serve(lambda _: LATER)
    told: list[Retry] = []
    with caplog.at_level(logging.INFO, logger="workersai"), pytest.raises(RateLimitError) as caught:
        driver.run(connection(server), "hi", deadline=20, on_retry=told.append)
    assert len(server.requests) == 1
    assert not told
    given_up = "Not tried again: the deadline of 20 s leaves no time for it."
    assert given_up in caplog.text
    assert given_up in str(caught.value)
    assert "Trying again" not in caplog.text


def test_within_its_deadline_a_call_is_tried_again_and_each_retry_is_told(
    driver: Driver, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    server = serve([BUSY, BUSY, "at last", BUSY, "again"])
    told: list[Retry] = []
    with caplog.at_level(logging.INFO, logger="workersai"):
        assert driver.run(connection(server), "hi", deadline=PATIENCE, on_retry=told.append).text == "at last"
        driver.stream(connection(server), "hi", on_retry=told.append)
    assert [(retry.attempt, retry.wait, type(retry.error)) for retry in told] == [
        (1, 0.0, RateLimitError),
        (2, 0.0, RateLimitError),
        (1, 0.0, RateLimitError),
    ]
    assert caplog.text.count("Trying again in 0.00 s") == 3


def test_a_date_to_wait_for_is_obeyed(driver: Driver, serve: Serve) -> None:
    past = formatdate(time.time() - 100, usegmt=True)
    busy = RawReply(BUSY.body, 429, headers={"Retry-After": past})
    told: list[Retry] = []
    driver.run(connection(serve([busy, "at last"])), "hi", on_retry=told.append)
    assert [retry.wait for retry in told] == [0.0]


def test_a_date_is_measured_from_now_where_the_reply_has_none_of_its_own() -> None:
    later = formatdate(time.time() + 3_600, usegmt=True)
    head = read_head(SimpleNamespace(status=429, headers=httpx.Headers({"Retry-After": later})))
    assert head.retry_after is not None
    assert 3_500 < head.retry_after <= 3_600


def test_the_time_that_the_service_asks_for_is_waited(driver: Driver, serve: Serve) -> None:
    busy = RawReply(BUSY.body, 429, headers={"Retry-After": "1"})
    told: list[Retry] = []
    began = time.monotonic()
    driver.run(connection(serve([busy, "at last"])), "hi", on_retry=told.append)
    assert time.monotonic() - began >= 1
    assert [retry.wait for retry in told] == [1.0]


def test_a_wait_that_is_too_long_is_told(driver: Driver, serve: Serve) -> None:
    busy = RawReply(BUSY.body, 429, headers={"Retry-After": "86400"})
    with pytest.raises(RateLimitError, match=r"It asks to wait 86,400 s: too long to wait here\.") as caught:
        driver.run(connection(serve([busy, "never"])), "hi")
    assert caught.value.retry_after == 86_400


def test_the_waits_double_up_to_a_bound_with_full_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    spans: list[tuple[float, float]] = []

    def uniform(low: float, high: float) -> float:
        spans.append((low, high))
        return (low + high) / 2

    monkeypatch.setattr(random, "uniform", uniform)
    waits = [backoff(ServerError("It failed."), tries) for tries in range(7)]
    assert spans == [(0, ceiling) for ceiling in (0.5, 1, 2, 4, 8, 8, 8)]
    assert waits == [0.25, 0.5, 1, 2, 4, 4, 4]


def test_the_deadline_bounds_the_wait_for_a_connection_too(serve: Serve) -> None:
    server = serve(lambda request: Answer(pieces=iter(lambda: "word ", None)) if request.stream else "never")
    limits = httpx.Limits(max_connections=1)
    with httpx.Client(limits=limits, timeout=None) as http:  # noqa: S113 - that is the test
        client = Client(**connection(server), http_client=http)
        stream = client.stream("hi")
        next(stream)
        too_late(lambda: client.run("hi", deadline=SECONDS))
        stream.close()
        assert client.run("hi").text == "never"

    async def main() -> None:
        async with httpx.AsyncClient(limits=limits, timeout=None) as http:  # noqa: S113 - that is the test
            client = AsyncClient(**connection(server), http_client=http)
            async with contextlib.aclosing(client.stream("hi")) as stream:
                await anext(stream)
                await client.run("hi", deadline=SECONDS)

    too_late(lambda: asyncio.run(main()))
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [({"Retry-After": "1, 3"}, 3), ({"Retry-After": formatdate(usegmt=True), "Date": "soon"}, 0)],
)
def test_odd_forms_of_the_wait_are_read(headers: dict[str, str], seconds: float) -> None:
    assert read_head(SimpleNamespace(status=429, headers=httpx.Headers(headers))).retry_after == seconds


@pytest.mark.parametrize(("own", "holds"), [({}, 120), ({"timeout": 7}, 7), ({"timeout": httpx.Timeout(9)}, 9)])
def test_a_client_of_ones_own_brings_its_timeout_if_it_was_given_one(
    own: dict[str, Any], holds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        return httpx.Response(200, json={"result": {"response": "ok"}, "success": True})

    with httpx.Client(transport=httpx.MockTransport(answer), **own) as http:
        client = Client(account_id="a", api_token="t", http_client=http)
        client.run("hi")
        client.run("hi", timeout=3)
    assert [request.extensions["timeout"]["read"] for request in sent] == [holds, 3]


def test_what_on_retry_raises_ends_the_call_as_it_is(driver: Driver, serve: Serve) -> None:
    def fail(_: Retry) -> None:
        raise TimeoutError("mine")

    with pytest.raises(TimeoutError, match="mine"):
        driver.run(connection(serve([BUSY, "never"])), "hi", on_retry=fail, deadline=PATIENCE)


def test_on_retry_can_be_given_once_for_all_calls(driver: Driver, serve: Serve) -> None:
    told: list[Retry] = []
    for_all = {**connection(serve([BUSY, "one", BUSY, "two"])), "on_retry": told.append}
    driver.run(for_all, "hi")
    driver.run(for_all, "hi", on_retry=lambda _: None)
    assert len(told) == 1


def test_a_coroutine_function_is_for_the_async_client_alone() -> None:
    async def tell(_: Retry) -> None: ...

    with pytest.raises(BadRequestError, match="only an AsyncClient can await"):
        Client(account_id="a", api_token="t", on_retry=tell)
    client = Client(account_id="a", api_token="t")
    with pytest.raises(BadRequestError, match="only an AsyncClient can await"):
        client.run("hi", on_retry=tell)


@pytest.mark.parametrize(("option", "value"), [("deadline", 0), ("deadline", "x"), ("on_retry", 5)])
def test_bad_values_are_refused(option: str, value: Any) -> None:
    with Client(account_id="a", api_token="t") as client, pytest.raises(BadRequestError, match=option):
        client.run("hi", **{option: value})


class Told(BaseCallbackHandler):
    def __init__(self) -> None:
        self.states: list[RetryCallState] = []

    def on_retry(self, retry_state: RetryCallState, **kwargs: Any) -> None:
        self.states.append(retry_state)


class ToldAsync(AsyncCallbackHandler):
    def __init__(self) -> None:
        self.states: list[RetryCallState] = []

    async def on_retry(self, retry_state: RetryCallState, **kwargs: Any) -> None:
        self.states.append(retry_state)


def seen(states: list[RetryCallState]) -> list[tuple[int, Any]]:
    return [(state.attempt_number, state.outcome and type(state.outcome.exception())) for state in states]


def test_langchains_callbacks_are_told_of_retries(serve: Serve) -> None:
    def model(server: LocalServer) -> ChatWorkersAI:
        return ChatWorkersAI(**connection(server))

    told, also, runs = Told(), ToldAsync(), RunCollectorCallbackHandler()
    llm = model(serve([BUSY, BUSY, "one", BUSY, "two"]))
    llm.invoke("hi", {"callbacks": [told, runs]})
    assert asyncio.run(llm.ainvoke("hi", {"callbacks": [also]})).text == "two"
    assert seen(told.states) == [(1, InLangChain), (2, InLangChain)]
    assert seen(also.states) == [(1, InLangChain)]
    assert [event["name"] for event in runs.traced_runs[0].events] == ["start", "retry", "retry", "end"]


def test_after_the_whole_answer_nothing_is_waited_for(driver: Driver) -> None:
    told = HEAD.replace(b"application/json", b"text/event-stream") + b"\r\n"
    events = b'data: {"response":"Hi"}\n\ndata: [DONE]\n\n'

    def serve() -> None:
        with listening.accept()[0] as connected:
            connected.recv(65_536)
            connected.sendall(told + b"%x\r\n%s\r\n" % (len(events), events))
            while connected.recv(65_536):  # until the client leaves: the body's end never comes
                pass

    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = threading.Thread(target=serve)
        server.start()
        settings = {"base_url": f"http://127.0.0.1:{listening.getsockname()[1]}", "account_id": "a", "api_token": "t"}
        assert [delta.text for delta in driver.stream(settings, "hi", timeout=3_600)] == ["Hi", ""]
        server.join()


def test_the_readers_own_time_counts_and_what_was_received_is_in_the_error(serve: Serve) -> None:
    server = serve(lambda _: Answer(pieces=["one ", "two ", "three"]))

    def attempt(seconds: float) -> str:
        text = ""

        def read() -> None:
            nonlocal text
            for delta in client.stream("hi", deadline=seconds):
                text += delta.text
                server.requests[-1].wait()
                time.sleep(seconds)  # the reader's own time counts

        with pytest.raises(APITimeoutError, match="longer than its deadline") as caught:
            read()
        partial = caught.value.partial.text if caught.value.partial else ""
        assert partial.startswith(text), "nothing that was handed over is missing"
        return text

    with Client(**connection(server)) as client:
        assert outcome_in_time(attempt, bool).startswith("one ")


@pytest.mark.parametrize("word", ["sync", "async", "httpx"])
def test_a_burst_of_deltas_does_not_outlast_the_deadline(word: str) -> None:
    """All of it is received at once; its reader takes far longer than the deadline."""
    events = b'data: {"response":"word "}\n\n' * 500 + b"data: [DONE]\n\n"
    deltas: list[str] = []

    def read(settings: dict[str, Any], seconds: float) -> None:
        with Client(**settings) as client:
            for delta in client.stream("hi", deadline=seconds):
                deltas.append(delta.text)
                time.sleep(seconds / 4)

    async def read_async(settings: dict[str, Any], seconds: float) -> None:
        async with AsyncClient(**settings, http_client="httpx" if word == "httpx" else None) as client:
            async for delta in client.stream("hi", deadline=seconds):
                deltas.append(delta.text)
                await asyncio.sleep(seconds / 4)

    def attempt(seconds: float) -> int:
        deltas.clear()
        with answering_once(events) as settings, pytest.raises(APITimeoutError, match="its deadline") as caught:
            read(settings, seconds) if word == "sync" else asyncio.run(read_async(settings, seconds))
        assert len(deltas) <= 5
        partial = caught.value.partial.text if caught.value.partial else ""
        assert partial.startswith("".join(deltas)), "nothing that was handed over is missing"
        return len(deltas)

    assert outcome_in_time(attempt, bool)


@contextlib.contextmanager
def answering_once(body: bytes) -> Iterator[dict[str, Any]]:
    """A server that answers one call with these events; gives the arguments that point a client at it."""
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: %d\r\n\r\n" % len(body)

    def serve() -> None:
        with listening.accept()[0] as connected, contextlib.suppress(OSError):
            connected.recv(65_536)
            connected.sendall(head + body)
            while connected.recv(65_536):  # the rest of the request, until the client leaves
                pass

    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = threading.Thread(target=serve)
        server.start()
        yield {"base_url": f"http://127.0.0.1:{listening.getsockname()[1]}", "account_id": "a", "api_token": "t"}
        server.join()


def test_a_host_that_is_not_there_costs_nothing_under_a_deadline_either() -> None:
    with socket.socket() as taken, CostTracker() as cost:
        taken.bind(("127.0.0.1", 0))  # and listens to nobody
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises((APIConnectionError, APITimeoutError)) as caught:
            Client(account_id="a", api_token="t", base_url=address).run("hi", deadline=SECONDS, max_retries=0)
    assert caught.value.never_sent
    assert cost.calls == 0


HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n"


@pytest.mark.parametrize(
    ("at_once", "dribbled", "own_pool"),
    [
        (b"", HEAD + b"x: ", True),
        (HEAD + b"\r\n", b"0", True),
        (HEAD + b"\r\n", b"1\r\n \r\n", True),
        (HEAD + b"\r\n", b"1\r\n \r\n", False),  # a pool of the caller's, where only the pieces of a body are seen
    ],
    ids=["head", "length-of-a-chunk", "body", "body-in-a-pool-of-the-caller"],
)
def test_who_sends_a_byte_now_and_then_meets_the_deadline(at_once: bytes, dribbled: bytes, *, own_pool: bool) -> None:
    over = threading.Event()

    def dribble() -> None:
        with listening.accept()[0] as connected, contextlib.suppress(OSError):
            connected.recv(65_536)
            connected.sendall(at_once)
            for byte in itertools.cycle(dribbled):
                if over.wait(0.02):
                    break
                connected.sendall(bytes([byte]))

    with socket.create_server(("127.0.0.1", 0)) as listening, httpx.Client(timeout=100) as pool:
        server = threading.Thread(target=dribble)
        server.start()
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        http = None if own_pool else pool
        with Client(account_id="a", api_token="t", base_url=address, http_client=http) as client:
            too_late(lambda: client.run("hi", deadline=SECONDS))
        over.set()
        server.join()
