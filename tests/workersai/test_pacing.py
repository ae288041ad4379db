"""Rate limits: kept over threads, tasks and models, in the order of arrival."""

import asyncio
import contextlib
import dis
import functools
import gc
import inspect
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.load import dumps

from langchain_workersai import ChatWorkersAI
from llamaindex_workersai import WorkersAI
from tests.counting import operations
from tests.support import PATIENCE, Driver, Serve, asked_text, connection
from workersai import AsyncClient, CallOptions, Client, RateLimit, pacing
from workersai import waiting as waiting_module
from workersai.errors import APITimeoutError, BadRequestError, ConfigurationError
from workersai.local import RawReply
from workersai.pacing import Limiter, limiter_of
from workersai.waiting import Turn

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


def joined(limiter: Limiter, wake: Callable[[], object] = nobody) -> Turn:
    turn = Turn(wake, limiter._clock)
    limiter.join(turn)
    return turn


class Sleeper:
    """Waits for a turn as a thread would: it sleeps as long as it may, or until it is woken, and looks again."""

    def __init__(self, limiter: Limiter, clock: Clock) -> None:
        self.limiter, self.clock = limiter, clock
        self.looks = 0
        self.turn = joined(limiter, self.wake)
        self.look()

    def wake(self) -> None:
        self.until = self.clock.now

    def look(self) -> float:
        self.looks += 1
        left = self.limiter.pause(self.turn)
        self.until = self.clock.now + left
        return left


class Model:
    """The same limiter with a list: each that waits has the time of its place."""

    def __init__(self, calls: int, seconds: float) -> None:
        self.calls, self.seconds = calls, seconds
        self.times: list[float] = []

    def join(self, now: float) -> None:
        full = len(self.times) >= self.calls
        self.times.append(max(now, self.times[-self.calls] + self.seconds) if full else now)


steps = st.lists(st.tuples(st.sampled_from(["call", "call", "call", "leave"]), st.floats(0, 20)), max_size=80)


@given(st.integers(1, 5), st.floats(0.5, 60), steps, st.data())
def test_each_begins_at_the_time_of_its_place_and_wakes_in_time(
    calls: int, seconds: float, moves: list[tuple[str, float]], data: st.DataObject
) -> None:
    clock = Clock()
    limiter, model = Limiter(limit(calls, seconds), clock), Model(calls, seconds)
    waiting: list[Sleeper] = []
    for move, passed in [*moves, ("end", 1e5)]:
        until = clock.now + passed
        while waiting and (next_up := min(waiting, key=lambda each: each.until)).until <= until:
            clock.now = max(clock.now, next_up.until)
            if not next_up.look():
                assert next_up is waiting.pop(0), "in the order of arrival"
                assert clock.now == pytest.approx(model.times[-1 - len(waiting)]), "neither early nor late"
        clock.now = until
        if move == "leave" and waiting:
            waiting.remove(leaving := data.draw(st.sampled_from(waiting)))
            model.times.pop()
            limiter.leave(leaving.turn)
        elif move == "call":
            model.join(clock.now)
            sleeper = Sleeper(limiter, clock)
            assert sleeper.turn.time == pytest.approx(model.times[-1])
            waiting += [sleeper] if sleeper.until > clock.now else []
        for sleeper, time_ in zip(waiting, model.times[len(model.times) - len(waiting) :], strict=True):
            assert sleeper.until <= time_ + 1e-6, "who sleeps wakes in time, whatever became of the others"
            assert sleeper.turn.time >= time_ - 1e-6
    assert not waiting
    assert all(
        later - earlier >= seconds * 0.999 for earlier, later in zip(model.times, model.times[calls:], strict=False)
    )


def test_turns_come_in_order_and_none_later_than_need_be() -> None:
    clock = Clock()
    limiter = Limiter(limit(2, 10), clock)
    turns = [joined(limiter).time for _ in range(6)]
    assert turns == [1_000, 1_000, 1_010, 1_010, 1_020, 1_020]
    clock.now += 100
    assert joined(limiter).time == clock.now


def test_where_one_leaves_the_next_moves_up_and_is_woken() -> None:
    clock = Clock()
    limiter = Limiter(limit(1, 10), clock)
    woken: list[int] = []
    turns = [joined(limiter, functools.partial(woken.append, number)) for number in range(4)]
    limiter.leave(turns[1])
    assert woken == [2]
    assert limiter.pause(turns[2]) == 10
    limiter.leave(turns[2])
    assert limiter.pause(turns[3]) == 10
    with pytest.raises(KeyboardInterrupt), limiter.turn(nobody):
        raise KeyboardInterrupt
    assert joined(limiter).time == 1_020
    clock.now += 50
    limiter.leave(turns[3])
    assert joined(limiter).time == clock.now, "a time that is over helps nobody"


