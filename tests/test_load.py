"""Load: many calls at once, of which one in ten fails. None is lost, and nothing is left behind."""

import asyncio
import gc
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support import connection
from workersai import AsyncClient, Client, _cleanup, retries
from workersai.errors import WorkersAIError
from workersai.local import LocalServer
from workersai.local.engine import GenerationRequest
from workersai.protocol.stream import StreamReader

pytestmark = pytest.mark.load

FAULTS = ["3040:0", "html:502", "cut", "stall", "cut:20", "event:3040"]
OPTIONS: dict[str, Any] = {"timeout": 1.0, "max_retries": 2}


@pytest.fixture(autouse=True)
def _without_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "_FIRST_BACKOFF", 0.01)


def faulty() -> LocalServer:
    """Echoes, and fails each tenth reply in one way after the other."""
    numbers = count(1)

    def fault(_: object) -> str | None:
        number = next(numbers)
        return FAULTS[number // 10 % len(FAULTS)] if number % 10 == 0 else None

    def echo(request: GenerationRequest) -> str:
        return f"answer to {request.prompt}"

    return LocalServer(echo, faults=fault)


def outcome(call: Callable[[], str]) -> str:
    try:
        return call()
    except WorkersAIError as error:
        return type(error).__name__


async def calls(server: LocalServer, number: int, at_once: int) -> list[str]:
    """The outcome of each call, half of them streamed."""
    seats = asyncio.Semaphore(at_once)

    async def one(client: AsyncClient, index: int) -> str:
        async with seats:
            try:
                if index % 2:
                    return (await client.run(str(index), **OPTIONS)).text
                return "".join([delta.text async for delta in client.stream(str(index), **OPTIONS)])
            except WorkersAIError as error:
                return type(error).__name__

    async with AsyncClient(**connection(server)) as client:
        outcomes = await asyncio.gather(*(one(client, index) for index in range(number)))
    assert asyncio.all_tasks() == {asyncio.current_task()}, "no task is left"
    return outcomes


def check(outcomes: list[str]) -> None:
    """Each call was answered with its own answer, or told of a failure; most that could be tried again were."""
    for index, told in enumerate(outcomes):
        assert told == f"answer to {index}" or told.endswith("Error"), told
    counted = Counter(told for told in outcomes if told.endswith("Error"))
    assert sum(counted.values()) < len(outcomes) / 20, counted


def open_files() -> int:
    return len(list(Path("/dev/fd").iterdir()))


@pytest.fixture
def _nothing_left() -> Iterator[None]:
    """Sockets, threads, and what calls are made of, are as many after a test as before."""

    def left() -> tuple[int, int, int]:
        gc.collect()
        ours = sum(type(thing) in (StreamReader, httpx.Request, httpx.Response) for thing in gc.get_objects())
        return open_files(), threading.active_count(), ours

    _cleanup.start()  # which stays
    before = left()
    yield
    _cleanup.flush()
    assert left() == before


@pytest.mark.usefixtures("_nothing_left")
def test_two_thousand_calls_two_hundred_at_once() -> None:
    def held_after(number: int) -> int:
        with faulty() as server:
            check(asyncio.run(calls(server, number, 200)))
        gc.collect()
        return sys.getallocatedblocks()

    before = held_after(1_000)  # with what is made once, and the last server's records, which are 1,000 at the most
    assert held_after(2_000) - before < 2_000, "memory is back to where it was: less than a block a call is held"


@pytest.mark.usefixtures("_nothing_left")
def test_threads_that_share_a_client() -> None:
    with faulty() as server, Client(**connection(server)) as client, ThreadPoolExecutor(40) as pool:

        def one(index: int) -> str:
            if index % 2:
                return outcome(lambda: client.run(str(index), **OPTIONS).text)
            return outcome(lambda: "".join(delta.text for delta in client.stream(str(index), **OPTIONS)))

        check(list(pool.map(one, range(400))))
