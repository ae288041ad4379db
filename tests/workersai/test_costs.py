"""Costs: what the calls inside a block cost, whoever makes them and wherever they run."""

import asyncio
import contextvars
import gc
import json
import pickle
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import reduce
from operator import add
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.caches import InMemoryCache
from pydantic import BaseModel

from langchain_workersai import ChatWorkersAI
from llamaindex_workersai import WorkersAI
from tests.support import EVERY_DIALECT, PATIENCE, Driver, Serve, connection
from workersai import CATALOG, AsyncClient, Client, CostTracker, Message, ModelCard
from workersai import Usage as Told
from workersai.errors import (
    APIConnectionError,
    BudgetExceededError,
    ConfigurationError,
    ModelNotFoundError,
    RateLimitError,
    ServerError,
    StreamInterruptedError,
)
from workersai.local import Answer, CalledTool, Gate, LocalServer, RawReply, Refusal
from workersai.local.dialects import DialectName
from workersai.local.engine import GenerationRequest, Usage

PRICE = 0.29e-6 * 1_000 + 2.25e-6 * 200
ANSWER = Answer("It is sunny.", usage=Usage(1_000, 200, 30))


def sums(cost: CostTracker) -> tuple[int, int, int, float]:
    assert cost.total_tokens == cost.prompt_tokens + cost.completion_tokens
    return cost.calls, cost.prompt_tokens, cost.completion_tokens, cost.cost_usd


def costing(calls: int) -> Any:
    return (calls, calls * 1_000, calls * 200, pytest.approx(calls * PRICE))


@pytest.fixture
def server(serve: Serve) -> LocalServer:
    return serve(lambda _: ANSWER)


def test_usage_has_a_price_by_the_catalog() -> None:
    (card,) = CATALOG.values()
    assert (card.input_price, card.output_price) == (0.29, 2.25)
    assert Told(1_000_000, 1_000_000, model=card.name).cost_usd == pytest.approx(2.54)
    assert Told(0, 0).cost_usd == 0
    assert Told(10, 10, model="@cf/other/model").cost_usd is None


CACHING = ModelCard("@cf/our/model", 8_192, input_price=1.0, output_price=4.0, cached_input_price=0.1)


@pytest.fixture
def caching_model(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(CATALOG, CACHING.name, CACHING)
    return CACHING.name


def test_cached_input_has_its_own_price_where_one_is_published(caching_model: str) -> None:
    usage = Told(1_000_000, 1_000_000, 400_000, caching_model)
    assert usage.cost_usd == pytest.approx(0.6 * 1 + 0.4 * 0.1 + 4)
    assert Told(1_000_000, 1_000_000, 400_000).cost_usd == pytest.approx(2.54)
    assert Told(10, 0, 1_000, caching_model).cost_usd == pytest.approx(10 * 0.1e-6), "more than the prompt can't be"
    kept = Told(1_000_000, 1_000_000, 400_000, caching_model, 1_000_000, 1_000_000)
    assert (kept.cost_usd, kept.saved_usd) == (0, usage.cost_usd)
    both = usage + kept
    assert both.cost_usd == pytest.approx(usage.cost_usd)
    assert both.saved_usd == pytest.approx(usage.cost_usd)


@given(st.lists(st.tuples(st.integers(0, 9_999), st.integers(0, 9_999), st.floats(0, 1), st.booleans()), min_size=1))
def test_the_price_of_a_sum_is_the_sum_of_the_prices(calls: list[tuple[int, int, float, bool]]) -> None:
    usages = []
    for prompt, completion, share, billed in calls:
        unbilled = (0, 0) if billed else (prompt, completion)
        usages.append(Told(prompt, completion, int(prompt * share), CACHING.name, *unbilled))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(CATALOG, CACHING.name, CACHING)
        total = reduce(add, usages)
        assert total.cost_usd == pytest.approx(sum(usage.cost_usd or 0 for usage in usages))
        assert total.saved_usd == pytest.approx(sum(usage.saved_usd or 0 for usage in usages))
        for usage in usages:
            assert (usage.cost_usd or 0) <= CACHING.cost_usd(usage.prompt_tokens, usage.completion_tokens)


def test_a_tracker_counts_cached_input_at_its_price_and_reserves_the_full_one(
    driver: Driver, serve: Serve, caching_model: str
) -> None:
    details = {"prompt_tokens": 1_000, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 900}}
    body = json.dumps({"result": {"response": "ok", "usage": details}, "success": True}).encode()
    server = serve(lambda _: RawReply(body))
    with CostTracker(budget=1.0) as cost:
        usage = driver.run(connection(server), "hi", model=caching_model, max_tokens=1).usage
    assert usage is not None
    assert usage.cost_usd == cost.cost_usd == pytest.approx((100 + 900 * 0.1 + 4) * 1e-6)
    assert cost.held_usd == pytest.approx(0)
    assert cost.cached_tokens == 900
    with CostTracker(budget=20e-6) as cost, pytest.raises(BudgetExceededError):
        driver.run(connection(server), "hi " * 100, model=caching_model, max_tokens=1)