@pytest.mark.parametrize("looking", [False, True], ids=["at once", "one by one"])
@pytest.mark.parametrize("order", [1, -1], ids=["first to last", "last to first"])
def test_who_leaves_costs_no_more_in_a_long_line(order: int, looking: bool) -> None:
    def cost(size: int) -> int:
        clock = Clock()
        limiter = Limiter(limit(3, 10), clock)
        sleepers = [Sleeper(limiter, clock) for _ in range(size)]

        def leave_all() -> None:
            for sleeper in sleepers[::order]:
                limiter.leave(sleeper.turn)
                for woken in [each for each in sleepers if each.until == clock.now] if looking else ():
                    woken.look()

        if not looking:
            return operations(leave_all)
        before = sum(sleeper.looks for sleeper in sleepers)
        leave_all()
        return sum(sleeper.looks for sleeper in sleepers) - before

    small, large = cost(100), cost(1_600)
    assert large <= small * 16 * 2.5, "n log n at most"


def test_joining_costs_the_same_in_a_long_line() -> None:
    limiter = Limiter(limit(3, 10), Clock())
    joined(limiter)
    costs = [operations(lambda: joined(limiter)) for _ in range(2_000)]
    assert max(costs[1_000:]) <= max(costs[:100])


def within(seconds: float, do: Callable[[], object]) -> None:
    """Fails, rather than hangs, if it takes so long."""
    thread = threading.Thread(target=do, daemon=True)
    thread.start()
    thread.join(seconds)
    assert not thread.is_alive(), "it hangs"


def is_as_it_should_be(limiter: Limiter, clock: Clock, *, waiting: int) -> None:
    """The lock is free, in any thread; so many are in the line at most; and it empties in its time."""
    within(30, lambda: joined(limiter))
    assert len(limiter._waiting) <= waiting + 1
    for _ in range(waiting + 3):
        clock.now += limiter.limit.seconds
        joined(limiter)
    clock.now += limiter.limit.seconds * (waiting + 5)
    assert limiter.pause(joined(limiter)) == 0
    assert not limiter._waiting


def test_a_turn_may_be_left_by_the_garbage_collector_anywhere() -> None:
    clock = Clock()
    limiter = Limiter(limit(1, 10), clock)
    joined(limiter)

    async def wait() -> None:
        with limiter.turn(nobody):
            await asyncio.get_running_loop().create_future()

    def abandon() -> None:
        """A coroutine that holds a turn, in a cycle that only the garbage collector can free."""

        async def main() -> None:
            cycle: list[Any] = [wait()]
            cycle.append(cycle)
            cycle[0].send(None)

        asyncio.run(main())

    def work() -> None:
        for threshold in range(1, 60):
            abandon()
            gc.set_threshold(threshold, 1, 1)
            turns = [joined(limiter) for _ in range(5)]
            for turn in turns:
                limiter.pause(turn)
                limiter.leave(turn)
            gc.set_threshold(*before)

    before = gc.get_threshold()
    try:
        within(120, work)
    finally:
        gc.set_threshold(*before)
    gc.collect()
    is_as_it_should_be(limiter, clock, waiting=0)


def interrupted_at(number: int, do: Callable[[], object]) -> bool:
    """Whether it was interrupted, as by a signal handler that raises, at the place of that number.

    The places are those where the interpreter runs signal handlers: at the beginning of a function, behind a call, and
    where a loop goes round. Behind the beginning of a ``with`` and before its end is no such place (3.10 to 3.13).
    """
    ours = {inspect.getsourcefile(module) for module in (pacing, waiting_module)}
    seen, last = 0, dict[Any, str]()

    def trace(frame: Any, event: str, _argument: object) -> Any:
        nonlocal seen
        if frame.f_code.co_filename not in ours:
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if event == "opcode":
            before = last.get(frame, "RESUME")
            last[frame] = dis.opname[frame.f_code.co_code[frame.f_lasti]]
            if before.startswith(("RESUME", "CALL", "JUMP_BACKWARD", "JUMP_ABSOLUTE")):
                seen += 1
                if seen == number:
                    raise KeyboardInterrupt
        return trace

    try:
        sys.settrace(trace)
        do()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(None)
    return False


