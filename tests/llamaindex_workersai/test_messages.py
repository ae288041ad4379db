import pytest
from llama_index.core.base.llms.types import (
    AudioBlock,
    CachePoint,
    ChatMessage,
    DocumentBlock,
    ImageBlock,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)

from llamaindex_workersai.messages import messages_from_llamaindex
from workersai import Message, ToolCall
from workersai.errors import BadRequestError


def test_each_role_that_the_service_has_is_kept() -> None:
    given = [ChatMessage("x", role=role) for role in ("system", "user", "assistant", "tool")]
    assert [message.role for message in messages_from_llamaindex(given)] == ["system", "user", "assistant", "tool"]


def test_blocks_of_text_are_joined_by_lines() -> None:
    (message,) = messages_from_llamaindex([ChatMessage(blocks=[TextBlock(text="one"), TextBlock(text="two")])])
    assert message == Message("user", "one\ntwo")


def test_calls_and_their_results_go_along() -> None:
    call = ToolCallBlock(tool_call_id="c1", tool_name="f", tool_kwargs={"a": 1})
    assistant, tool = messages_from_llamaindex(
        [
            ChatMessage(role="assistant", blocks=[ThinkingBlock(content="hm"), TextBlock(text="yes"), call]),
            ChatMessage(role="tool", content="42", additional_kwargs={"tool_call_id": "c1", "name": "f"}),
        ]
    )
    assert (assistant.content, assistant.tool_calls) == ("yes", (ToolCall("c1", "f", {"a": 1}),))
    assert (tool.content, tool.tool_call_id, tool.name) == ("42", "c1", "f")


def test_arguments_may_be_text_and_broken_ones_stay_in_the_history() -> None:
    blocks = [
        ToolCallBlock(tool_call_id=f"c{index}", tool_name="f", tool_kwargs=text)
        for index, text in enumerate(['{"a": 1}', "", '{"a": ', "[1]"])
    ]
    (message,) = messages_from_llamaindex([ChatMessage(role=MessageRole.ASSISTANT, blocks=blocks)])
    assert message.tool_calls == (ToolCall("c0", "f", {"a": 1}), ToolCall("c1", "f", {}))
    assert [(call.id, call.arguments) for call in message.invalid_tool_calls] == [("c2", '{"a": '), ("c3", "[1]")]


def test_calls_may_stand_in_the_additional_arguments_as_older_histories_have_them() -> None:
    listed = [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}]
    (message,) = messages_from_llamaindex(
        [ChatMessage(role=MessageRole.ASSISTANT, content="", additional_kwargs={"tool_calls": listed})]
    )
    assert message.tool_calls == (ToolCall("c1", "f", {"a": 1}),)


@pytest.mark.parametrize(
    ("message", "says"),
    [
        *((ChatMessage("x", role=role), f"no role '{role}'") for role in ("developer", "function", "chatbot", "model")),
        (ChatMessage(blocks=[ImageBlock(image=b"x")]), r"messages\[1\] holds a ImageBlock: this model takes text only"),
        (ChatMessage(blocks=[TextBlock(text="see"), AudioBlock(audio=b"x")]), "AudioBlock"),
        (ChatMessage(blocks=[DocumentBlock(data=b"x")]), "DocumentBlock"),
        (ChatMessage("", role="assistant", additional_kwargs={"tool_calls": ["x"]}), "must be a list of dicts"),
        (ChatMessage(blocks=[CachePoint(cache_control={"type": "ephemeral"})]), "CachePoint"),  # type: ignore[arg-type]
    ],
)
def test_what_the_service_cannot_take_is_refused_by_name(message: ChatMessage, says: str) -> None:
    with pytest.raises(BadRequestError, match=says):
        messages_from_llamaindex([ChatMessage("ok"), message])