@EVERY_DIALECT
def test_calls_inside_are_counted_and_others_are_not(driver: Driver, server: LocalServer) -> None:
    settings = connection(server)
    with CostTracker() as cost:
        completion = driver.run(settings, "hi")
        driver.stream(settings, "hi")
    driver.run(settings, "hi")
    assert sums(cost) == costing(2)
    assert cost.cached_tokens == 0, "only a session has them"
    assert completion.usage is not None
    assert completion.usage.cost_usd == pytest.approx(PRICE)
    assert repr(cost) == "<CostTracker: 2 calls; 2,000 + 400 tokens; $0.001480>"
    with cost:
        driver.run(settings, "hi", session_affinity="s")
    assert sums(cost) == costing(3)
    assert cost.cached_tokens == 30


@EVERY_DIALECT
def test_both_frameworks_count_and_tell_the_cost(server: LocalServer) -> None:
    chat, llm = ChatWorkersAI(**connection(server)), WorkersAI(**connection(server))
    with CostTracker() as cost:
        answer = chat.invoke("hi")
        last = list(chat.stream("hi"))[-1]
        response = llm.complete("hi")
        *_, streamed = llm.stream_complete("hi")
        chat.batch(["a", "b", "c"])
        asyncio.run(chat.abatch(["a", "b", "c"]))
    assert sums(cost) == costing(10)
    assert answer.response_metadata["cost_usd"] == last.response_metadata["cost_usd"] == pytest.approx(PRICE)
    assert response.raw["cost_usd"] == streamed.raw["cost_usd"] == pytest.approx(PRICE)


def test_an_answer_from_a_cache_costs_nothing(server: LocalServer) -> None:
    chat = ChatWorkersAI(**connection(server), cache=InMemoryCache())
    with CostTracker() as cost:
        assert [chat.invoke("hi").text for _ in range(3)] == ["It is sunny."] * 3
    assert sums(cost) == costing(1)


def test_blocks_nest(server: LocalServer) -> None:
    with Client(**connection(server)) as client, CostTracker() as outer:
        client.run("hi")
        with CostTracker() as inner, inner, outer:
            client.run("hi")
            with inner:
                pass
            client.run("hi")
        client.run("hi")
    assert sums(inner) == costing(2)
    assert sums(outer) == costing(4)


def test_tasks_inside_count_and_those_beside_do_not(server: LocalServer) -> None:
    async def tracked(client: AsyncClient, calls: int) -> CostTracker:
        with CostTracker() as cost:
            await asyncio.gather(*(client.run("hi") for _ in range(calls)))
        return cost

    async def main() -> list[CostTracker]:
        async with AsyncClient(**connection(server)) as client:
            *costs, _ = await asyncio.gather(tracked(client, 1), tracked(client, 5), client.run("beside"))
            with CostTracker() as outlived:
                task = asyncio.create_task(client.run("hi"))
            await task
            return [*costs, outlived]

    assert [sums(cost) for cost in asyncio.run(main())] == [costing(1), costing(5), costing(1)]


def in_thread(work: Callable[[], object]) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def test_threads_that_are_started_inside_count(server: LocalServer) -> None:
    with Client(**connection(server)) as client:
        with CostTracker() as cost:
            with ThreadPoolExecutor(4) as pool:
                list(pool.map(lambda _: client.run("hi"), range(8)))
            in_thread(lambda: client.run("hi"))
        assert sums(cost) == costing(9)


