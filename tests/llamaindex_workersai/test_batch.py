"""Bulk work through LlamaIndex."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from llama_index.core.base.llms.types import ChatMessage, ChatResponse, CompletionResponse

from llamaindex_workersai import WorkersAI
from tests.support import Serve, connection
from workersai import errors
from workersai.local.engine import GenerationRequest
from workersai.local.scripted import Refusal, ScriptedAnswer

QUICK: dict[str, Any] = {"rate_limit": None, "poll_interval": 0.01}
FACES = pytest.mark.parametrize("face", ["sync", "async"])


def script(request: GenerationRequest) -> ScriptedAnswer:
    asked = request.prompt or request.messages[-1].content
    return Refusal(5004, "no") if asked == "bad" else f"<{asked}>"


def batch_api(llm: WorkersAI, face: str, inputs: Any, **options: Any) -> list[Any]:
    options = {**QUICK, **options}
    if face == "sync":
        return llm.batch_api(inputs, **options)
    return asyncio.run(llm.abatch_api(inputs, **options))


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
