"""The main job, end to end: both frameworks answer and stream from the real SmolLM2, and the demo runs."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessageChunk
from llama_index.core.llms import ChatMessage

from langchain_workersai import ChatWorkersAI
from llamaindex_workersai import WorkersAI
from tests.support import PATIENCE, connection
from workersai.local import LocalServer

pytestmark = pytest.mark.model

ROOT = Path(__file__).parents[1]
QUESTION = "What is the capital of France?"
STEADY: dict[str, Any] = {"temperature": 0, "max_tokens": 8, "seed": 1}


@pytest.fixture
def chat(smollm: LocalServer) -> ChatWorkersAI:
    return ChatWorkersAI(**connection(smollm), **STEADY)


@pytest.fixture
def llm(smollm: LocalServer) -> WorkersAI:
    return WorkersAI(**connection(smollm), **STEADY)


def merged(chunks: list[AIMessageChunk]) -> AIMessageChunk:
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    return whole


def test_langchain_answers_and_streams_the_same_from_the_real_model(chat: ChatWorkersAI) -> None:
    answer = chat.invoke(QUESTION)
    chunks = list(chat.stream(QUESTION))
    assert len([chunk for chunk in chunks if chunk.text]) > 3
    whole = merged(chunks)
    assert whole.text == answer.text != ""
    assert answer.usage_metadata is not None
    assert whole.usage_metadata == answer.usage_metadata
    assert answer.usage_metadata["output_tokens"] == 8
    assert whole.response_metadata["finish_reason"] == answer.response_metadata["finish_reason"] == "length"


def test_langchain_answers_and_streams_from_the_real_model_with_asyncio(chat: ChatWorkersAI) -> None:
    async def both() -> tuple[str, str]:
        answer, chunks = await asyncio.gather(chat.ainvoke(QUESTION), collect())
        return answer.text, merged(chunks).text

    async def collect() -> list[AIMessageChunk]:
        return [chunk async for chunk in chat.astream(QUESTION)]

    answer, streamed = asyncio.run(both())
    assert answer
    assert streamed


def test_llamaindex_answers_and_streams_the_same_from_the_real_model(llm: WorkersAI) -> None:
    whole = llm.chat([ChatMessage(QUESTION)])
    *pieces, last = llm.stream_chat([ChatMessage(QUESTION)])
    assert len(pieces) > 3
    assert last.message.content == whole.message.content == "".join(piece.delta or "" for piece in pieces)
    assert last.additional_kwargs["completion_tokens"] == whole.additional_kwargs["completion_tokens"] == 8
    completion = llm.complete(QUESTION)
    assert [*llm.stream_complete(QUESTION)][-1].text == completion.text != ""


def test_llamaindex_answers_and_streams_from_the_real_model_with_asyncio(llm: WorkersAI) -> None:
    async def everything() -> list[str | None]:
        answer = await llm.achat([ChatMessage(QUESTION)])
        completion = await llm.acomplete(QUESTION)
        streamed = [piece async for piece in await llm.astream_chat([ChatMessage(QUESTION)])]
        completed = [piece async for piece in await llm.astream_complete(QUESTION)]
        return [answer.message.content, completion.text, streamed[-1].message.content, completed[-1].text]

    assert all(asyncio.run(everything()))


def test_a_stop_string_ends_the_real_models_text(chat: ChatWorkersAI) -> None:
    full = chat.invoke("Count: one, two, three, four.").text
    stop = full[10:14]
    cut = full[: full.find(stop)]
    assert chat.invoke("Count: one, two, three, four.", stop=[stop]).text == cut
    assert merged(list(chat.stream("Count: one, two, three, four.", stop=[stop]))).text == cut


@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("*_quickstart.py")), ids=lambda path: path.stem)
def test_an_example_stands_in_the_readme_whose_blocks_are_run(example: Path) -> None:
    _, code = example.read_text().split('"""\n\n', 1)
    assert code.strip() in (ROOT / "README.md").read_text()


def test_the_demo_runs_against_what_the_environment_names(brief_smollm: LocalServer) -> None:
    done = subprocess.run(  # noqa: S603 - our own example
        [sys.executable, str(ROOT / "examples/demo.py")],
        env={**os.environ, **brief_smollm.environment},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    assert f"this runs on {brief_smollm.base_url}" in done.stdout
    assert done.stdout.count("usage: ") == done.stdout.count("tokens/s") == 2