def test_a_thread_that_was_there_before_is_inside_only_with_the_context(server: LocalServer) -> None:
    with Client(**connection(server)) as client, ThreadPoolExecutor(1) as pool:
        pool.submit(client.run, "before").result()
        with CostTracker() as cost:
            pool.submit(client.run, "of somebody else").result()
            assert cost.calls == 0
            pool.submit(contextvars.copy_context().run, client.run, "of ours").result()
            assert cost.calls == 1


def test_threads_that_are_started_elsewhere_are_not_inside(server: LocalServer) -> None:
    opened, done = threading.Event(), threading.Event()

    def somebody() -> None:
        with CostTracker() as other:
            opened.set()
            done.wait(PATIENCE)
        others.append(other)

    others: list[CostTracker] = []
    somebody_else = threading.Thread(target=somebody)
    somebody_else.start()
    assert opened.wait(PATIENCE)
    with Client(**connection(server)) as client:
        in_thread(lambda: client.run("not theirs"))
        with CostTracker() as ours:
            in_thread(lambda: client.run("ours"))
    done.set()
    somebody_else.join()
    assert (others[0].calls, ours.calls) == (0, 1)


def test_a_pool_forgets_a_block_that_is_over(server: LocalServer) -> None:
    def own() -> int:
        with CostTracker() as inner:
            client.run("hi")
        return inner.calls

    with Client(**connection(server)) as client, ThreadPoolExecutor(1) as pool:
        with CostTracker() as first, first:
            assert pool.submit(own).result() == 1
        pool.submit(client.run, "later").result()
        with CostTracker() as second:
            assert pool.submit(own).result() == 1
        assert (first.calls, second.calls) == (1, 0)


def test_a_thread_with_a_tracker_of_its_own_counts_in_both(server: LocalServer) -> None:
    def own() -> None:
        with CostTracker() as inner:
            client.run("hi")
        inners.append(inner)

    inners: list[CostTracker] = []
    with Client(**connection(server)) as client, CostTracker() as cost:
        in_thread(own)
    assert [sums(cost), sums(inners[0])] == [costing(1)] * 2


@EVERY_DIALECT
def test_two_requests_for_one_answer_are_two(serve: Serve) -> None:
    class Weather(BaseModel):
        """The weather."""

        sky: str

    def get_weather(city: str) -> str:
        """The weather of a city."""
        return city

    usage = Usage(1_000, 200)
    server = serve([Answer("Sunny.", usage=usage), Answer(object={"sky": "blue"}, usage=usage)])
    with Client(**connection(server)) as client, CostTracker() as cost:
        client.run("hi", tools=[get_weather], response_format=Weather)
    assert sums(cost) == costing(2)


@EVERY_DIALECT
def test_refusals_cost_nothing_and_retries_are_counted_once(driver: Driver, serve: Serve) -> None:
    busy = Refusal(3040, "AiError: No capacity", 429)
    server = serve([busy, ANSWER, Refusal(5007, "No such model"), RawReply([b'data: {"errors":[{"code":3040}]}\n\n'])])
    settings = connection(server)
    with CostTracker() as cost:
        driver.run(settings, "hi")
        with pytest.raises(ModelNotFoundError):
            driver.run(settings, "hi")
        with pytest.raises(RateLimitError):
            driver.stream(settings, "hi", max_retries=0)
    assert sums(cost) == costing(1)
    assert cost.unpriced_calls == 0


# What is not known


def endless(request: GenerationRequest) -> Answer:
    return Answer(pieces=iter(lambda: "word ", None)) if request.stream else ANSWER


@pytest.mark.parametrize("dialect", ["native", "chat"])
def test_a_stream_that_is_left_is_a_call_of_unknown_cost(driver: Driver, dialect: DialectName) -> None:
    with LocalServer(endless, dialect=dialect) as server, CostTracker(budget=1) as cost:
        driver.first(connection(server), [Message("user", "hi")])
    assert (cost.calls, cost.unpriced_calls) == (2, 1)
    assert cost.cost_usd == pytest.approx(PRICE)
    assert repr(cost) == "<CostTracker: 2 calls, 1 of them unpriced; 1,000 + 200 tokens; $0.000740 of $1.000000>"


