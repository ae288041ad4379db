"""Rate limits: kept over threads, tasks and models, in the order of arrival."""

import asyncio
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import count, pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.load import dumps

from langchain_workersai import ChatWorkersAI
from llamaindex_workersai import WorkersAI
from tests.support import Driver, Serve, connection
from workersai import AsyncClient, Client, RateLimit
from workersai.errors import APITimeoutError, BadRequestError, ConfigurationError
from workersai.local import RawReply
from workersai.pacing import Limiter, limiter_of

numbers = count()


def limit(calls: int, seconds: float) -> RateLimit:
    """One that no other test shares."""
    return RateLimit(f"test {next(numbers)}", calls, seconds)


class Clock:
    """Time as a test lets it pass."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


steps = st.lists(st.tuples(st.sampled_from(["call", "call", "call", "leave"]), st.floats(0, 20)), max_size=60)


@given(st.integers(1, 5), st.floats(0.5, 60), steps)
def test_no_span_holds_more_calls_than_it_may(calls: int, seconds: float, moves: list[tuple[str, float]]) -> None:
    clock = Clock()
    limiter = Limiter(limit(calls, seconds), clock)
    begun: list[float] = []
    for move, passed in moves:
        clock.now += passed
        if move == "call" or not begun:
            slot = limiter.reserve()
            assert slot >= clock.now
            begun.append(slot)
        elif begun[-1] >= clock.now:  # it is still waiting, and may leave
            limiter.give_back(begun.pop())
    begun.sort()
    assert all(later - earlier >= seconds * 0.999 for earlier, later in zip(begun, begun[calls:], strict=False))


def test_turns_come_in_order_and_none_later_than_need_be() -> None:
    clock = Clock()
    limiter = Limiter(limit(2, 10), clock)
    slots = [limiter.reserve() for _ in range(6)]
    assert slots == [1_000, 1_000, 1_010, 1_010, 1_020, 1_020]
    clock.now += 100
    assert limiter.reserve() == clock.now


def test_a_turn_that_is_given_back_is_the_next_ones() -> None:
    clock = Clock()
    limiter = Limiter(limit(1, 10), clock)
    limiter.reserve()
    with pytest.raises(KeyboardInterrupt), limiter.turn():
        raise KeyboardInterrupt
    assert limiter.reserve() == 1_010
    limiter.give_back(1_010)
    clock.now += 50
    assert limiter.reserve() == clock.now, "a time that is over helps nobody"


def test_all_calls_are_made_and_all_wait_for_their_turn(driver: Driver, serve: Serve) -> None:
    server, shared = serve(lambda request: request.prompt or "?"), limit(2, 0.05)
    with ThreadPoolExecutor(8) as pool:
        answers = pool.map(lambda n: driver.run(connection(server), str(n), rate_limit=shared).text, range(8))
        assert list(answers) == [str(n) for n in range(8)]
    assert [delta.text for delta in driver.stream(connection(server), "last", rate_limit=shared)] == ["last", ""]


def test_models_of_all_kinds_share_a_limit_by_its_name(serve: Serve) -> None:
    name = f"shared {next(numbers)}"

    def shared() -> RateLimit:
        return RateLimit(name, 4, 3_600)

    server = serve(lambda _: "ok")
    chat = ChatWorkersAI(**connection(server), rate_limit=shared())
    llm = WorkersAI(**connection(server), rate_limit=shared())
    with Client(**connection(server), rate_limit=shared()) as client:
        chat.invoke("1")
        llm.complete("2")
        client.run("3")
        asyncio.run(chat.ainvoke("4"))
        for call in (lambda: chat.invoke("5", deadline=1), lambda: llm.complete("5", deadline=1)):
            with pytest.raises(APITimeoutError, match="deadline of 1 s"):
                call()
        with pytest.raises(APITimeoutError):
            asyncio.run(llm.acomplete("5", deadline=1))
    assert len(server.requests) == 4
    assert limiter_of(shared()).reserve() > 0


def test_a_retry_takes_a_turn_too(driver: Driver, serve: Serve) -> None:
    busy = RawReply(b'{"success":false,"errors":[{"code":3040,"message":"busy"}]}', 429, headers={"Retry-After": "0"})
    server, two = serve([busy, busy, "never"]), limit(2, 3_600)
    with pytest.raises(APITimeoutError):
        driver.run(connection(server), "hi", rate_limit=two, deadline=5)
    assert len(server.requests) == 2


def test_a_task_that_is_cancelled_leaves_its_turn(serve: Serve) -> None:
    server, one = serve(lambda _: "ok"), limit(1, 3_600)

    async def main() -> None:
        async with AsyncClient(**connection(server), rate_limit=one) as client:
            await client.run("first")
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(client.run("second"), 0.05)

    asyncio.run(main())
    assert len(server.requests) == 1
    (left,) = limiter_of(one)._given_back
    assert limiter_of(one).reserve() == left


def test_threads_that_come_at_once_get_different_turns() -> None:
    limiter = Limiter(limit(1, 1), Clock())
    slots: list[float] = []
    threads = [threading.Thread(target=lambda: slots.append(limiter.reserve())) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(later - earlier == 1 for earlier, later in pairwise(sorted(slots)))


def test_the_same_name_is_the_same_limit() -> None:
    first = limit(5, 10)
    assert RateLimit(first.name, 5, 10) == first
    with pytest.raises(ConfigurationError, match="is 5 calls in 10 s already"):
        RateLimit(first.name, 6, 10)


@pytest.mark.parametrize(
    "wrong", [{"name": ""}, {"calls": 0}, {"calls": 1.5}, {"seconds": 0}, {"seconds": float("nan")}]
)
def test_what_is_no_limit_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        RateLimit(**{"name": f"wrong {next(numbers)}", **wrong})


def test_it_is_an_option_that_can_be_stored(driver: Driver) -> None:
    shared = limit(5, 10)
    with pytest.raises(BadRequestError, match=r"rate_limit: must be a workersai\.RateLimit"):
        driver.run({"account_id": "a", "api_token": "t"}, "hi", rate_limit=300)
    llm = WorkersAI(account_id="a", api_token="t", rate_limit=shared)
    assert WorkersAI.from_dict(json.loads(llm.to_json()) | {"api_token": "t"}).rate_limit == shared
    assert shared.name in dumps(ChatWorkersAI(account_id="a", api_token="t", rate_limit=shared))
