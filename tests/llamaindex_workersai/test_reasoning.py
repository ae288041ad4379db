"""A model's reasoning through LlamaIndex, over real sockets."""

import asyncio
from typing import Any

import pytest
from llama_index.core.agent.workflow import AgentStream, FunctionAgent
from llama_index.core.base.llms.types import ChatMessage, ChatResponse, TextBlock, ThinkingBlock, ToolCallBlock
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool
from llama_index.core.types import PydanticProgramMode
from pydantic import BaseModel

from llamaindex_workersai import WorkersAI
from llamaindex_workersai.structured import StructuredOutputError
from tests.llamaindex_workersai.face import Face
from tests.support import Serve, connection
from tests.thoughts import CALL, ONLY_THOUGHTS, thinking
from workersai import errors

GREETING = thinking("Hm, ", "a greeting.", text="Hello there")
OUT_OF_TOKENS = "ran out of tokens while thinking.*Raise max_tokens, or lower the reasoning effort"
HI = [ChatMessage("Hi")]


class Person(BaseModel):
    """Somebody."""

    name: str


def get_weather(city: str) -> str:
    """The weather in a city."""
    return city


WEATHER = FunctionTool.from_defaults(get_weather)


def blocks_of(response: ChatResponse) -> list[tuple[str, Any]]:
    return [
        ("thinking", block.content) if isinstance(block, ThinkingBlock) else (block.block_type, None)
        for block in response.message.blocks
    ]


def test_reasoning_is_a_block_before_the_text(face: Face, serve: Serve) -> None:
    llm = WorkersAI(**connection(serve(GREETING)))
    response = face.whole(llm, "chat", HI)
    assert response.message.blocks == [ThinkingBlock(content="Hm, a greeting."), TextBlock(text="Hello there")]
    assert response.message.content == "Hello there"
    assert "reasoning_only" not in response.raw


def test_streamed_reasoning_grows(face: Face, serve: Serve) -> None:
    pieces = face.pieces(WorkersAI(**connection(serve(GREETING))), "chat", HI)
    deltas = [piece.additional_kwargs.get("thinking_delta") for piece in pieces]
    assert deltas == ["Hm, ", "a greeting.", None, None, None]
    assert [blocks_of(piece) for piece in pieces[:2]] == [
        [("thinking", "Hm, "), ("text", None)],
        [("thinking", "Hm, a greeting."), ("text", None)],
    ]
    assert "".join(piece.delta for piece in pieces) == "Hello there" == pieces[-1].message.content
    assert blocks_of(pieces[-1]) == blocks_of(pieces[-2]) == [("thinking", "Hm, a greeting."), ("text", None)]


def test_a_completion_has_its_reasoning_beside_the_text(face: Face, serve: Serve) -> None:
    llm = WorkersAI(**connection(serve(GREETING)))
    response = face.whole(llm, "complete", "Hi")
    assert (response.text, response.additional_kwargs["thinking"]) == ("Hello there", "Hm, a greeting.")
    pieces = face.pieces(llm, "complete", "Hi")
    assert "".join(piece.additional_kwargs.get("thinking_delta", "") for piece in pieces) == "Hm, a greeting."
    assert pieces[-1].text == "Hello there" == "".join(piece.delta for piece in pieces)
    assert pieces[-1].additional_kwargs["thinking"] == "Hm, a greeting."


def test_reasoning_comes_before_calls(face: Face, serve: Serve) -> None:
    llm = WorkersAI(**connection(serve(thinking("Hm.", call=CALL, finish="tool_calls"))))
    whole = face.whole(llm, "chat_with_tools", [WEATHER], user_msg="Hi")
    streamed = face.pieces(llm, "chat_with_tools", [WEATHER], user_msg="Hi")[-1]
    for response in (whole, streamed):
        assert blocks_of(response) == [("thinking", "Hm."), ("tool_call", None)]
        (call,) = llm.get_tool_calls_from_response(response)
        assert call.tool_kwargs == {"city": "Oslo"}


