from typing import Any

import pytest
from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    RemoveMessage,
    SystemMessage,
    ToolMessage,
)

from langchain_workersai.messages import messages_from_langchain
from workersai import InvalidToolCall, Message, ToolCall
from workersai.errors import BadRequestError


def test_each_kind_of_message_has_its_role() -> None:
    assert messages_from_langchain(
        [SystemMessage("s"), HumanMessage("h", name="Ann"), AIMessage("a"), ChatMessage(content="c", role="system")]
    ) == [
        Message("system", "s"),
        Message("user", "h", name="Ann"),
        Message("assistant", "a"),
        Message("system", "c"),
    ]


def test_calls_and_their_results_go_along() -> None:
    call = {"id": "c1", "name": "f", "args": {"a": 1}, "type": "tool_call"}
    assistant, tool = messages_from_langchain(
        [AIMessage("", tool_calls=[call]), ToolMessage("42", tool_call_id="c1", name="f")]
    )
    assert assistant.tool_calls == (ToolCall("c1", "f", {"a": 1}),)
    assert (tool.role, tool.content, tool.tool_call_id, tool.name) == ("tool", "42", "c1", "f")


def test_a_call_with_broken_arguments_stays_in_the_history() -> None:
    call = {"id": "c1", "name": "f", "args": '{"a": ', "error": "cut", "type": "invalid_tool_call"}
    (message,) = messages_from_langchain([AIMessage("Let me look.", invalid_tool_calls=[call])])
    assert message == Message(
        "assistant", "Let me look.", invalid_tool_calls=(InvalidToolCall("c1", "f", '{"a": ', "cut"),)
    )


@pytest.mark.parametrize(
    ("status", "content", "told"),
    [
        ("success", "no luck", "no luck"),
        ("error", "no luck", "Error: no luck"),
        ("error", "Error: no luck", "Error: no luck"),
    ],
)
def test_the_model_is_told_that_a_tool_failed(status: Any, content: str, told: str) -> None:
    (message,) = messages_from_langchain([ToolMessage(content, tool_call_id="c1", status=status)])
    assert message.content == told


def test_blocks_of_text_are_joined_by_lines() -> None:
    (message,) = messages_from_langchain([HumanMessage(["one", {"type": "text", "text": "two"}])])
    assert message.content == "one\ntwo"


def test_blocks_of_an_answers_text_are_one_text() -> None:
    (message,) = messages_from_langchain([AIMessage([{"type": "text", "text": "It is "}, "sunny."])])
    assert message.content == "It is sunny."


def test_blocks_of_an_answer_that_are_no_text_of_it_are_left_out() -> None:
    content: list[str | dict[str, Any]] = [
        {"type": "reasoning", "reasoning": "hm"},
        {"type": "text", "text": "yes"},
        {"type": "tool_call", "id": "1", "name": "f", "args": {}},
    ]
    (message,) = messages_from_langchain([AIMessage(content)])
    assert message.content == "yes"


@pytest.mark.parametrize(
    ("message", "says"),
    [
        (ChatMessage(content="x", role="critic"), r"messages\[1\]: the service knows no role 'critic'"),
        (FunctionMessage(content="x", name="f"), "no role 'function'"),
        (RemoveMessage(id="1"), "no role 'remove'"),
        (HumanMessage([{"type": "image_url", "image_url": {"url": "x"}}]), "block of type 'image_url'.*text only"),
        (HumanMessage([{"type": "image", "url": "x"}]), r"messages\[1\] holds a block of type 'image'"),
        (HumanMessage([{"type": "audio", "base64": "x"}]), "block of type 'audio'"),
        (HumanMessage([{"type": "file", "url": "x"}]), "block of type 'file'"),
        (HumanMessage([{"type": "reasoning", "reasoning": "x"}]), "block of type 'reasoning'"),
        (HumanMessage([{"x": 1}]), "block of type None"),
        (AIMessage([{"type": ["x"]}]), "block of type"),
        (HumanMessage([{"type": "text"}]), "text block without its text"),
    ],
)
def test_what_the_service_cannot_take_is_refused_by_name(message: BaseMessage, says: str) -> None:
    with pytest.raises(BadRequestError, match=says):
        messages_from_langchain([HumanMessage("ok"), message])