def test_a_hybrid_stream_that_is_left_costs_at_least_the_tokens_that_came(driver: Driver) -> None:
    with LocalServer(endless, dialect="hybrid") as server, CostTracker(budget=1) as cost:
        driver.first(connection(server), [Message("user", "hi")])
    assert (cost.calls, cost.unpriced_calls) == (2, 1)
    assert cost.cost_usd > PRICE * 1.001


def test_a_stream_that_was_cut_off_is_a_call_of_unknown_cost(driver: Driver, serve: Serve) -> None:
    server = serve(lambda _: RawReply([b'data: {"response":"It is"}\n\n']))
    with CostTracker() as cost, pytest.raises(StreamInterruptedError):
        driver.stream(connection(server), "hi")
    assert (cost.calls, cost.unpriced_calls, cost.cost_usd) == (1, 1, 0)


def test_a_stream_that_is_never_begun_is_no_call(server: LocalServer) -> None:
    with Client(**connection(server)) as client, CostTracker(budget=0.0097) as cost:
        client.stream("hi")
        with closing(client.stream("hi")):
            pass
        gc.collect()
        assert cost.calls == 0
        client.run("hi")
    assert sums(cost) == costing(1)


def test_a_task_that_is_cancelled_may_have_cost_something(serve: Serve) -> None:
    gate = Gate()
    server = serve([Answer(pieces=["a", "b"], hold={1: gate}), ANSWER])

    async def main() -> CostTracker:
        async with AsyncClient(**connection(server), max_tokens=4_000) as client:
            with CostTracker(budget=0.02) as cost:
                task = asyncio.create_task(client.run("hi"))
                await asyncio.to_thread(gate.wait_until_reached)
                task.cancel()
                await asyncio.wait([task])
                await client.run("hi")
                with pytest.raises(BudgetExceededError, match="of unknown cost"):
                    await client.run("hi", max_tokens=5_000)
        return cost

    cost = asyncio.run(main())
    assert (cost.calls, cost.unpriced_calls) == (2, 1)


@pytest.mark.parametrize("body", [b'{"result":{"usage":{"prompt_tokens":9}}}', b'{"result":{"resp', b"<html>"])
def test_an_answer_that_cannot_be_read_may_have_cost_something(driver: Driver, serve: Serve, body: bytes) -> None:
    server = serve(lambda _: RawReply(body, content_type="application/json"))
    with CostTracker() as cost:
        for call in (driver.run, driver.stream):
            with pytest.raises(ServerError):
                call(connection(server), "hi")
    assert (cost.calls, cost.unpriced_calls) == (2, 2)


def test_a_request_that_was_never_sent_costs_nothing_and_one_that_was_lost_may(driver: Driver, serve: Serve) -> None:
    server = serve(lambda _: RawReply([b"{"], cut=True))
    with CostTracker(budget=0.1) as cost:
        with pytest.raises(APIConnectionError) as caught:
            driver.run({"account_id": "a", "api_token": "t", "base_url": "http://127.0.0.1:9"}, "hi", max_retries=1)
        assert caught.value.never_sent
        assert cost.calls == 0
        with pytest.raises(APIConnectionError) as caught:
            driver.run(connection(server), "hi", max_retries=1)
        assert not caught.value.never_sent
    assert (cost.calls, cost.unpriced_calls) == (2, 2)


@pytest.mark.parametrize("count", [-5, 1e300, "12"])
def test_counts_that_cannot_be_right_are_none(driver: Driver, serve: Serve, count: Any) -> None:
    result = {"result": {"response": "hi", "usage": {"prompt_tokens": count, "completion_tokens": 1}}}
    server = serve(lambda _: RawReply(json.dumps(result).encode(), content_type="application/json"))
    with CostTracker() as cost:
        assert driver.run(connection(server), "hi").usage is None
    assert (cost.calls, cost.unpriced_calls, cost.cost_usd) == (1, 1, 0)


def test_a_stream_that_the_garbage_collector_ends_does_not_block() -> None:
    with CostTracker() as cost, cost._lock:
        cost.settle(0, None)  # as the collector does, in the midst of counting
    assert cost.calls == 1


# The budget


