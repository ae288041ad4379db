"""Spans and metrics of calls over real sockets, as OpenTelemetry's own SDK collects them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from pydantic import BaseModel

import workersai
from tests.support import Driver, Serve, ServeLengths, connection
from workersai import AsyncClient, Client, Message, RateLimit, ToolCall, errors
from workersai.flows import Send
from workersai.jobs.steps import Begin, NotSentError, Take, Watched
from workersai.local import LocalServer
from workersai.local.engine import CalledTool
from workersai.local.engine import Usage as ToldUsage
from workersai.local.scripted import Answer, Gate
from workersai.retrieval.asking import Asker
from workersai.retrieval.job import EmbeddingJob
from workersai.retrieval.options import Ways
from workersai.tracing import traced

MODEL = "@cf/meta/llama-3.3-70b-instruct-fp8-fast"
SECRET = "the blue elephant"


class Collected:
    """The spans of a test, and the tracer that it makes its own with."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.reader = InMemoryMetricReader()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.meters = MeterProvider([self.reader])
        self.tracer = self.provider.get_tracer("test")

    def instrument(self, **options: Any) -> None:
        workersai.instrument(tracer_provider=self.provider, meter_provider=self.meters, **options)

    def spans(self) -> list[ReadableSpan]:
        """Those of calls, in the order of their ends."""
        return [span for span in self.exporter.get_finished_spans() if span.kind is SpanKind.CLIENT]

    def one(self) -> dict[str, Any]:
        """The attributes of the one there is."""
        (span,) = self.spans()
        return dict(span.attributes or {})

    def metrics(self) -> dict[str, list[Any]]:
        data = self.reader.get_metrics_data()
        assert data is not None
        found = data.resource_metrics[0].scope_metrics[0].metrics
        return {metric.name: list(metric.data.data_points) for metric in found}


@pytest.fixture
def collected() -> Iterator[Collected]:
    collected = Collected()
    collected.instrument()
    yield collected
    workersai.uninstrument()
    collected.meters.shutdown()
    collected.provider.shutdown()


def test_a_call_is_a_span_by_the_conventions(driver: Driver, serve: Serve, collected: Collected) -> None:
    server = serve([Answer("Hi!", usage=ToldUsage(12, 3))])
    said = [Message("system", "Be brief."), Message("user", SECRET)]
    options: dict[str, Any] = {
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 7,
        "seed": 5,
        "max_tokens": 50,
        "stop": ["\n"],
    }
    answer = driver.run(connection(server), said, frequency_penalty=0.5, presence_penalty=-0.5, **options)
    (span,) = collected.spans()
    assert span.name == f"chat {MODEL}"
    assert span.status.status_code is StatusCode.UNSET
    told = collected.one()
    expected = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "cloudflare.workers_ai",
        "gen_ai.request.model": MODEL,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.top_p": 0.9,
        "gen_ai.request.top_k": 7,
        "gen_ai.request.seed": 5,
        "gen_ai.request.max_tokens": 50,
        "gen_ai.request.stop_sequences": ("\n",),
        "gen_ai.request.frequency_penalty": 0.5,
        "gen_ai.request.presence_penalty": -0.5,
        "gen_ai.output.type": "text",
        "gen_ai.response.model": MODEL,
        "gen_ai.response.id": answer.request_id,
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": 12,
        "gen_ai.usage.output_tokens": 3,
        "http.response.status_code": 200,
        "server.address": "127.0.0.1",
        "server.port": urlsplit(server.base_url).port,
    }
    assert {name: told[name] for name in expected} == expected
    assert told["workersai.cost_usd"] == pytest.approx((12 * 0.29 + 3 * 2.25) / 1e6)


@pytest.mark.parametrize(
    ("model_input", "options", "operation"),
    [
        ("hi", {}, "chat"),
        ("hi", {"prompt_form": "completion"}, "text_completion"),
        ([Message("user", "hi")], {}, "chat"),
    ],
)
def test_a_stream_tells_the_time_to_its_first_piece(
    driver: Driver, serve: Serve, collected: Collected, model_input: Any, options: dict[str, Any], operation: str
) -> None:
    driver.stream(connection(serve([Answer("One two", usage=ToldUsage(2, 2))])), model_input, **options)
    told = collected.one()
    assert told["gen_ai.operation.name"] == operation
    assert told["gen_ai.request.stream"] is True
    assert told["gen_ai.response.time_to_first_chunk"] > 0
    assert told["gen_ai.usage.output_tokens"] == 2
    assert told["gen_ai.response.finish_reasons"] == ("stop",)