@pytest.mark.parametrize("what", ["join", "leave", "pause", "turn"])
def test_an_interrupt_anywhere_leaves_the_lock_free_and_the_line_in_order(what: str) -> None:
    for number in count(1):
        clock = Clock()
        limiter = Limiter(limit(2, 10), clock)
        turns = [joined(limiter) for _ in range(9)]

        def work(limiter: Limiter = limiter, turns: list[Turn] = turns, clock: Clock = clock) -> None:
            if what == "join":
                limiter.join(Turn(nobody, clock))
            elif what == "leave":
                limiter.leave(turns[3])
            elif what == "pause":
                clock.now += 10  # two turns go, and all others move up
                limiter.pause(turns[-1])
            else:
                with suppress(ValueError), limiter.turn(nobody):
                    raise ValueError

        if not interrupted_at(number, work):
            break
        is_as_it_should_be(limiter, clock, waiting=8)
    assert number > 20, "each instruction of it was tried"


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no such timer")
def test_a_signal_handler_that_raises_breaks_nothing() -> None:
    class AlarmError(Exception):
        pass

    def ring(*_: object) -> None:
        raise AlarmError

    clock = Clock()
    limiter = Limiter(limit(1, 10), clock)
    joined(limiter)
    before = signal.signal(signal.SIGALRM, ring)
    try:
        for number in range(400):
            with suppress(AlarmError):
                signal.setitimer(signal.ITIMER_REAL, 1e-5 + number * 1e-6)
                while True:
                    with suppress(ValueError), limiter.turn(nobody) as turn:
                        limiter.pause(turn)
                        raise ValueError
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    is_as_it_should_be(limiter, clock, waiting=400)


def test_threads_that_come_and_leave_at_once_leave_nothing_behind() -> None:
    clock = Clock()
    limiter = Limiter(limit(1, 10), clock)
    joined(limiter)

    def come_and_leave() -> None:
        for _ in range(300):
            with suppress(ValueError), limiter.turn(nobody) as turn:
                limiter.pause(turn)
                raise ValueError

    with ThreadPoolExecutor(6) as pool:
        for done in [pool.submit(come_and_leave) for _ in range(6)]:
            done.result(120)
    assert not limiter._leaving
    assert not limiter._waiting


def test_a_thread_that_waits_goes_when_its_turn_moves_up() -> None:
    clock = Clock()
    limiter = Seen(limit(1, 3_600), clock)
    joined(limiter)
    second = joined(limiter)
    with ThreadPoolExecutor(1) as pool:
        third = pool.submit(limiter.take, lambda seconds: None)
        for _ in range(3):
            limiter.came.acquire()
        clock.now = second.time - 0.001
        limiter.leave(second)
        clock.now += 1
        third.result(60)


def test_a_thread_does_not_wait_for_a_turn_that_is_refused() -> None:
    limiter = Limiter(limit(1, 3_600), Clock())

    def refuse(seconds: float) -> None:
        raise TimeoutError(seconds)

    joined(limiter)
    with pytest.raises(TimeoutError, match="3600"):
        limiter.take(refuse)
    assert not limiter._waiting


def test_all_calls_are_made_and_all_wait_for_their_turn(driver: Driver, serve: Serve) -> None:
    server, shared = serve(asked_text), limit(2, 0.05)
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

    def join(self, turn: Turn) -> None:
        super().join(turn)
        self.came.release()


def test_who_waits_goes_when_another_leaves(driver: Driver, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    server, one, clock = serve(lambda _: "ok"), limit(1, 3_600), Clock()
    limiter = Seen(one, clock)
    monkeypatch.setitem(pacing._limiters, (one.name, None), limiter)
    joined(limiter)
    second = joined(limiter)
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
    assert joined(limiter).seconds() == 3_600, "the one after the first's"


def test_a_loop_that_was_closed_holds_up_nobody(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    server, one, loop = serve(lambda _: "ok"), limit(1, 3_600), asyncio.new_event_loop()
    limiter = Seen(one, Clock())
    monkeypatch.setitem(pacing._limiters, (one.name, None), limiter)
    joined(limiter)
    second = joined(limiter)
    waiting = AsyncClient(**connection(server)).run("never", rate_limit=one)
    task = loop.create_task(waiting)

    async def until_it_waits() -> None:
        for _ in range(3):
            await asyncio.to_thread(limiter.came.acquire)

    loop.run_until_complete(until_it_waits())
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()  # as it is, with the task that waits
    limiter.leave(second)  # which would wake it
    assert joined(limiter).seconds() == 7_200
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
    joined(limiter)
    joined(limiter)
    with limiter._lock:  # as a thread of the parent may hold it
        child = os.fork()
        if child == 0:
            os._exit(0 if 3_590 < joined(limiter_of(one, "")).seconds() <= 3_600 else 1)
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
