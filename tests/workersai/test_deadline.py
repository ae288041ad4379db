"""The deadline of a call, over all its attempts, and what is told of a retry."""

import asyncio
import contextlib
import itertools
import logging
import socket
import threading
import time
from collections.abc import Callable
from email.utils import formatdate
from typing import Any

import httpx
import pytest
from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler
from langchain_core.tracers.run_collector import RunCollectorCallbackHandler
from tenacity import RetryCallState

from langchain_workersai import ChatWorkersAI
from langchain_workersai.errors import RateLimitError as InLangChain
from tests.support import Driver, Serve, connection
from workersai import AsyncClient, Client, Retry
from workersai.errors import APITimeoutError, BadRequestError, RateLimitError
from workersai.local import Answer, Gate, LocalServer, RawReply

BUSY = RawReply(b'{"success":false,"errors":[{"code":3040,"message":"busy"}]}', 429, headers={"Retry-After": "0"})
LATER = RawReply(b'{"success":false,"errors":[{"code":3040,"message":"busy"}]}', 429, headers={"Retry-After": "30"})
SECONDS = 0.3


def too_late(call: Callable[[], object]) -> APITimeoutError:
    """The error of a call that is to end at its deadline, long before any other timeout."""
    began = time.monotonic()
    with pytest.raises(APITimeoutError, match=r"longer than its deadline of 0\.3 s") as caught:
        call()
    assert SECONDS <= time.monotonic() - began < 30, "the timeout of an attempt is 120 seconds"
    assert not caught.value.retryable
    return caught.value


def test_a_server_that_says_nothing(driver: Driver, serve: Serve) -> None:
    gate = Gate()
    server = serve(lambda _: Answer("late", hold={0: gate}))
    too_late(lambda: driver.run(connection(server), "hi", deadline=SECONDS))
    too_late(lambda: driver.stream(connection(server), "hi", deadline=SECONDS))
    gate.open()
    assert len(server.requests) == 2, "nothing is tried again after it"


def test_a_body_that_stalls(driver: Driver, serve: Serve) -> None:
    gate = Gate()
    server = serve(lambda _: Answer(pieces=["a ", "b"], hold={1: gate}))
    partial = too_late(lambda: driver.stream(connection(server), "hi", deadline=SECONDS)).partial
    gate.open()
    assert partial is not None
    assert partial.text == "a "


def test_a_retry_that_the_deadline_leaves_no_time_for_is_not_waited_for(
    driver: Driver, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    server = serve(lambda _: LATER)
    told: list[Retry] = []
    with caplog.at_level(logging.INFO, logger="workersai"), pytest.raises(RateLimitError):
        driver.run(connection(server), "hi", deadline=5, on_retry=told.append)
    assert len(server.requests) == 1
    assert not told
    assert "the deadline leaves no time for it" in caplog.text
    assert "Trying again" not in caplog.text


def test_within_its_deadline_a_call_is_tried_again_and_each_retry_is_told(
    driver: Driver, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    server = serve([BUSY, BUSY, "at last", BUSY, "again"])
    told: list[Retry] = []
    with caplog.at_level(logging.INFO, logger="workersai"):
        assert driver.run(connection(server), "hi", deadline=60, on_retry=told.append).text == "at last"
        driver.stream(connection(server), "hi", on_retry=told.append)
    assert [(retry.attempt, retry.wait, type(retry.error)) for retry in told] == [
        (1, 0.0, RateLimitError),
        (2, 0.0, RateLimitError),
        (1, 0.0, RateLimitError),
    ]
    assert caplog.text.count("Trying again in 0.00 s") == 3


def test_a_date_to_wait_for_is_obeyed_without_the_replys_own(driver: Driver, serve: Serve) -> None:
    past = formatdate(time.time() - 100, usegmt=True)
    busy = RawReply(BUSY.body, 429, headers={"Retry-After": past})
    told: list[Retry] = []
    driver.run(connection(serve([busy, "at last"])), "hi", on_retry=told.append)
    assert [retry.wait for retry in told] == [0.0]


def test_what_on_retry_returns_is_awaited(serve: Serve) -> None:
    server, told = serve([BUSY, "at last"]), []

    async def tell(retry: Retry) -> None:
        await asyncio.sleep(0)
        told.append(retry)

    async def main() -> str:
        async with AsyncClient(**connection(server)) as client:
            return (await client.run("hi", on_retry=tell)).text

    assert asyncio.run(main()) == "at last"
    assert len(told) == 1


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
