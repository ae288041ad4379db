"""A model's reasoning through LangChain, over real sockets."""

import asyncio
import pickle
from typing import Any, Literal

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.exceptions import ModelInvalidRequestError, OutputParserException
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, message_chunk_to_message
from pydantic import BaseModel

from langchain_workersai import ChatWorkersAI, WorkersAILLM
from tests.langchain_workersai.face import Face
from tests.support import Serve, connection
from tests.thoughts import CALL, ONLY_THOUGHTS, thinking
from workersai import CostTracker, errors

BOTH = [{"type": "reasoning", "reasoning": "Hm, a greeting."}, {"type": "text", "text": "Hello there"}]
GREETING = thinking("Hm, ", "a greeting.", text="Hello there")
OUT_OF_TOKENS = "ran out of tokens while thinking.*Raise max_tokens, or lower the reasoning effort"

versions = pytest.mark.parametrize("version", ["v0", "v1"])


class Person(BaseModel):
    """Somebody."""

    name: str


def get_weather(city: str) -> str:
    """The weather in a city."""
    return city


def blocks_of(message: Any) -> list[dict[str, Any]]:
    """The content blocks, without the numbers that LangChain gives those of a stream."""
    return [{key: value for key, value in block.items() if key != "index"} for block in message.content_blocks]


def chat(serve: Serve, script: Any, version: str = "v0", **settings: Any) -> ChatWorkersAI:
    return ChatWorkersAI(**connection(serve(script)), output_version=version, **settings)


def added(chunks: list[AIMessageChunk]) -> AIMessageChunk:
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    return whole


@versions
@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_reasoning_is_the_first_block(face: Face, serve: Serve, version: str, name: str) -> None:
    llm = chat(serve, thinking("Hm, ", "a greeting.", text="Hello there", name=name), version)
    message = face.whole(llm, "Hi")
    assert blocks_of(message) == BOTH
    assert message.text == "Hello there"
    assert "reasoning_only" not in message.response_metadata


@versions
def test_streamed_reasoning_adds_up_to_one_block(face: Face, serve: Serve, version: str) -> None:
    chunks = face.pieces(chat(serve, GREETING, version), "Hi")
    assert [block["reasoning"] for chunk in chunks for block in blocks_of(chunk) if "reasoning" in block] == [
        "Hm, ",
        "a greeting.",
    ]
    whole = added(chunks)
    assert blocks_of(whole) == BOTH == blocks_of(message_chunk_to_message(whole))
    assert whole.text == "Hello there" == "".join(chunk.text for chunk in chunks)
    assert whole.additional_kwargs == {"reasoning_content": "Hm, a greeting."}


@versions
def test_reasoning_comes_before_calls(face: Face, serve: Serve, version: str) -> None:
    llm = chat(serve, thinking("Hm.", call=CALL, finish="tool_calls"), version).bind_tools([get_weather])
    for message in (face.whole(llm, "Hi"), added(face.pieces(llm, "Hi"))):
        assert [block["type"] for block in blocks_of(message)] == ["reasoning", "tool_call"]
        assert [call["args"] for call in message.tool_calls] == [{"city": "Oslo"}]
        assert message.text == ""


@versions
def test_callbacks_get_reasoning_in_chunks_and_not_as_tokens(serve: Serve, version: str) -> None:
    class Seen(BaseCallbackHandler):
        def __init__(self) -> None:
            self.tokens: list[Any] = []
            self.chunks: list[Any] = []

        def on_llm_new_token(self, token: Any, *, chunk: Any = None, **_: Any) -> None:
            self.tokens.append(token)
            self.chunks.append(chunk.message)

    seen = Seen()
    message = chat(serve, GREETING, version, streaming=True).invoke("Hi", {"callbacks": [seen]})
    assert blocks_of(message) == BOTH == blocks_of(added(seen.chunks))
    assert "".join(token for token in seen.tokens if isinstance(token, str)) in ("", "Hello there")


@versions
def test_events_have_reasoning_deltas(serve: Serve, version: str) -> None:
    llm = chat(serve, GREETING, version)
    stream = llm.stream_events("Hi", version="v3")
    deltas = [event["delta"] for event in stream if event["event"] == "content-block-delta"]
    assert [delta.get("reasoning") for delta in deltas] == ["Hm, ", "a greeting.", None, None]
    assert blocks_of(stream.output) == BOTH

    async def chunks() -> list[AIMessageChunk]:
        events = [event async for event in llm.astream_events("Hi", version="v2")]
        return [event["data"]["chunk"] for event in events if event["event"] == "on_chat_model_stream"]

    assert blocks_of(added(asyncio.run(chunks()))) == BOTH


