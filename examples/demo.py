"""The main job with both frameworks: an answer, a stream, async, usage, a tool call, and a structured object.

With ``CLOUDFLARE_ACCOUNT_ID`` and ``CLOUDFLARE_API_TOKEN`` in the environment it runs against Cloudflare; without them,
against the local server and the small model behind it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import Any

from llama_index.core.llms import ChatMessage
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool
from pydantic import BaseModel, Field

from langchain_workersai import ChatWorkersAI
from llamaindex_workersai import WorkersAI
from workersai import ensure_service

QUESTION = "What is the capital of France?"
STORY = "Tell me a short story about a brave little boat."
WEATHER = "What is the weather in Paris?"
ANN = "Extract the person: Ann is 34 years old and lives in Norway."
SETTINGS: dict[str, Any] = {"temperature": 0.2, "repetition_penalty": 1.1, "max_tokens": 60, "seed": 7}


class Person(BaseModel):
    """A person that a text tells of."""

    name: str
    age: int = Field(description="In years")
    country: str


def get_weather(city: str) -> str:
    """The weather in a city."""
    return f"In {city} it is sunny, 21 degrees."


def main() -> None:
    """Runs the demo."""
    print(f"{ensure_service()}\n")
    langchain(ChatWorkersAI(**SETTINGS))
    llamaindex(WorkersAI(**SETTINGS))


def langchain(llm: ChatWorkersAI) -> None:
    """The main job through LangChain."""
    _title("LangChain")
    answer = llm.invoke(QUESTION)
    print(f"> {QUESTION}\n{answer.text}")
    print(f"  usage: {answer.usage_metadata}\n")

    print(f"> {STORY}")
    chunks = llm.stream(STORY)
    _show((chunk.text, chunk.usage_metadata["output_tokens"] if chunk.usage_metadata else 0) for chunk in chunks)

    async def both() -> list[str]:
        answers = await asyncio.gather(llm.ainvoke("Name a fruit."), llm.ainvoke("Name a colour."))
        return [answer.text for answer in answers]

    _show_async(asyncio.run(both()))

    print(f"> {WEATHER} (with a tool)")
    called = llm.bind_tools([get_weather], tool_choice="any").invoke(WEATHER)
    for call in called.tool_calls:
        print(f"  calls {call['name']}({call['args']}): {get_weather(**call['args'])}\n")

    print(f"> {ANN} (as an object)")
    print(f"  {llm.with_structured_output(Person).invoke(ANN)!r}\n")


def llamaindex(llm: WorkersAI) -> None:
    """The main job through LlamaIndex."""
    _title("LlamaIndex")
    answer = llm.complete(QUESTION)
    print(f"> {QUESTION}\n{answer.text}")
    print(f"  usage: {answer.additional_kwargs}\n")

    print(f"> {STORY}")
    pieces = llm.stream_chat([ChatMessage(STORY)])
    _show((piece.delta or "", piece.additional_kwargs.get("completion_tokens", 0)) for piece in pieces)

    async def both() -> list[str]:
        answers = await asyncio.gather(llm.acomplete("Name a fruit."), llm.acomplete("Name a colour."))
        return [answer.text for answer in answers]

    _show_async(asyncio.run(both()))

    print(f"> {WEATHER} (with a tool)")
    called = llm.predict_and_call([FunctionTool.from_defaults(get_weather)], user_msg=WEATHER, tool_required=True)
    for source in called.sources:
        print(f"  calls {source.tool_name}({source.raw_input['kwargs']}): {source.content}\n")

    print(f"> {ANN} (as an object)")
    print(f"  {llm.structured_predict(Person, PromptTemplate(ANN))!r}\n")


def _show(pieces: Iterable[tuple[str, int]]) -> None:
    """Prints each piece as it arrives, then the time to the first one and the rate; the last one tells the tokens."""
    began = time.perf_counter()
    first, tokens = None, 0
    for text, told in pieces:
        tokens = told or tokens
        if text:
            first = first or time.perf_counter()
            print(text, end="", flush=True)
    ended = time.perf_counter()
    first = first or ended
    rate = f"{(tokens - 1) / (ended - first):.0f} tokens/s" if tokens > 1 else "no rate: one token"
    print(f"\n  first token after {first - began:.2f} s, then {rate}\n")


def _show_async(answers: list[str]) -> None:
    print("> Two questions at once, with asyncio")
    for answer in answers:
        print(f"- {' '.join(answer.split())[:100]}")
    print()


def _title(name: str) -> None:
    print(f"{name}\n{'-' * len(name)}")


if __name__ == "__main__":
    main()