def test_a_stream_that_is_left_says_so(driver: Driver, serve: Serve, collected: Collected) -> None:
    driver.first(connection(serve(lambda _: "One two three")), "hi")
    left = [dict(span.attributes or {}) for span in collected.spans() if (span.attributes or {}).get("workersai.left")]
    assert len(left) == 1
    assert "error.type" not in left[0]


def test_a_retry_is_an_event_of_the_one_span(driver: Driver, collected: Collected) -> None:
    with LocalServer("Hi!", faults=["3040", None]) as server:
        driver.run(connection(server), SECRET)
    (span,) = collected.spans()
    assert (span.attributes or {})["workersai.retries"] == 1
    (event,) = span.events
    told: dict[str, Any] = dict(event.attributes or {})
    assert event.name == "workersai.retry"
    assert (told["error.type"], told["workersai.error.code"]) == ("RateLimitError", 3040)
    assert told["workersai.retry.wait"] >= 0
    assert span.status.status_code is StatusCode.UNSET


@pytest.mark.parametrize("fault", ["5006", "cut:60", "event:3040"])
def test_a_failure_is_told_without_its_words(driver: Driver, collected: Collected, fault: str) -> None:
    with (
        LocalServer("One two three", faults=[fault]) as server,
        pytest.raises(errors.WorkersAIError) as caught,
    ):
        driver.stream(connection(server), SECRET, max_retries=0)
    (span,) = collected.spans()
    kind = type(caught.value).__name__
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, kind)
    assert (span.attributes or {})["error.type"] == kind


def test_what_is_refused_before_it_is_sent_has_no_span(driver: Driver, serve: Serve, collected: Collected) -> None:
    with pytest.raises(errors.BadRequestError):
        driver.run(connection(serve("never")), "", temperature=0)
    assert not collected.spans()


def whole(collected: Collected) -> str:
    """All that the spans say."""
    return "".join(span.to_json() for span in collected.exporter.get_finished_spans())


def test_nothing_of_what_was_said_is_told_unless_it_is_asked_for(driver: Driver, collected: Collected) -> None:
    with LocalServer(lambda request: f"{SECRET}, indeed", faults=[None, None, "5006"]) as server:
        said = [Message("system", SECRET), Message("user", SECRET)]
        driver.run(connection(server), said)
        driver.stream(connection(server), SECRET)
        with pytest.raises(errors.BadRequestError):
            driver.run(connection(server), SECRET)
        assert SECRET not in whole(collected)
        assert server.api_token not in whole(collected)


class Mood(BaseModel):
    """A mood."""

    mood: str


def get_weather(city: str) -> str:
    """The weather in a city."""
    return f"sunny in {city}"


def test_what_was_said_is_told_by_the_conventions_on_request(serve: Serve, collected: Collected) -> None:
    collected.instrument(capture_content=True)
    call = ToolCall("call-1", "get_weather", {"city": "Oslo"})
    said = [
        Message("system", "Be brief."),
        Message("user", "Weather?"),
        Message("assistant", "", (call,)),
        Message("tool", "rain", tool_call_id="call-1"),
    ]
    server = serve([Answer(tool_calls=(CalledTool("get_weather", {"city": "Bergen"}),))])
    with Client(**connection(server)) as client:
        client.run(said, tools=[get_weather])
    told = {name: json.loads(value) for name, value in collected.one().items() if value and str(value)[0] in "[{"}
    assert told["gen_ai.system_instructions"] == [{"type": "text", "content": "Be brief."}]
    asked = {"type": "tool_call", "id": "call-1", "name": "get_weather", "arguments": {"city": "Oslo"}}
    assert told["gen_ai.input.messages"] == [
        {"role": "user", "parts": [{"type": "text", "content": "Weather?"}]},
        {"role": "assistant", "parts": [asked]},
        {"role": "tool", "parts": [{"type": "tool_call_response", "id": "call-1", "response": "rain"}]},
    ]
    (written,) = told["gen_ai.output.messages"]
    assert (written["role"], written["finish_reason"]) == ("assistant", "tool_call")
    assert written["parts"][0] | {"id": ""} == asked | {"arguments": {"city": "Bergen"}, "id": ""}
    assert told["gen_ai.tool.definitions"][0]["function"]["name"] == "get_weather"


