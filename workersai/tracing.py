"""OpenTelemetry spans of calls, by the GenAI conventions; none unless :func:`instrument` asks for them.

One span is one call, as its caller sees it: with all attempts, and of a stream to its last piece. The conventions are
OpenTelemetry's "Semantic conventions for generative client AI spans", which are still in development; what they have
no name for is under ``workersai.``.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from workersai._cleanup import submit
from workersai._version import __version__
from workersai.calls import Call
from workersai.checks import shown
from workersai.errors import ConfigurationError, WorkersAIError
from workersai.flows import Emit, Flow, Send, Step, Turn, Wait
from workersai.jobs.steps import NotSentError
from workersai.protocol.reply import ReplyHead
from workersai.protocol.values import Completion, Delta
from workersai.spans import GATEWAY_HEADER, Attributes, answer_of, asked_of, content_of, written_of

if TYPE_CHECKING:
    from opentelemetry.metrics import Histogram, MeterProvider
    from opentelemetry.trace import Span, Tracer, TracerProvider

T = TypeVar("T")

_CAPTURE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
# The conventions' own buckets.
_SECONDS = [0.01 * 2**power for power in range(14)]
_TOKENS = [4**power for power in range(14)]
_LEFT = (GeneratorExit, NotSentError)  # the reader of a stream or of a job has gone, a task was cancelled, Ctrl-C
_CAPTURED = ("true", "span_only", "span_and_event")  # "event_only" asks for it where spans do not have it


@dataclass(frozen=True)
class _Tracing:
    """What was asked for."""

    tracer: Tracer
    seconds: Histogram
    tokens: Histogram
    content: bool


_tracing: _Tracing | None = None


def instrument(
    *,
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
    capture_content: bool | None = None,
) -> None:
    """From now on, each call of this process has a span, and counts in two metrics.

    That is so for all clients and models, by whichever framework they are called. A span is named after its operation
    and its model, as in ``chat @cf/meta/llama-3.3-70b-instruct-fp8-fast``, is the child of the span that is current
    where the call is made, and ends with the call. It tells the model, the settings, tokens, the finish reason, each
    retry as an event, the seconds to the first piece of a stream, and what the call cost. Requests of the Async Batch
    API, of which each is hundreds of prompts, have none. The metrics are the conventions'
    ``gen_ai.client.operation.duration`` and ``gen_ai.client.token.usage``.

    Args:
        tracer_provider: Where the spans go; by default the process's own (``opentelemetry.trace``).
        meter_provider: Where the metrics go; by default the process's own.
        capture_content: Whether spans hold prompts, answers, tools and the words of errors, which may quote them. By
            default as the variable ``OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT`` says, else not.

    Called again, it takes the new settings. The token is in no span.

    Raises:
        ConfigurationError: ``opentelemetry-api`` is not installed, or ``capture_content`` is no bool.
    """
    global _tracing  # noqa: PLW0603 - as the providers of OpenTelemetry itself, it is of the process
    if not isinstance(capture_content, bool | None):
        raise ConfigurationError(f"capture_content must be True or False, not {shown(capture_content)}.")
    try:
        from opentelemetry import metrics, trace  # noqa: PLC0415 - for who asks for it
    except ImportError as error:
        raise ConfigurationError(
            "Tracing needs opentelemetry-api, which is not installed: pip install 'workersai[otel]'"
        ) from error
    for name, provider, get in (
        ("tracer_provider", tracer_provider, "get_tracer"),
        ("meter_provider", meter_provider, "get_meter"),
    ):
        if provider is not None and not callable(getattr(provider, get, None)):
            raise ConfigurationError(f"{name} must be a provider of OpenTelemetry's, not {type(provider).__name__}.")
    if capture_content is None:
        capture_content = os.environ.get(_CAPTURE, "").strip().lower() in _CAPTURED
    meter = metrics.get_meter("workersai", __version__, meter_provider)
    _tracing = _Tracing(
        trace.get_tracer("workersai", __version__, tracer_provider),
        meter.create_histogram(
            "gen_ai.client.operation.duration",
            "s",
            "Seconds that a call took.",
            explicit_bucket_boundaries_advisory=_SECONDS,
        ),
        meter.create_histogram(
            "gen_ai.client.token.usage",
            "{token}",
            "Tokens of a prompt, or of an answer.",
            explicit_bucket_boundaries_advisory=_TOKENS,
        ),
        capture_content,
    )


def uninstrument() -> None:
    """Ends what :func:`instrument` began; calls that are under way keep their spans."""
    global _tracing  # noqa: PLW0603
    _tracing = None


def traced(call: Call, flow: Flow[T]) -> Flow[T]:
    """The flow of a call; inside of a span, where that was asked for."""
    if _tracing is None or call.operation is None:
        return flow
    return _Observed(_tracing, call, asked_of(call, call.operation)).flow(flow)


class _Observed:
    """One call under observation."""

    def __init__(self, tracing: _Tracing, call: Call, asked: Attributes) -> None:
        self._tracing = tracing
        self._call = call
        self._asked = asked
        self._retries = 0
        self._turns = 0.0  # seconds that a rate limit took
        self._first_piece: float | None = None
        self._completion: Any = None

    def flow(self, flow: Flow[T]) -> Flow[T]:
        """The same steps, seen on their way."""
        span, begun = self._start(), time.perf_counter()
        error: BaseException | None = None
        try:
            step = next(flow)
            while True:
                self._see(span, step, begun)
                asked_at = time.perf_counter()
                try:
                    outcome = yield _linked(span, step) if isinstance(step, Send) else step
                except WorkersAIError as failure:
                    step = flow.throw(failure)
                    continue
                if isinstance(step, Send):
                    _see_head(span, outcome)
                elif isinstance(step, Turn):
                    self._turns += time.perf_counter() - asked_at
                step = flow.send(outcome)
        except StopIteration as end:
            value: T = end.value
            if value is not None:  # a stream has handed its answer over
                self._completion = value
            return value
        except BaseException as failure:
            error = failure
            self._completion = getattr(failure, "partial", None)
            raise
        finally:
            flow.close()
            end_span = partial(self._end, span, time.perf_counter() - begun, error)
            if isinstance(error, GeneratorExit):
                submit(end_span)  # maybe a finalizer's doing, and the span's processors take locks
            else:
                end_span()

    def _start(self) -> Span:
        from opentelemetry.trace import SpanKind  # noqa: PLC0415

        name = f"{self._asked['gen_ai.operation.name']} {self._asked['gen_ai.request.model']}"
        content = content_of(self._call) if self._tracing.content else {}
        return self._tracing.tracer.start_span(name, kind=SpanKind.CLIENT, attributes={**self._asked, **content})

    def _see(self, span: Span, step: Step, begun: float) -> None:
        if isinstance(step, Emit):
            if self._first_piece is None and any(_brings_something(delta) for delta in step.deltas):
                self._first_piece = time.perf_counter() - begun
            self._completion = next((delta.completion for delta in step.deltas if delta.completion), None)
        elif isinstance(step, Wait):
            self._retries += 1
            failure = step.retry.error
            told: Attributes = {"workersai.retry.wait": step.retry.wait, "error.type": type(failure).__name__}
            span.add_event("workersai.retry", {**told, **self._words_of(failure)})

    def _words_of(self, error: BaseException) -> Attributes:
        words = {"exception.message": str(error)} if self._tracing.content else {}
        code = getattr(error, "code", None)
        return {**words, **({} if code is None else {"workersai.error.code": code})}

    def _end(self, span: Span, seconds: float, error: BaseException | None) -> None:
        found = self._completion
        if self._retries:
            span.set_attribute("workersai.retries", self._retries)
        if self._turns:
            span.set_attribute("workersai.rate_limit.wait", self._turns)
        if self._first_piece is not None:
            span.set_attribute("gen_ai.response.time_to_first_chunk", self._first_piece)
        span.set_attributes(answer_of(found))
        if isinstance(found, Completion) and self._tracing.content:
            span.set_attributes(written_of(found))
        if isinstance(error, _LEFT):
            span.set_attribute("workersai.left", True)  # noqa: FBT003 - its value
        elif error is not None:
            self._tell_error(span, error)
        self._measure(found, seconds, error)
        span.end()

    def _tell_error(self, span: Span, error: BaseException) -> None:
        from opentelemetry.trace import Status, StatusCode  # noqa: PLC0415

        kind = type(error).__name__
        span.set_attributes({"error.type": kind, **self._words_of(error)})
        span.set_status(Status(StatusCode.ERROR, str(error) if self._tracing.content else kind))

    def _measure(self, found: Any, seconds: float, error: BaseException | None) -> None:
        names = (
            "gen_ai.operation.name",
            "gen_ai.provider.name",
            "gen_ai.request.model",
            "server.address",
            "server.port",
        )
        by = {name: self._asked[name] for name in names if name in self._asked}
        failed = {} if error is None or isinstance(error, _LEFT) else {"error.type": type(error).__name__}
        self._tracing.seconds.record(seconds, {**by, **failed})
        usage = getattr(found, "usage", None)
        if usage is not None:
            self._tracing.tokens.record(usage.prompt_tokens, {**by, "gen_ai.token.type": "input"})
            if usage.completion_tokens:
                self._tracing.tokens.record(usage.completion_tokens, {**by, "gen_ai.token.type": "output"})


def _brings_something(delta: Delta) -> bool:
    return bool(delta.text or delta.tool_call or delta.reasoning)


def _see_head(span: Span, head: ReplyHead) -> None:
    span.set_attribute("http.response.status_code", head.status)
    if head.request_id is not None:
        span.set_attribute("gen_ai.response.id", head.request_id)


def _linked(span: Span, step: Send) -> Send:
    """The request; an AI Gateway is told of the span, so that its own are below it (Cloudflare: AI Gateway, OTEL)."""
    headers, within = step.request.headers, span.get_span_context()
    if GATEWAY_HEADER not in headers or not within.is_valid:
        return step
    ids = {
        "cf-aig-otel-trace-id": f"{within.trace_id:032x}",
        "cf-aig-otel-parent-span-id": f"{within.span_id:016x}",
    }
    return Send(replace(step.request, headers={**headers, **ids}))