def test_a_call_that_could_pass_the_budget_is_not_sent(driver: Driver, server: LocalServer) -> None:
    # Up to 256 tokens of answer, for about $0.0006; each takes $0.00074.
    options: dict[str, Any] = {"max_tokens": 256}
    with CostTracker(budget=0.002) as cost:
        driver.run(connection(server), "hi", **options)
        driver.stream(connection(server), "hi", **options)
        for call in (driver.run, driver.stream):
            with pytest.raises(BudgetExceededError, match=r"budget of \$0\.002000 .* \$0\.001480 are spent") as caught:
                call(connection(server), "hi", **options)
            assert "up to 256 of answer" in str(caught.value)
        driver.run(connection(server), "hi", max_tokens=200)
    assert sums(cost) == costing(3)
    assert len(server.requests) == 3


def test_the_budget_counts_what_is_under_way(serve: Serve) -> None:
    gate = Gate()
    server = serve(lambda _: Answer("Yes.", usage=Usage(10, 1), hold={0: gate}))

    async def main() -> tuple[CostTracker, list[Any]]:
        async with AsyncClient(**connection(server), max_tokens=1_000) as client:
            with CostTracker(budget=0.005) as cost:  # two calls of up to $0.00226
                calls = [asyncio.create_task(client.run("hi")) for _ in range(5)]
                done, _ = await asyncio.wait(calls, return_when=asyncio.FIRST_EXCEPTION)
                assert len(done) >= 1
                gate.open()
                results = await asyncio.gather(*calls, return_exceptions=True)
                await client.run("hi")
        return cost, results

    cost, results = asyncio.run(main())
    assert [isinstance(result, BudgetExceededError) for result in results] == [False, False, True, True, True]
    assert "kept for calls under way" in str(results[2])
    assert cost.calls == 3


def test_of_nested_budgets_the_narrowest_holds(server: LocalServer) -> None:
    with Client(**connection(server), max_tokens=256) as client, CostTracker(budget=1) as outer:
        with CostTracker(budget=0.0001), pytest.raises(BudgetExceededError):
            client.run("hi")
        with CostTracker(budget=5), CostTracker():
            client.run("hi")
    assert sums(outer) == costing(1)


def test_a_prompt_is_counted_for_the_budget(server: LocalServer) -> None:
    long = "word " * 3_000
    with (
        Client(**connection(server), max_tokens=1) as client,
        CostTracker(budget=0.0008),
        pytest.raises(BudgetExceededError, match=r"3,03\d tokens of prompt"),
    ):
        client.run([Message("user", long)])
    with Client(**connection(server), max_tokens=1) as client, CostTracker(budget=0.0009) as cost:
        client.run([Message("user", long)])
    assert cost.calls == 1


def test_frameworks_raise_it_too(server: LocalServer) -> None:
    with CostTracker(budget=0):
        with pytest.raises(BudgetExceededError):
            ChatWorkersAI(**connection(server)).invoke("hi")
        with pytest.raises(BudgetExceededError):
            WorkersAI(**connection(server)).complete("hi")
    assert not server.requests


def test_without_a_price_there_is_no_budget(driver: Driver, serve: Serve) -> None:
    server = serve("never")
    with CostTracker(budget=1), pytest.raises(ConfigurationError, match="price of @cf/other/model is not known"):
        driver.run(connection(server), "hi", model="@cf/other/model")
    assert not server.requests


@pytest.mark.parametrize("budget", [-1, float("nan"), True, "5"])
def test_a_budget_is_a_number_of_dollars(budget: Any) -> None:
    with pytest.raises(ConfigurationError, match="budget must be a number of US dollars"):
        CostTracker(budget=budget)


def test_a_tracker_belongs_to_its_process() -> None:
    with pytest.raises(TypeError, match="can't be pickled"):
        pickle.dumps(CostTracker())


@EVERY_DIALECT
def test_calls_of_tools_count(serve: Serve) -> None:
    def get_time() -> str:
        """The time."""
        return "noon"

    server = serve([Answer(tool_calls=(CalledTool("get_time", {}),), usage=Usage(1_000, 200))])
    with CostTracker() as cost:
        ChatWorkersAI(**connection(server)).bind_tools([get_time]).invoke("What time is it?")
    assert sums(cost) == costing(1)