@versions
def test_reasoning_survives_pickles_and_the_cache(face: Face, serve: Serve, version: str) -> None:
    server = serve(GREETING)
    llm = ChatWorkersAI(**connection(server), output_version=version, cache=InMemoryCache())
    first, second = face.whole(llm, "Hi"), face.whole(llm, "Hi")
    assert len(server.requests) == 1
    assert blocks_of(first) == blocks_of(second) == blocks_of(pickle.loads(pickle.dumps(first))) == BOTH  # noqa: S301
    assert blocks_of(AIMessage.model_validate(first.model_dump())) == BOTH


@versions
def test_reasoning_is_not_sent_back(face: Face, serve: Serve, version: str) -> None:
    server = serve(GREETING)
    llm = ChatWorkersAI(**connection(server), output_version=version)
    others = AIMessage(
        [{"type": "thinking", "thinking": "secret"}, {"type": "reasoning", "reasoning": "secret"}, "Hey"]
    )
    face.whole(llm, [HumanMessage("1"), face.whole(llm, "0"), HumanMessage("2"), added(face.pieces(llm, "0")), others])
    texts = [message["content"] for message in server.requests[-1].body["messages"]]
    assert texts == ["1", "Hello there", "2", "Hello there", "Hey"]


@versions
def test_a_message_of_reasoning_alone_says_so(face: Face, serve: Serve, version: str) -> None:
    llm = chat(serve, ONLY_THOUGHTS, version)
    for message in (face.whole(llm, "Hi"), added(face.pieces(llm, "Hi"))):
        assert blocks_of(message) == [{"type": "reasoning", "reasoning": "Well, let me see"}]
        assert message.text == ""
        assert message.response_metadata["finish_reason"] == "length"
        assert message.response_metadata["reasoning_only"] is True
        assert face.whole(llm, [HumanMessage("1"), message, HumanMessage("2")]).text == ""


@pytest.mark.parametrize("choice", ["any", "get_weather"])
def test_a_forced_call_that_only_brought_reasoning_is_an_error(face: Face, serve: Serve, choice: str) -> None:
    llm = chat(serve, ONLY_THOUGHTS).bind_tools([get_weather], tool_choice=choice)
    for ask in (face.whole, face.pieces):
        with CostTracker() as cost, pytest.raises(errors.ReasoningOnlyError, match=OUT_OF_TOKENS) as caught:
            ask(llm, "Hi")
        assert isinstance(caught.value, ModelInvalidRequestError)
        assert caught.value.partial is not None
        assert caught.value.partial.reasoning == "Well, let me see"
        assert cost.completion_tokens == 30


def test_a_free_call_may_bring_reasoning_alone(face: Face, serve: Serve) -> None:
    llm = chat(serve, ONLY_THOUGHTS).bind_tools([get_weather])
    assert face.whole(llm, "Hi").response_metadata["reasoning_only"] is True


@pytest.mark.parametrize("method", ["json_schema", "function_calling", "json_mode"])
def test_structured_output_says_that_the_model_ran_out_of_tokens(
    face: Face, serve: Serve, method: Literal["json_schema", "function_calling", "json_mode"]
) -> None:
    llm = chat(serve, ONLY_THOUGHTS)
    asking = llm.with_structured_output(Person, method=method)
    for ask in (face.whole, face.pieces):
        with pytest.raises(OutputParserException, match=OUT_OF_TOKENS):
            ask(asking, "Hi")
    raw = face.whole(llm.with_structured_output(Person, method=method, include_raw=True), "Hi")
    assert raw["parsed"] is None
    assert blocks_of(raw["raw"]) == [{"type": "reasoning", "reasoning": "Well, let me see"}]
    assert raw["raw"].usage_metadata["output_tokens"] == 30
    with pytest.raises(OutputParserException, match=OUT_OF_TOKENS):
        raise raw["parsing_error"]


def test_structured_output_after_reasoning(face: Face, serve: Serve) -> None:
    llm = chat(serve, thinking("Ann, I guess.", text='{"name": "Ann"}'))
    assert face.whole(llm.with_structured_output(Person), "Hi") == Person(name="Ann")


def test_a_text_model_has_reasoning_in_its_generation_info(face: Face, serve: Serve) -> None:
    llm = WorkersAILLM(**connection(serve(GREETING)))
    (generation,) = face.generated(llm, ["Hi"]).generations[0]
    assert (generation.text, generation.generation_info["reasoning"]) == ("Hello there", "Hm, a greeting.")
    assert "".join(face.pieces(llm, "Hi")) == "Hello there"
    (streamed,) = face.generated(llm.model_copy(update={"streaming": True}), ["Hi"]).generations[0]
    assert streamed.generation_info["reasoning"] == "Hm, a greeting."
