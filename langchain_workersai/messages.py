"""LangChain's messages <-> the values of ``workersai``. Nothing else translates between the two."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ChatMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.messages.ai import InputTokenDetails, UsageMetadata
from langchain_core.messages.tool import invalid_tool_call, tool_call, tool_call_chunk

from workersai.errors import BadRequestError
from workersai.protocol.values import ROLES, Completion, Delta, Message, Role, ToolCall, Usage

_ROLES: tuple[tuple[type[BaseMessage], Role], ...] = (
    (HumanMessage, "user"),
    (AIMessage, "assistant"),
    (SystemMessage, "system"),
    (ToolMessage, "tool"),
)

# Blocks of an assistant's turn that are no text for the model: calls stand in tool_calls, and the thoughts of
# another model are not this one's words.
_NOT_SAID = frozenset(
    {
        "redacted_thinking",
        "tool_call",
        "tool_call_chunk",
        "invalid_tool_call",
        "tool_use",
        "function_call",
        "reasoning",
        "thinking",
    }
)


# With output_version="v1" LangChain numbers the text blocks of a stream from 0 and merges blocks of one number: calls
# are numbered where no text block comes.
_FIRST_CALL = 1_000


def messages_from_langchain(messages: Sequence[BaseMessage]) -> list[Message]:
    """The conversation in the service's terms.

    Raises:
        BadRequestError: a message has a role that the service lacks, or holds something other than text.
    """
    return [_message_from_langchain(message, f"messages[{index}]") for index, message in enumerate(messages)]


def _message_from_langchain(message: BaseMessage, where: str) -> Message:
    calls: list[ToolCall] = []
    said = [_text(message, where)]
    if isinstance(message, AIMessage):
        calls = [
            ToolCall(id=call["id"] or "", name=call["name"], arguments=call["args"]) for call in message.tool_calls
        ]
        # A call whose arguments are no JSON can't be sent as one; as text the model still sees what it wrote.
        said += [f'{{"name":"{call["name"]}","parameters":{call["args"]}}}' for call in message.invalid_tool_calls]
    return Message(
        role=_role(message, where),
        content="\n".join(filter(None, said)),
        tool_calls=calls,
        tool_call_id=message.tool_call_id if isinstance(message, ToolMessage) else None,
        name=message.name,
    )


def _role(message: BaseMessage, where: str) -> Role:
    for kind, role in _ROLES:
        if isinstance(message, kind):
            return role
    if isinstance(message, ChatMessage):
        for known in ROLES:
            if message.role == known:
                return known
    named = getattr(message, "role", message.type)
    raise BadRequestError(f"{where}: the service knows no role {named!r}; it knows {', '.join(ROLES)}.")


def _text(message: BaseMessage, where: str) -> str:
    if isinstance(message.content, str):
        return message.content
    texts: list[str] = []
    for block in message.content:
        kind = "text" if isinstance(block, str) else block.get("type")
        if kind == "text":
            text = block if isinstance(block, str) else block.get("text")
            if not isinstance(text, str):
                raise BadRequestError(f"{where} holds a text block without its text.")
            texts.append(text)
        elif not (isinstance(message, AIMessage) and isinstance(kind, str) and kind in _NOT_SAID):
            raise BadRequestError(f"{where} holds a block of type {kind!r}: this model takes text only.")
    # The blocks of an answer are one text that was streamed in parts; those of another message stand side by side.
    return ("" if isinstance(message, AIMessage) else "\n").join(texts)


def message_to_langchain(completion: Completion) -> AIMessage:
    """A whole answer as LangChain's message."""
    return AIMessage(
        content=completion.text,
        tool_calls=[tool_call(name=call.name, args=dict(call.arguments), id=call.id) for call in completion.tool_calls],
        invalid_tool_calls=[
            invalid_tool_call(name=call.name, args=call.arguments, id=call.id, error=call.error)
            for call in completion.invalid_tool_calls
        ],
        usage_metadata=_usage_to_langchain(completion.usage),
        response_metadata=_metadata(completion),
    )


def chunk_to_langchain(delta: Delta, *, with_usage: bool) -> AIMessageChunk:
    """A piece of a streamed answer as LangChain's chunk.

    Metadata goes on the last piece alone: LangChain joins the strings of chunks that it adds up.
    """
    if delta.completion is not None:
        return AIMessageChunk(
            content=delta.text,
            usage_metadata=_usage_to_langchain(delta.usage) if with_usage else None,
            response_metadata=_metadata(delta.completion),
            chunk_position="last",
        )
    if delta.tool_call is None:
        return AIMessageChunk(content=delta.text)
    piece = delta.tool_call
    return AIMessageChunk(
        content=delta.text,
        tool_call_chunks=[
            tool_call_chunk(name=piece.name, args=piece.arguments, id=piece.id, index=_FIRST_CALL + piece.index)
        ],
    )


def _usage_to_langchain(usage: Usage | None) -> UsageMetadata | None:
    if usage is None:
        return None
    return UsageMetadata(
        input_tokens=usage.prompt_tokens,
        output_tokens=usage.completion_tokens,
        total_tokens=usage.total_tokens,
        input_token_details=InputTokenDetails(cache_read=usage.cached_tokens),
    )


def _metadata(completion: Completion) -> dict[str, Any]:
    metadata = {
        "model_name": completion.model,
        "model_provider": "cloudflare",
        "finish_reason": completion.finish_reason,
        "request_id": completion.request_id,
    }
    return {key: value for key, value in metadata.items() if value is not None}
