"""Rate limits: kept over threads, tasks and models, in the order of arrival."""

import asyncio
import contextlib
import functools
import json
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.load import dumps

from langchain_workersai import ChatWorkersAI
from llamaindex_workersai import WorkersAI
from tests.support import PATIENCE, Driver, Serve, connection
from workersai import AsyncClient, CallOptions, Client, RateLimit, pacing
from workersai.errors import APITimeoutError, BadRequestError, ConfigurationError
from workersai.local import RawReply
from workersai.pacing import Limiter, Turn, limiter_of

numbers = count()


def limit(calls: int, seconds: float) -> RateLimit:
    """One that no other test shares."""
    return RateLimit(calls, seconds, f"test {next(numbers)}")


def nobody() -> None:
    """Wakes nobody."""


class Clock:
    """Time as a test lets it pass."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


steps = st.lists(st.tuples(st.sampled_from(["call", "call", "call", "leave"]), st.floats(0, 20)), max_size=60)


@given(st.integers(1, 5), st.floats(0.5, 60), steps, st.data())
def test_no_span_holds_more_calls_than_it_may(
    calls: int, seconds: float, moves: list[tuple[str, float]], data: st.DataObject
) -> None:
    clock = Clock()
    limiter = Limiter(limit(calls, seconds), clock)
    turns: list[Turn] = []
    for move, passed in moves:
        clock.now += passed
        waiting = [turn for turn in turns if turn.seconds()]
        if move == "call" or not waiting:
            turns.append(limiter.join(nobody))
            assert turns[-1].time >= clock.now
        else:
            turns.remove(leaving := data.draw(st.sampled_from(waiting)))
            limiter.leave(leaving)
        assert [turn.time for turn in turns] == sorted(turn.time for turn in turns), "in the order of arrival"
    begun = [turn.time for turn in turns]
    assert all(later - earlier >= seconds * 0.999 for earlier, later in zip(begun, begun[calls:], strict=False))
    for turn in [turn for turn in turns if turn.seconds()]:
        limiter.leave(turn)
    clock.now += seconds
    assert limiter.join(nobody).seconds() == 0, "who left holds up nobody"


def test_turns_come_in_order_and_none_later_than_need_be() -> None:
    clock = Clock()
    limiter = Limiter(limit(2, 10), clock)
    turns = [limiter.join(nobody).time for _ in range(6)]
    assert turns == [1_000, 1_000, 1_010, 1_010, 1_020, 1_020]
    clock.now += 100
    assert limiter.join(nobody).time == clock.now


def test_where_one_leaves_those_behind_move_up_and_are_woken() -> None:
    clock = Clock()
    limiter = Limiter(limit(1, 10), clock)
    woken: list[int] = []
    turns = [limiter.join(functools.partial(woken.append, number)) for number in range(4)]
    limiter.leave(turns[1])
    assert [turn.time for turn in turns] == [1_000, 1_010, 1_010, 1_020]
    assert woken == [2, 3]
    limiter.leave(turns[2])
    assert turns[3].time == 1_010
    assert woken == [2, 3], "it was told already, and has not looked since"
    assert turns[3].seconds() == 10
    with pytest.raises(KeyboardInterrupt), limiter.turn(nobody):
        raise KeyboardInterrupt
    assert limiter.join(nobody).time == 1_020
    clock.now += 50
    limiter.leave(turns[3])
    assert limiter.join(nobody).time == clock.now, "a time that is over helps nobody"


def test_who_leaves_while_the_line_changes_waits_for_the_end_of_it() -> None:
    limiter = Limiter(limit(1, 10), Clock())
    turns = [limiter.join(nobody) for _ in range(3)]
    with limiter._alone():  # as garbage collection may do it, in the same thread
        limiter.leave(turns[1])
        assert turns[2].time == 1_020
    assert turns[2].time == 1_010


def test_all_calls_are_made_and_all_wait_for_their_turn(driver: Driver, serve: Serve) -> None:
    server, shared = serve(lambda request: request.prompt or "?"), limit(2, 0.05)
    began = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        answers = pool.map(lambda n: driver.run(connection(server), str(n), rate_limit=shared).text, range(8))
        assert list(answers) == [str(n) for n in range(8)]
    assert [delta.text for delta in driver.stream(connection(server), "last", rate_limit=shared)] == ["last", ""]
    assert time.monotonic() - began >= 0.2, "nine calls, two in each twentieth of a second"


class Seen(Limiter):
    """Lets a test wait until somebody has come."""

    def __init__(self, limit: RateLimit, clock: Clock) -> None:
        super().__init__(limit, clock)
        self.came = threading.Semaphore(0)

    def join(self, wake: Callable[[], object]) -> Turn:
        turn = super().join(wake)
        self.came.release()
        return turn


def test_who_waits_goes_when_another_leaves(driver: Driver, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    server, one, clock = serve(lambda _: "ok"), limit(1, 3_600), Clock()
    limiter = Seen(one, clock)
    monkeypatch.setitem(pacing._limiters, (one.name, None), limiter)
    limiter.join(nobody)
    second = limiter.join(nobody)
    with ThreadPoolExecutor(1) as pool:
        third = pool.submit(lambda: driver.run(connection(server), "hi", rate_limit=one).text)
        for _ in range(3):
            limiter.came.acquire()
        clock.now = second.time - 0.001
        limiter.leave(second)
        clock.now += 1
        assert third.result(PATIENCE) == "ok", "it would sleep two hours, were it not woken"


def test_models_of_all_kinds_share_a_limit_by_its_name(serve: Serve) -> None:
    name = f"shared {next(numbers)}"

    def shared() -> RateLimit:
        return RateLimit(4, 3_600, name)

    server = serve(lambda _: "ok")
    chat = ChatWorkersAI(**connection(server), rate_limit=shared())
    llm = WorkersAI(**connection(server), rate_limit=shared())
    with Client(**connection(server), rate_limit=shared()) as client:
        chat.invoke("1")
        llm.complete("2")
        client.run("3")
        asyncio.run(chat.ainvoke("4"))
        for call in (lambda: chat.invoke("5", deadline=600), lambda: llm.complete("5", deadline=600)):
            with pytest.raises(APITimeoutError, match=r"turn in \d+ s, after its deadline of 600 s: it was not sent"):
                call()
        with pytest.raises(APITimeoutError):
            asyncio.run(llm.acomplete("5", deadline=600))
    assert len(server.requests) == 4


def test_a_retry_takes_a_turn_too(driver: Driver, serve: Serve) -> None:
    busy = RawReply(b'{"success":false,"errors":[{"code":3040,"message":"busy"}]}', 429, headers={"Retry-After": "0"})
    server, two = serve([busy, busy, "never"]), limit(2, 3_600)
    with pytest.raises(APITimeoutError):
        driver.run(connection(server), "hi", rate_limit=two, deadline=600)
    assert len(server.requests) == 2


def test_a_task_that_is_cancelled_leaves_its_turn(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    server, one = serve(lambda _: "ok"), limit(1, 3_600)
    limiter = Seen(one, Clock())
    monkeypatch.setitem(pacing._limiters, (one.name, None), limiter)

    async def main() -> None:
        async with AsyncClient(**connection(server), rate_limit=one) as client:
            await client.run("first")
            second = asyncio.create_task(client.run("second"))
            for _ in range(2):
                await asyncio.to_thread(limiter.came.acquire)
            second.cancel()
            with pytest.raises(asyncio.CancelledError):
                await second

    asyncio.run(main())
    assert len(server.requests) == 1
    assert limiter.join(nobody).seconds() == 3_600, "the one after the first's"


def test_a_loop_that_was_closed_holds_up_nobody(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    server, one, loop = serve(lambda _: "ok"), limit(1, 3_600), asyncio.new_event_loop()
    limiter = Seen(one, Clock())
    monkeypatch.setitem(pacing._limiters, (one.name, None), limiter)
    limiter.join(nobody)
    second = limiter.join(nobody)
    waiting = AsyncClient(**connection(server)).run("never", rate_limit=one)
    task = loop.create_task(waiting)

    async def until_it_waits() -> None:
        for _ in range(3):
            await asyncio.to_thread(limiter.came.acquire)

    loop.run_until_complete(until_it_waits())
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()  # as it is, with the task that waits
    limiter.leave(second)  # which would wake it
    assert limiter.join(nobody).seconds() == 7_200
    with contextlib.suppress(RuntimeError):
        waiting.close()
    task._log_destroy_pending = False  # type: ignore[attr-defined]


def test_the_same_name_is_the_same_limit(serve: Serve) -> None:
    first = limit(5, 10)
    server = serve(lambda _: "ok")
    with Client(**connection(server), rate_limit=first) as client:
        client.run("hi")
        client.run("hi", rate_limit=RateLimit(5, 10, first.name))
        with pytest.raises(ConfigurationError, match="is 5 calls in 10 s already"):
            client.run("hi", rate_limit=RateLimit(6, 10, first.name))
    assert len(server.requests) == 2


def test_without_a_name_it_is_that_of_the_account() -> None:
    shared = RateLimit(7, 10)
    one, same, other = (limiter_of(shared, account) for account in ("a" * 32, "a" * 32, "b" * 32))
    assert one is same
    assert one is not other
    assert limiter_of(RateLimit(7, 10, "a" * 32), "a" * 32) is not one
    with pytest.raises(ConfigurationError, match="of this account is 7 calls in 10 s already"):
        limiter_of(RateLimit(8, 10), "a" * 32)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_fork_forgets_who_waits_in_its_parent() -> None:
    one = limit(1, 3_600)
    limiter = limiter_of(one, "")
    limiter.join(nobody)
    limiter.join(nobody)
    with limiter._lock:  # as a thread of the parent may hold it
        child = os.fork()
        if child == 0:
            os._exit(0 if 3_590 < limiter_of(one, "").join(nobody).seconds() <= 3_600 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize(
    "wrong", [{"name": ""}, {"calls": 0}, {"calls": 1.5}, {"seconds": 0}, {"seconds": float("nan")}]
)
def test_what_is_no_limit_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        RateLimit(**wrong)


def test_it_has_a_json_schema() -> None:
    schema = CallOptions.model_json_schema()["properties"]["rate_limit"]
    assert schema["anyOf"][0]["properties"] == {
        "calls": {"type": "integer"},
        "seconds": {"type": "number"},
        "name": {"type": "string"},
    }


def test_it_is_an_option_that_can_be_stored(driver: Driver) -> None:
    shared = limit(5, 10)
    with pytest.raises(BadRequestError, match=r"rate_limit: must be a workersai\.RateLimit"):
        driver.run({"account_id": "a", "api_token": "t"}, "hi", rate_limit=300)
    llm = WorkersAI(account_id="a", api_token="t", rate_limit=shared)
    assert WorkersAI.from_dict(json.loads(llm.to_json()) | {"api_token": "t"}).rate_limit == shared
    assert str(shared.name) in dumps(ChatWorkersAI(account_id="a", api_token="t", rate_limit=shared))