def test_reasoning_is_not_sent_back(face: Face, serve: Serve) -> None:
    server = serve(GREETING)
    llm = WorkersAI(**connection(server))
    memory = ChatMemoryBuffer.from_defaults(llm=llm)
    call = ToolCallBlock(tool_call_id="c1", tool_name="get_weather", tool_kwargs={"city": "Oslo"})
    for message in (
        face.whole(llm, "chat", HI).message,
        face.pieces(llm, "chat", HI)[-1].message,
        ChatMessage(role="assistant", blocks=[ThinkingBlock(content="secret"), call]),
        ChatMessage("12", role="tool", additional_kwargs={"tool_call_id": "c1"}),
        ChatMessage(role="assistant", blocks=[ThinkingBlock(content="secret")]),
    ):
        memory.put(ChatMessage("Hi"))
        memory.put(message)
    face.whole(llm, "chat", memory.get_all())
    sent = server.requests[-1].body["messages"]
    assert [message["content"] for message in sent[1:4:2]] == ["Hello there", "Hello there"]
    assert "secret" not in str(sent)
    assert "Hm, a" not in str(sent)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # what LlamaIndex does with Pydantic
def test_an_agent_sees_the_reasoning(serve: Serve) -> None:
    agent = FunctionAgent(llm=WorkersAI(**connection(serve(GREETING))), tools=[WEATHER])

    async def thoughts() -> list[str | None]:
        handler = agent.run("Hi")
        found = [event.thinking_delta async for event in handler.stream_events() if isinstance(event, AgentStream)]
        assert str(await handler) == "Hello there"
        return found

    assert [thought for thought in asyncio.run(thoughts()) if thought] == ["Hm, ", "a greeting."]


def test_a_response_of_reasoning_alone_says_so(face: Face, serve: Serve) -> None:
    llm = WorkersAI(**connection(serve(ONLY_THOUGHTS)))
    responses = [face.whole(llm, "chat", HI), face.pieces(llm, "chat", HI)[-1]]
    for response in responses:
        assert response.message.content == ""
        assert blocks_of(response) == [("thinking", "Well, let me see"), ("text", None)]
    responses += [face.whole(llm, "complete", "Hi"), face.pieces(llm, "complete", "Hi")[-1]]
    for response in responses:
        assert (response.raw["finish_reason"], response.raw["reasoning_only"]) == ("length", True)


def test_structured_output_says_that_the_model_ran_out_of_tokens(face: Face, serve: Serve) -> None:
    llm = WorkersAI(**connection(serve(ONLY_THOUGHTS)))
    prompt = PromptTemplate("Who?")
    with pytest.raises(StructuredOutputError, match=OUT_OF_TOKENS):
        face.whole(llm, "structured_predict", Person, prompt=prompt)
    with pytest.raises(StructuredOutputError, match=OUT_OF_TOKENS):
        face.pieces(llm, "structured_predict", Person, prompt=prompt)
    by_function = WorkersAI(**connection(serve(ONLY_THOUGHTS)), pydantic_program_mode=PydanticProgramMode.FUNCTION)
    with pytest.raises(errors.ReasoningOnlyError, match=OUT_OF_TOKENS):
        face.whole(by_function, "structured_predict", Person, prompt=prompt)


@pytest.mark.parametrize("forced", [{"tool_required": True}, {"tool_choice": "get_weather"}])
def test_a_forced_call_that_only_brought_reasoning_is_an_error(
    face: Face, serve: Serve, forced: dict[str, Any]
) -> None:
    llm = WorkersAI(**connection(serve(ONLY_THOUGHTS)))
    with pytest.raises(errors.ReasoningOnlyError, match=OUT_OF_TOKENS):
        face.whole(llm, "chat_with_tools", [WEATHER], user_msg="Hi", **forced)
    with pytest.raises(errors.ReasoningOnlyError, match=OUT_OF_TOKENS):
        face.pieces(llm, "chat_with_tools", [WEATHER], user_msg="Hi", **forced)


def test_a_missing_call_is_explained(face: Face, serve: Serve) -> None:
    llm = WorkersAI(**connection(serve(ONLY_THOUGHTS)))
    response = face.whole(llm, "chat_with_tools", [WEATHER], user_msg="Hi")
    with pytest.raises(ValueError, match=OUT_OF_TOKENS):
        llm.get_tool_calls_from_response(response)
    assert llm.get_tool_calls_from_response(response, error_on_no_tool_call=False) == []
    with pytest.raises(ValueError, match=OUT_OF_TOKENS):
        face.whole(llm, "predict_and_call", [WEATHER], user_msg="Hi")
