"""Bulk work over real sockets: how requests are sent, and what becomes of each."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import threading
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from pydantic import BaseModel

from tests.raw_server import raw_server, reply
from tests.support import EVERY_DIALECT, PATIENCE, Serve, asked_text, connection
from tests.workersai.batch.conftest import QUICK, JobDriver
from workersai import (
    DEFAULT_MODEL,
    AsyncClient,
    Client,
    CostTracker,
    Message,
    RateLimit,
    ToolCall,
    count_tokens,
    errors,
)
from workersai.batch import Batch, BatchRequest, BatchResult
from workersai.catalog import CATALOG
from workersai.local import LocalServer
from workersai.local.engine import CalledTool, GenerationRequest
from workersai.local.scripted import Answer, Gate, Refusal, ScriptedAnswer
from workersai.protocol.template import rendered

BOTH = pytest.mark.parametrize("mode", ["batch", "calls"])


def echo(request: GenerationRequest) -> str:
    return "you said " + asked_text(request)


def by_index(results: list[BatchResult]) -> list[BatchResult]:
    assert len({result.index for result in results}) == len(results)
    return sorted(results, key=lambda result: result.index)


def batches_at(server: LocalServer) -> list[list[dict[str, Any]]]:
    return [record.body["requests"] for record in server.requests if "requests" in (record.body or {})]


def calls_at(server: LocalServer) -> list[dict[str, Any]]:
    return [record.body for record in server.requests if {"prompt", "messages"} & (record.body or {}).keys()]


@EVERY_DIALECT
@BOTH
def test_each_request_has_its_own_answer(jobs: JobDriver, serve: Serve, mode: str) -> None:
    server = serve(echo)
    results = by_index(jobs.run(server, (f"row {number}" for number in range(250)), mode=mode, part_size=60))
    assert [result.text for result in results] == [f"you said row {number}" for number in range(250)]
    assert [result.external_reference for result in results[:2]] == ["row-1", "row-2"]
    assert len(batches_at(server)) == (5 if mode == "batch" else 0)
    assert len(calls_at(server)) == (250 if mode == "calls" else 0)


@BOTH
def test_results_come_in_order_on_request(jobs: JobDriver, serve: Serve, mode: str) -> None:
    results = jobs.run(serve(echo), map(str, range(300)), mode=mode, part_size=70, in_order=True)
    assert [result.index for result in results] == list(range(300))


def test_no_requests_are_no_results(jobs: JobDriver, serve: Serve) -> None:
    assert jobs.run(serve("never"), []) == []


def test_many_fitting_requests_go_in_batches_and_others_as_calls(jobs: JobDriver, serve: Serve) -> None:
    server = serve(echo)
    unfit: list[Any] = [
        {"prompt": "a", "top_k": 3},
        {"prompt": "b", "frequency_penalty": -1},
        {"prompt": "c", "raw": True},
        {"prompt": "d", "response_format": {"type": "json_object"}},
        [
            Message("user", "e"),
            Message("assistant", "", (ToolCall("x", "get_weather", {"city": "Paris"}),)),
            Message("tool", "sunny", tool_call_id="x"),
        ],
    ]
    results = jobs.run(server, [*map(str, range(300)), *unfit])
    assert len(results) == 305
    assert sum(map(len, batches_at(server))) == 300
    assert len(calls_at(server)) == 5


def test_a_small_job_goes_as_calls(jobs: JobDriver, serve: Serve) -> None:
    server = serve(echo)
    jobs.run(server, map(str, range(30)))
    assert not batches_at(server)


def test_a_body_stays_under_ten_megabytes(jobs: JobDriver, serve: Serve) -> None:
    server = serve(echo)
    prompts = ["é" * 150_000] * 80  # 300 kB each in UTF-8
    results = jobs.run(server, prompts, mode="batch", on_overflow="send", max_tokens=5)
    assert all(result.completion for result in results)
    sizes = [int(record.headers["content-length"]) for record in server.requests if "requests" in record.body]
    sizes.sort(reverse=True)
    assert len(sizes) == 3
    assert all(9_000_000 < size < 10_000_000 for size in sizes[:2])


def test_a_batch_asks_what_a_call_asks(serve: Serve) -> None:
    server = serve(echo)
    request = BatchRequest(
        [Message("system", "Be terse."), Message("user", "hi")], "mine", {"temperature": 0.5}, {"colour": "blue"}
    )
    with Client(**connection(server), seed=7) as client:
        (result,) = client.batch([request], mode="batch", max_tokens=9, stop="said", **QUICK)
    assert batches_at(server) == [
        [
            {
                "prompt": "<|start_header_id|>system<|end_header_id|>\n\nBe terse.<|eot_id|>"
                "<|start_header_id|>user<|end_header_id|>\n\nhi<|eot_id|>"
                "<|start_header_id|>assistant<|end_header_id|>\n\n",
                "max_tokens": 9,
                "temperature": 0.5,
                "seed": 7,
                "external_reference": "mine",
            }
        ]
    ]
    assert (result.text, result.external_reference, result.request.metadata) == ("you ", "mine", {"colour": "blue"})
    assert result.request.options == {"temperature": 0.5}


@pytest.mark.parametrize("form", ["template", "prompt", "messages"])
def test_each_form_of_an_item_is_answered(jobs: JobDriver, form: Any) -> None:
    requests: list[Any] = ["a", [Message("user", "b")], {"prompt": "c", "prompt_form": "completion"}]
    with LocalServer(echo, strict=form != "messages") as server:  # which the published item does not list
        results = by_index(jobs.run(server, requests, mode="batch", batch_input=form))
        (items,) = batches_at(server)
    assert [result.text for result in results] == ["you said a", "you said b", "you said c"]
    sent = [item.get("messages", item.get("prompt")) for item in items]
    rows = [[{"role": "user", "content": text}] for text in "ab"]
    expected: dict[str, list[Any]] = {
        "template": [rendered(row) for row in rows],
        "prompt": ["a", "b"],
        "messages": rows,
    }
    assert sent == [*expected[form], "c"]


def test_an_unfit_text_of_the_template_form_is_a_single_call(jobs: JobDriver, serve: Serve) -> None:
    server = serve(echo)
    jobs.run(server, [*map(str, range(300)), "say <|eot_id|>"])
    assert [body["messages"][0]["content"] for body in calls_at(server)] == ["say <|eot_id|>"]


def test_the_budget_of_a_batch_covers_a_second_template(jobs: JobDriver, serve: Serve) -> None:
    server = serve(echo)
    prompt = count_tokens([Message("user", "a")])
    for more, fits in ((0, False), (40, True)):
        needed = CATALOG[DEFAULT_MODEL].cost_usd(prompt + more, 5)
        with CostTracker(budget=needed):
            try:
                jobs.run(server, ["a"], mode="batch", max_tokens=5)
            except errors.BudgetExceededError:
                assert not fits
            else:
                assert fits


def test_a_request_that_cannot_be_sent_is_told_with_its_row_before_anything_is_sent(
    jobs: JobDriver, serve: Serve
) -> None:
    server = serve("never")
    given: list[Any] = ["fine"] * 600
    given[16], given[17], given[599] = "", {"prompt": "x", "temperature": 9}, {"prompt": "x", "seed": "no"}
    with pytest.raises(errors.BadRequestError) as caught:
        jobs.run(server, given)
    said = str(caught.value)
    assert "Nothing was sent" in said
    assert "Row 17 (requests[16]): The prompt is empty" in said
    assert "Row 18 (requests[17]): temperature: must be between 0 and 5" in said
    assert "Row 600 (requests[599]): seed:" in said
    assert server.requests == []


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (5, "a request is a text, messages, a BatchRequest or a dict, not int"),
        ({"text": "x"}, "a dict has either prompt or messages"),
        ({"prompt": "x", "messages": []}, "a dict has either prompt or messages"),
        ({"prompt": "x", "model": "@cf/a/b"}, "model is an option of the whole job"),
        ({"prompt": "x", "timeout": 5}, "timeout is an option of the whole job"),
        ({"prompt": "x", "temprature": 1}, "Did you mean temperature?"),
        ({"prompt": "x", "external_reference": 5}, "external_reference must be a string"),
        ({"prompt": "x", "metadata": [1]}, "metadata and options must be dicts"),
        (BatchRequest("x", metadata={"at": object()}), "metadata: "),
        ("x " * 30_000, "context window"),
        ({"prompt": "x", "tools": [{"name": "f"}]}, "tools: a batch takes none. mode='auto'"),
        ({"prompt": "x", "top_k": 3}, "top_k: a batch takes none"),
        ({"prompt": "x", "batch_input": "prompt"}, "batch_input is an option of the whole job"),
        ("say <|eot_id|>", "messages: <|eot_id|> in a text can't be told from the template's own"),
        ({"prompt": "x", "presence_penalty": -1}, "presence_penalty: a batch takes none below 0"),
    ],
)
def test_what_is_wrong_with_a_request_is_named(serve: Serve, given: Any, words: str) -> None:
    with Client(**connection(serve("never"))) as client, pytest.raises(errors.BadRequestError) as caught:
        list(client.batch(["fine", given], mode="batch", **QUICK))
    assert f"Row 2 (requests[1]): {words}" in str(caught.value) or words in str(caught.value)
    assert "Row 2" in str(caught.value)


def test_only_the_first_wrong_requests_are_told_at_length(serve: Serve) -> None:
    with Client(**connection(serve("never"))) as client, pytest.raises(errors.BadRequestError) as caught:
        list(client.batch([""] * 1_000, **QUICK))
    assert "So it is with 995 more." in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        {"mode": "fast"},
        {"part_size": 0},
        {"part_size": True},
        {"concurrency": 0},
        {"poll_interval": 0},
        {"on_invalid": "skip"},
        {"notes": "x"},
        {"notes": {"a": object()}},
        {"temperature": 9},
        {"temprature": 1},
    ],
)
def test_a_wrong_option_is_refused_at_once(serve: Serve, options: dict[str, Any]) -> None:
    with (
        Client(**connection(serve("never"))) as client,
        pytest.raises(errors.BadRequestError, match=next(iter(options))),
    ):
        client.batch(["x"], **options)


def test_neither_requests_nor_a_journal_is_refused(serve: Serve) -> None:
    with Client(**connection(serve("never"))) as client, pytest.raises(errors.BadRequestError, match="or the journal"):
        client.batch()


@BOTH
def test_an_invalid_request_can_be_kept_as_a_result(jobs: JobDriver, serve: Serve, mode: str) -> None:
    results = by_index(jobs.run(serve(echo), ["a", "", "c"], mode=mode, on_invalid="keep"))
    assert [result.completion is not None for result in results] == [True, False, True]
    assert isinstance(results[1].error, errors.BadRequestError)
    with pytest.raises(errors.BadRequestError, match="empty"):
        _ = results[1].text


@BOTH
def test_a_failed_request_is_a_result_with_its_error_and_can_be_asked_again(
    jobs: JobDriver, serve: Serve, mode: str
) -> None:
    refusing = True

    def script(request: GenerationRequest) -> ScriptedAnswer:
        return Refusal(5004, "AiError: Invalid data") if refusing and asked_text(request) == "bad" else echo(request)

    server = serve(script)
    results = by_index(jobs.run(server, ["good", "bad"], mode=mode))
    assert results[0].text == "you said good"
    error = results[1].error
    assert isinstance(error, errors.BadRequestError)
    assert error.code == 5004
    refusing = False
    (again,) = jobs.run(server, [result.request for result in results if result.error], mode=mode)
    assert (again.text, again.external_reference) == ("you said bad", "row-2")


def test_items_that_fail_for_a_moment_are_sent_in_a_later_batch(jobs: JobDriver) -> None:
    with LocalServer(echo, faults="item:3040@0.5") as server:
        results = jobs.run(server, map(str, range(64)), mode="batch", max_retries=30)
        assert all(result.completion for result in results)
        assert len(batches_at(server)) > 2


@pytest.mark.parametrize(("fault", "kind"), [("item:3007", errors.APITimeoutError), ("item:lost", errors.ServerError)])
def test_items_that_fail_each_time_are_results_in_the_end(jobs: JobDriver, fault: str, kind: type[Exception]) -> None:
    with LocalServer(echo, faults=fault) as server:
        results = jobs.run(server, ["a", "b"], mode="batch", max_retries=1)
        assert len(batches_at(server)) == 2
    assert [type(result.error) for result in results] == [kind, kind]


@BOTH
@pytest.mark.parametrize("code", [10000, 4006, 5018, 3042])
def test_an_error_that_no_row_escapes_stops_the_job(jobs: JobDriver, tmp_path: Any, mode: str, code: int) -> None:
    options: dict[str, Any] = {"mode": mode, "part_size": 20, "concurrency": 4, "journal": tmp_path / "job"}
    failing, turns = True, itertools.count()
    faults = lambda _: str(code) if failing and next(turns) > 5 else None  # noqa: E731
    with LocalServer(echo, faults=faults) as server:
        with pytest.raises(errors.WorkersAIError) as caught:
            jobs.run(server, map(str, range(200)), **options)
        assert caught.value.code == code
        assert len(server.requests) < 30
        failing = False
        results = by_index(jobs.run(server, None, journal=tmp_path / "job"))
        assert [result.text for result in results] == [f"you said {number}" for number in range(200)]


def test_a_server_that_is_not_there_stops_the_job(jobs: JobDriver) -> None:
    server = LocalServer(echo)
    with server:
        pass
    with pytest.raises(errors.APIConnectionError):
        jobs.run(server, map(str, range(50)), max_retries=0)


def test_a_batch_that_may_have_been_taken_is_sent_again_and_told(
    jobs: JobDriver, caplog: pytest.LogCaptureFixture
) -> None:
    failures = ["cut:0", "html:502"]
    faults = lambda record: failures.pop() if failures and "requests" in record.body else None  # noqa: E731
    with LocalServer(echo, faults=faults) as server:
        with caplog.at_level(logging.WARNING, "workersai"):
            progress = jobs.progress(server, ["a", "b"], mode="batch", part_size=1)
        assert (progress.answered, progress.unclear_parts) == (2, 2)
        assert len(batches_at(server)) == 4
    assert sum("may be billed twice" in record.message for record in caplog.records) == 2


def test_a_batch_that_was_surely_refused_is_sent_again_without_a_word(
    jobs: JobDriver, caplog: pytest.LogCaptureFixture
) -> None:
    with LocalServer(echo, faults=["3040:0", None]) as server:
        with caplog.at_level(logging.WARNING, "workersai"):
            progress = jobs.progress(server, ["a"], mode="batch")
        assert (progress.answered, progress.unclear_parts) == (1, 0)
    assert not caplog.records


def test_a_submission_that_never_gets_through_stops_the_job(jobs: JobDriver) -> None:
    with LocalServer(echo, faults="cut:0") as server:
        with pytest.raises(errors.APIConnectionError):
            jobs.run(server, ["a"], mode="batch", max_retries=1)
        assert len(server.requests) == 2


def test_polls_that_fail_are_made_again(jobs: JobDriver) -> None:
    with LocalServer(echo, faults=[None, "html:502", "empty:200", "cut:0", "garbage:5", "3040:0"]) as server:
        (result,) = jobs.run(server, ["a"], mode="batch")
    assert result.text == "you said a"


def test_a_batch_that_the_service_forgot_fails_its_rows(jobs: JobDriver) -> None:
    with LocalServer(echo, faults=[None, "5006", None]) as server:
        (result,) = jobs.run(server, ["a"], mode="batch")
    assert isinstance(result.error, errors.BadRequestError)


def test_a_service_that_cannot_be_asked_any_more_stops_the_job(jobs: JobDriver) -> None:
    faults = lambda record: "empty:200" if "request_id" in record.body else None  # noqa: E731
    with LocalServer(echo, faults=faults) as server, pytest.raises(errors.ServerError):
        jobs.run(server, ["a"], mode="batch", max_retries=0)


def polled(*polls: dict[str, Any]) -> BatchResult:
    """The result of a job of one row, whose polls have these replies, and from then on the last."""
    left = list(polls)

    def handle(connected: Any, request: bytes) -> None:
        is_poll = b'"requests"' not in request
        told = {"request_id": "r", "status": "queued"} if not is_poll else left.pop(0) if len(left) > 1 else left[0]
        connected.sendall(reply(json.dumps(told).encode()))

    with raw_server(handle) as server, Client(**server.account) as client:
        (result,) = client.batch(["a"], mode="batch", **QUICK)
    return result


@pytest.mark.parametrize("name", ["responses", "results"])
def test_a_batch_without_an_envelope_is_polled_to_its_end(name: str) -> None:
    done = {"status": "completed", name: [{"id": 0, "success": True, "result": {"response": "yes"}}]}
    assert polled({"status": "running"}, {"status": "running", name: []}, done).text == "yes"


def test_a_batch_that_ends_without_responses_fails_its_rows() -> None:
    error = polled({"status": "completed"}).error
    assert isinstance(error, errors.ServerError)
    assert "'completed', but has no responses" in str(error)


class Weather(BaseModel):
    """The weather."""

    city: str
    warm: bool | None = None


def get_weather(city: str) -> str:
    """The weather in a city."""
    return city


@EVERY_DIALECT
def test_tools_and_schemas_are_kept_as_they_were_meant(jobs: JobDriver, serve: Serve, tmp_path: Any) -> None:
    def script(request: GenerationRequest) -> Answer:
        if request.tools:
            return Answer(tool_calls=(CalledTool("get_weather", {"city": "Paris"}),))
        return Answer(object={"city": "Paris"})

    server = serve(script)
    requests = [
        BatchRequest("a", options={"tools": [get_weather], "tool_choice": "get_weather"}),
        BatchRequest("b", options={"response_format": Weather}),
    ]
    jobs.run(server, requests, journal=tmp_path / "job")
    first, second = by_index(jobs.run(server, None, journal=tmp_path / "job"))
    assert first.completion
    assert first.completion.tool_calls[0].arguments == {"city": "Paris"}
    assert Weather.model_validate_json(second.text) == Weather(city="Paris")
    assert by_index(jobs.run(server, requests, journal=tmp_path / "job"))[0].completion == first.completion


@BOTH
def test_costs_are_counted_and_kept_in_the_journal(jobs: JobDriver, mode: str) -> None:
    with LocalServer(echo, dialect="native") as server, CostTracker() as cost:
        progress = jobs.progress(server, ["one", "two"], mode=mode)
    prompts = {"batch": 12, "calls": 10}[mode]  # the local server counts words, those of the template's markup too
    assert (cost.calls, cost.prompt_tokens, cost.completion_tokens) == (2, prompts, 6)
    assert (progress.prompt_tokens, progress.completion_tokens) == (prompts, 6)
    assert progress.cost_usd == pytest.approx(cost.cost_usd) == pytest.approx((prompts * 0.29 + 6 * 2.25) / 1e6)


@BOTH
def test_a_budget_ends_the_job_when_nothing_more_fits(jobs: JobDriver, serve: Serve, tmp_path: Any, mode: str) -> None:
    # An answer of up to 1,000 tokens may cost 2,250 millionths of a dollar: room for one at once.
    server = serve(echo)
    options: dict[str, Any] = {"mode": mode, "max_tokens": 1000, "journal": tmp_path / "job"}
    with CostTracker(budget=0.0024) as cost, pytest.raises(errors.BudgetExceededError):
        jobs.run(server, map(str, range(200)), **options)
    assert cost.cost_usd <= 0.0024
    assert 3 < cost.calls < 200
    results = by_index(jobs.run(server, None, journal=tmp_path / "job"))
    assert [result.text for result in results] == [f"you said {number}" for number in range(200)]


def test_a_budget_for_a_model_of_unknown_price_is_refused(serve: Serve) -> None:
    with (
        Client(**connection(serve("never"))) as client,
        CostTracker(budget=1),
        pytest.raises(errors.ConfigurationError, match="price"),
    ):
        client.batch(["x"], model="@cf/some/model")


def test_the_limit_of_the_account_is_kept_by_default(jobs: JobDriver) -> None:
    with LocalServer("fine", account_id=uuid.uuid4().hex) as server:
        with Client(**connection(server)) as client:
            client.run("x", rate_limit=RateLimit(calls=1, seconds=1_000))
        (result,) = jobs.run(server, ["y"], rate_limit=RateLimit(calls=1, seconds=1_000), deadline=500)
        assert isinstance(result.error, errors.APITimeoutError)
        with Client(**connection(server)) as client:
            (result,) = client.batch(["y"], deadline=500)
        assert "rate limit" in str(result.error)


def test_a_sync_job_that_is_left_ends_at_once(serve: Serve) -> None:
    gate = Gate()
    server = serve(lambda request: "quick" if asked_text(request) == "0" else Answer("late", hold={0: gate}))
    before = set(threading.enumerate())
    with Client(**connection(server)) as client:
        for result in client.batch(map(str, range(100)), mode="calls", concurrency=4, **QUICK):
            assert result.text == "quick"
            break
        gate.open()
        begun = [thread for thread in set(threading.enumerate()) - before if "workersai-batch" in thread.name]
        for thread in begun:
            thread.join(PATIENCE)
    assert not any(thread.is_alive() for thread in begun)


def test_requests_that_are_read_from_a_generator_are_closed_with_the_job(serve: Serve) -> None:
    def endless() -> Iterator[str]:
        yield from map(str, range(10**9))

    with Client(**connection(serve("x"))) as client:
        client.batch(endless()).close()


def test_an_error_of_the_callers_own_requests_comes_through(jobs: JobDriver, serve: Serve, tmp_path: Any) -> None:
    def broken() -> Iterator[str]:
        yield "a"
        raise LookupError("no more rows")

    with pytest.raises(LookupError, match="no more rows"):
        jobs.run(serve("never"), broken(), journal=tmp_path / "job")
    assert list(tmp_path.iterdir()) == []


def test_async_requests_are_read_as_they_come(serve: Serve) -> None:
    async def rows() -> AsyncIterator[str]:
        for number in range(1_100):
            await asyncio.sleep(0)
            yield str(number)

    async def main() -> list[BatchResult]:
        async with AsyncClient(**connection(server)) as client:
            return [result async for result in client.batch(rows(), **QUICK)]

    server = serve(echo)
    assert [result.text for result in by_index(asyncio.run(main()))] == [f"you said {row}" for row in range(1_100)]


def test_an_async_job_that_is_cancelled_breaks_its_calls_off(serve: Serve, tmp_path: Any) -> None:
    gate = Gate()
    server = serve(lambda _: Answer("late", hold={0: gate}))

    async def main() -> None:
        async with AsyncClient(**connection(server)) as client:
            job = client.batch(["a", "b"], journal=tmp_path / "job", concurrency=1, **QUICK)
            task = asyncio.ensure_future(anext(job))
            await asyncio.to_thread(gate.wait_until_reached)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await asyncio.to_thread(server.requests[0].wait) == "disconnected"
            gate.open()
            again = client.batch(journal=tmp_path / "job", **QUICK)
            assert len([result async for result in again]) == 2

    asyncio.run(main())


def test_a_job_that_is_asked_to_stop_ends_what_is_under_way(serve: Serve, tmp_path: Any) -> None:
    gate = Gate()
    server = serve(lambda request: Answer(echo(request), hold={0: gate}))

    async def main() -> list[BatchResult]:
        async with AsyncClient(**connection(server)) as client:
            job = client.batch(map(str, range(9)), journal=tmp_path / "job", concurrency=2, **QUICK)

            async def stop() -> None:
                await asyncio.to_thread(gate.wait_until_reached)
                job.stop()
                gate.open()

            stopping = asyncio.ensure_future(stop())
            results = [result async for result in job]
            await stopping
            return results

    results = asyncio.run(main())
    assert len(results) == 2
    with Client(**connection(server)) as client:
        job = client.batch(journal=tmp_path / "job", **QUICK)
        first = next(job)
        job.stop()
        rest = list(job)
    assert 2 <= len([first, *rest]) <= 9


def test_a_job_that_waits_for_a_batch_can_be_stopped(serve: Serve, tmp_path: Any) -> None:
    with LocalServer(echo, batch_delay=1_000) as server, Client(**connection(server)) as client:
        job = client.batch(["a"], mode="batch", journal=tmp_path / "job", rate_limit=None, poll_interval=1_000)
        threading.Thread(target=_stop_once_queued, args=(server, job)).start()
        assert list(job) == []
        assert job.progress.parts == 1


def _stop_once_queued(server: LocalServer, job: Batch) -> None:
    while not server.requests:
        pass
    server.requests[0].wait()
    job.stop()


@EVERY_DIALECT
def test_a_cut_answer_of_a_batch_does_not_pass_for_a_whole_one(serve: Serve) -> None:
    cut = Answer("word " * 50, finish_reason="length")
    server = serve(lambda request: cut if asked_text(request) == "long" else "short")
    with Client(**connection(server)) as client:
        results = by_index(list(client.batch(["long", "short"], mode="batch", max_tokens=50, **QUICK)))
    finish = [result.completion.finish_reason for result in results if result.completion]
    assert finish == ["length", "stop"]


def test_using_a_closed_client_is_refused(serve: Serve) -> None:
    client = Client(**connection(serve("x")))
    client.close()
    with pytest.raises(RuntimeError, match="was closed"):
        client.batch(["a"])