def test_the_usual_variable_asks_for_what_was_said(
    serve: Serve, collected: Collected, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {
        "true": True,
        "span_only": True,
        "span_and_event": True,
        "event_only": False,
        "no_content": False,
        "": False,
    }
    for value, asks in asked.items():
        monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", value)
        collected.instrument()
        collected.exporter.clear()
        with Client(**connection(serve("Hi!"))) as client:
            client.run(SECRET)
        assert (SECRET in whole(collected)) is asks


def test_the_token_is_in_no_span_that_holds_errors(collected: Collected) -> None:
    collected.instrument(capture_content=True)
    with LocalServer("Hi!", faults="5006") as server, Client(**connection(server)) as client:
        with pytest.raises(errors.BadRequestError):
            client.run(SECRET)
        assert collected.one()["exception.message"]
        assert server.api_token not in whole(collected)


def test_json_mode_behind_tools_is_one_span_with_the_tokens_of_both(serve: Serve, collected: Collected) -> None:
    answers = [Answer("Well.", usage=ToldUsage(10, 2)), Answer(object={"mood": "good"}, usage=ToldUsage(20, 4))]
    with Client(**connection(serve(answers))) as client:
        client.run("Mood?", tools=[get_weather], response_format=Mood)
    told = collected.one()
    assert told["gen_ai.output.type"] == "json"
    assert (told["gen_ai.usage.input_tokens"], told["gen_ai.usage.output_tokens"]) == (30, 6)


def test_each_span_is_the_child_of_its_callers(serve: Serve, collected: Collected) -> None:
    server = serve(lambda request: request.messages[-1].content)

    async def ask(client: AsyncClient, number: int) -> int:
        with collected.tracer.start_as_current_span(f"caller {number}") as parent:
            await client.run([Message("user", f"{number}")], seed=number)
            return parent.get_span_context().span_id

    async def main() -> list[int]:
        async with AsyncClient(**connection(server)) as client:
            return await asyncio.gather(*(ask(client, number) for number in range(1, 21)))

    parents = dict(enumerate(asyncio.run(main()), start=1))
    assert len(collected.spans()) == 20
    for span in collected.spans():
        assert span.parent is not None
        assert span.parent.span_id == parents[(span.attributes or {})["gen_ai.request.seed"]]  # type: ignore[index]


@pytest.mark.parametrize("mode", ["calls", "batch"])
def test_of_bulk_work_each_call_is_a_child_of_its_caller(serve: Serve, collected: Collected, mode: Any) -> None:
    with (
        Client(**connection(serve(lambda _: "Hi!"))) as client,
        collected.tracer.start_as_current_span("caller") as parent,
        client.batch(["a", "b", "c"], mode=mode, rate_limit=None, poll_interval=0.01) as job,
    ):
        list(job)
    spans = collected.spans()
    assert len(spans) == (3 if mode == "calls" else 0)
    assert all(span.parent and span.parent.span_id == parent.get_span_context().span_id for span in spans)


def test_vectors_and_scores_have_spans(lengths: LocalServer, collected: Collected) -> None:
    with Client(**connection(lengths)) as client, collected.tracer.start_as_current_span("caller") as parent:
        client.embed(["a"] * 150)
        client.rerank("a", ["b"])
    *vectors, scores = collected.spans()
    told = [dict(span.attributes or {}) for span in vectors]
    assert {span.name for span in vectors} == {"embeddings @cf/baai/bge-base-en-v1.5"}
    assert [each["gen_ai.embeddings.dimension.count"] for each in told] == [768, 768]
    assert sum(each["gen_ai.usage.input_tokens"] for each in told) == 150 * 3  # type: ignore[misc]
    assert scores.name == "rerank @cf/baai/bge-reranker-base"
    assert {span.parent and span.parent.span_id for span in collected.spans()} == {parent.get_span_context().span_id}


def test_what_failed_in_a_batch_of_texts_has_the_spans_of_its_calls(
    serve_lengths: ServeLengths, collected: Collected
) -> None:
    lengths = serve_lengths("item:3040")
    with Client(**connection(lengths)) as client:
        assert len(list(client.embed_corpus(["a"] * 250, mode="batch", poll_interval=0.01))) == 250
    assert [span.name for span in collected.spans()] == ["embeddings @cf/baai/bge-base-en-v1.5"] * 3


def test_a_call_that_its_job_does_not_send_again_was_left(collected: Collected) -> None:
    client = Client(account_id="a", api_token="t", base_url="http://127.0.0.1:1")
    job = EmbeddingJob(Asker(client, {}), Ways()).flow()
    assert isinstance(next(job), Take)
    begin = job.send(["a"])
    assert isinstance(begin, Begin)
    watched = Watched(begin)
    flow = traced(begin.call, watched.flow())
    assert isinstance(next(flow), Send)
    watched.leave()
    with pytest.raises(NotSentError):
        flow.throw(errors.ServerError("no"))
    told = collected.one()
    assert told["workersai.left"] is True
    assert "error.type" not in told


def test_a_cancelled_call_ends_its_span(collected: Collected) -> None:
    gate = Gate()

    async def main(server: LocalServer) -> None:
        async with AsyncClient(**connection(server)) as client:
            task = asyncio.ensure_future(client.run("hi"))
            await asyncio.to_thread(gate.wait_until_reached)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    with LocalServer([Answer("late", hold={0: gate})]) as server:
        asyncio.run(main(server))
    assert collected.one()["workersai.left"] is True


def test_a_gateway_is_told_of_the_span(driver: Driver, serve: Serve, collected: Collected) -> None:
    server = serve(lambda _: "Hi!")
    driver.run(connection(server), "hi", gateway="gw")
    driver.run(connection(server), "hi")
    within = collected.spans()[0].get_span_context()
    assert within is not None
    told, not_told = (record.headers for record in server.requests)
    assert int(told["cf-aig-otel-trace-id"], 16) == within.trace_id
    assert int(told["cf-aig-otel-parent-span-id"], 16) == within.span_id
    assert "cf-aig-otel-trace-id" not in not_told
    assert dict(collected.spans()[0].attributes or {})["workersai.gateway"] == "gw"


def test_a_stream_that_breaks_off_tells_what_was_paid_for(driver: Driver, collected: Collected) -> None:
    collected.instrument(capture_content=True)
    with LocalServer("One two three", faults=["cut:700"]) as server, pytest.raises(errors.StreamInterruptedError):
        driver.stream(connection(server), "hi", max_retries=0)
    (written,) = json.loads(collected.one()["gen_ai.output.messages"])
    assert written["parts"][0]["content"].startswith("One")


def test_the_wait_for_a_rate_limit_is_told(driver: Driver, serve: Serve, collected: Collected) -> None:
    driver.run(connection(serve("Hi!")), "hi", rate_limit=RateLimit(1000, 1, name="traced"))
    assert collected.one()["workersai.rate_limit.wait"] > 0


def test_metrics_count_seconds_and_tokens(serve: Serve, collected: Collected) -> None:
    with Client(**connection(serve(lambda _: Answer("Hi!", usage=ToldUsage(12, 3))))) as client:
        for _ in range(2):
            client.run("hi")
    metrics = collected.metrics()
    (seconds,) = metrics["gen_ai.client.operation.duration"]
    assert (seconds.count, seconds.attributes["gen_ai.operation.name"]) == (2, "chat")
    tokens = {point.attributes["gen_ai.token.type"]: point.sum for point in metrics["gen_ai.client.token.usage"]}
    assert tokens == {"input": 24, "output": 6}


def test_without_being_asked_for_there_is_nothing(serve: Serve, collected: Collected) -> None:
    workersai.uninstrument()
    with Client(**connection(serve("Hi!"))) as client:
        client.run("hi")
    assert not collected.spans()


def test_who_asks_without_the_package_is_told_what_to_install() -> None:
    code = (
        "import sys; sys.modules['opentelemetry'] = None\n"
        "import workersai\n"
        "try: workersai.instrument()\n"
        "except workersai.errors.ConfigurationError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603
    assert done.stdout.strip().endswith("pip install 'workersai[otel]'")


def test_a_setting_that_cant_be_right_is_told() -> None:
    for wrong in ("tracer_provider", "meter_provider"):
        with pytest.raises(errors.ConfigurationError, match=f"{wrong} must be a provider of OpenTelemetry's, not int"):
            workersai.instrument(**{wrong: 5})  # type: ignore[arg-type]
    with pytest.raises(errors.ConfigurationError, match="capture_content"):
        workersai.instrument(capture_content="yes")  # type: ignore[arg-type]
