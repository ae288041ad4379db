"""Bulk work through LlamaIndex."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from llama_index.core.base.llms.types import ChatMessage, ChatResponse, CompletionResponse
from llama_index.core.callbacks import CallbackManager, TokenCountingHandler
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events.llm import LLMChatEndEvent, LLMChatStartEvent
from llama_index.core.instrumentation.span_handlers import SimpleSpanHandler
from llama_index_instrumentation import get_dispatcher
from llama_index_instrumentation.base import BaseEvent
from llama_index_instrumentation.events.span import SpanDropEvent

from llamaindex_workersai import WorkersAI
from tests.support import EVERY_DIALECT, Serve, asked_text, connection
from workersai import errors
from workersai.local import LocalServer
from workersai.local.engine import GenerationRequest
from workersai.local.scripted import Refusal, ScriptedAnswer

QUICK: dict[str, Any] = {"rate_limit": None, "poll_interval": 0.01}
FACES = pytest.mark.parametrize("face", ["sync", "async"])


def script(request: GenerationRequest) -> ScriptedAnswer:
    asked = asked_text(request)
    return Refusal(5004, "no") if asked == "bad" else f"<{asked}>"


def batch_api(llm: WorkersAI, face: str, inputs: Any, **options: Any) -> list[Any]:
    options = {**QUICK, **options}
    if face == "sync":
        return llm.batch_api(inputs, **options)
    return asyncio.run(llm.abatch_api(inputs, **options))


@EVERY_DIALECT
@FACES
def test_prompts_give_completions_and_messages_chat_responses(serve: Serve, face: str, tmp_path: Path) -> None:
    server = serve(script)
    llm = WorkersAI(**connection(server), max_tokens=7)
    given: Any = ["a", [ChatMessage("b")]]
    for inputs in (given, None):
        first, second = batch_api(llm, face, inputs, mode="batch", journal=tmp_path / "job")
        assert isinstance(first, CompletionResponse)
        assert isinstance(second, ChatResponse)
        assert (first.text, second.message.content) == ("<a>", "<b>")
    (body,) = [record.body for record in server.requests if "requests" in record.body]
    assert [item["max_tokens"] for item in body["requests"]] == [7, 7]


@FACES
def test_the_form_of_batches_is_an_option(face: str) -> None:
    with LocalServer(script, strict=False) as server:
        found = batch_api(WorkersAI(**connection(server)), face, ["a"], mode="batch", batch_input="messages")
        (body,) = [record.body for record in server.requests if "requests" in record.body]
    assert [response.text for response in found] == ["<a>"]
    assert body["requests"][0]["messages"] == [{"role": "user", "content": "a"}]


@FACES
def test_a_failed_input_is_an_error_where_it_is_asked_for(serve: Serve, face: str) -> None:
    llm = WorkersAI(**connection(serve(script)))
    with pytest.raises(errors.BadRequestError):
        batch_api(llm, face, ["a", "bad"])
    first, second = batch_api(llm, face, ["a", "bad"], return_exceptions=True)
    assert first.text == "<a>"
    assert isinstance(second, errors.BadRequestError)
    with pytest.raises(errors.BadRequestError, match="Row 2"):
        batch_api(llm, face, ["a", ""])


def test_answers_come_as_they_are_ready(serve: Serve) -> None:
    llm = WorkersAI(**connection(serve(script)))

    async def collected() -> dict[int, Any]:
        return {index: outcome async for index, outcome in llm.abatch_api_as_completed(["a", "bad"], **QUICK)}

    for found in (dict(llm.batch_api_as_completed(["a", "bad"], **QUICK)), asyncio.run(collected())):
        assert isinstance(found[0], CompletionResponse)
        assert isinstance(found[1], errors.BadRequestError)


class Recorder(BaseEventHandler):
    seen: list[BaseEvent]

    def handle(self, event: BaseEvent, **_: Any) -> None:
        self.seen.append(event)


@pytest.fixture
def events() -> Iterator[list[BaseEvent]]:
    recorder = Recorder(seen=[])
    root = get_dispatcher()
    root.add_event_handler(recorder)
    yield recorder.seen
    root.event_handlers.remove(recorder)


@FACES
@pytest.mark.parametrize("mode", ["batch", "calls"])
def test_callbacks_and_instrumentation_are_told_of_each_input(
    serve: Serve, events: list[BaseEvent], face: str, mode: str
) -> None:
    counter = TokenCountingHandler(tokenizer=str.split)
    llm = WorkersAI(**connection(serve(script)), callback_manager=CallbackManager([counter]), temperature=0.2)
    batch_api(llm, face, ["a", [ChatMessage("b")], "bad"], mode=mode, return_exceptions=True, seed=3)
    assert sorted(event.class_name() for event in events) == [
        "LLMChatEndEvent",
        "LLMChatStartEvent",
        "LLMCompletionEndEvent",
        "LLMCompletionStartEvent",
        "LLMCompletionStartEvent",
        "SpanDropEvent",
    ]
    (started,) = [event for event in events if isinstance(event, LLMChatStartEvent)]
    (ended,) = [event for event in events if isinstance(event, LLMChatEndEvent)]
    assert (started.messages, started.additional_kwargs) == ([ChatMessage("b")], {"seed": 3, "rate_limit": None})
    assert ended.span_id == started.span_id
    assert started.model_dict == llm.to_payload()
    assert started.model_dict["temperature"] == 0.2
    assert ended.response is not None
    assert (ended.messages, ended.response.message.content) == ([ChatMessage("b")], "<b>")
    assert len(counter.llm_token_counts) == 3
    assert counter.total_llm_token_count > 0


@FACES
def test_each_input_has_a_span_as_a_call_has(serve: Serve, face: str) -> None:
    spans, root = SimpleSpanHandler(), get_dispatcher()
    root.add_span_handler(spans)
    try:
        llm = WorkersAI(**connection(serve(script)))
        batch_api(llm, face, ["a", [ChatMessage("b")], "bad"], return_exceptions=True)
        called = [llm.complete("a"), llm.chat([ChatMessage("b")])]
    finally:
        root.span_handlers.remove(spans)
    assert len(called) == 2
    names = sorted(span.id_.partition("-")[0] for span in spans.completed_spans)
    assert names == ["WorkersAI.chat"] * 2 + ["WorkersAI.complete"] * 2
    assert [span.id_.partition("-")[0] for span in spans.dropped_spans] == ["WorkersAI.complete"]
    assert spans.open_spans == {}


@FACES
def test_inputs_of_a_job_that_breaks_off_are_told_its_error(serve: Serve, events: list[BaseEvent], face: str) -> None:
    llm = WorkersAI(**connection(serve(lambda _: Refusal(10000, "Authentication error"))))
    with pytest.raises(errors.AuthenticationError) as caught:
        batch_api(llm, face, ["a", "b"], mode="batch")
    assert [event.err_str for event in events if isinstance(event, SpanDropEvent)] == [str(caught.value)] * 2


class Conversation(list[ChatMessage]):
    """One that can be asked whether it is still held."""


def test_no_input_is_held_where_nobody_listens(serve: Serve) -> None:
    given: list[weakref.ref[Conversation]] = []

    def inputs() -> Iterator[Conversation]:
        for number in range(20):
            conversation = Conversation([ChatMessage(f"{number}")])
            given.append(weakref.ref(conversation))
            yield conversation
            del conversation

    llm = WorkersAI(**connection(serve(script)))
    next(iter(llm.batch_api_as_completed(inputs(), mode="batch", **QUICK)))
    assert [held() for held in given] == [None] * 20
