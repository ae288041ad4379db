"""LangChain's messages <-> the values of ``workersai``. Nothing else translates between the two."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
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
from langchain_core.utils.json import parse_partial_json

from workersai.errors import BadRequestError
from workersai.protocol.values import ROLES, Completion, Delta, InvalidToolCall, Message, Role, ToolCall, Usage

_ROLES: tuple[tuple[type[BaseMessage], Role], ...] = (
    (HumanMessage, "user"),
    (SystemMessage, "system"),
)

# Blocks of an assistant's turn that are no text for the model: calls stand in tool_calls, and the thoughts of
# another model are not this one's words. This model's own reasoning is not sent back either: newer routes may take it
# as the message's ``reasoning``, but Llama's schema has no such field (wire.md#requests).
_NOT_SAID = frozenset(
    {
        "redacted_thinking",
        "tool_call",
        "tool_call_chunk",
        "invalid_tool_call",
        "tool_use",
        "function_call",
        "reasoning",
        "reasoning_content",
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
    text = _text(message, where)
    if isinstance(message, ToolMessage):
        return Message("tool", _tool_answer(message, text), tool_call_id=message.tool_call_id, name=message.name)
    if not isinstance(message, AIMessage):
        return Message(_role(message, where), text, name=message.name)
    return Message(
        "assistant",
        text,
        tool_calls=tuple(
            ToolCall(id=call["id"] or "", name=call["name"], arguments=call["args"]) for call in message.tool_calls
        ),
        invalid_tool_calls=tuple(
            InvalidToolCall(
                id=call["id"] or "", name=call["name"] or "", arguments=call["args"] or "", error=call["error"] or ""
            )
            for call in message.invalid_tool_calls
        ),
        name=message.name,
    )


def _tool_answer(message: ToolMessage, text: str) -> str:
    """The service has no status of a tool's answer: that the tool failed is told in words."""
    failed = message.status == "error" and not text.lower().startswith("error")
    return f"Error: {text}" if failed else text


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
        additional_kwargs=_reasoning(completion.reasoning),
        tool_calls=[tool_call(name=call.name, args=dict(call.arguments), id=call.id) for call in completion.tool_calls],
        invalid_tool_calls=[
            invalid_tool_call(name=call.name, args=call.arguments, id=call.id, error=call.error)
            for call in completion.invalid_tool_calls
        ],
        usage_metadata=_usage_to_langchain(completion.usage),
        response_metadata=metadata_of(completion),
    )


class ChunkWriter:
    """The pieces of one streamed answer as LangChain's chunks.

    Args:
        with_usage: Whether the last chunk carries the usage.
    """

    def __init__(self, *, with_usage: bool) -> None:
        self._with_usage = with_usage
        self._index_of: dict[str, int] = {}  # of a call, by its id

    def chunk(self, delta: Delta) -> AIMessageChunk:
        """The next chunk."""
        if delta.completion is not None:
            return self._last(delta.completion)
        piece = delta.tool_call
        if piece is None:
            return AIMessageChunk(content=delta.text, additional_kwargs=_reasoning(delta.reasoning))
        index = _FIRST_CALL + piece.index
        if piece.id is not None:
            self._index_of[piece.id] = index
        chunk = tool_call_chunk(name=piece.name, args=piece.arguments, id=piece.id, index=index)
        return AIMessageChunk(content=delta.text, tool_call_chunks=[chunk])

    def _last(self, completion: Completion) -> AIMessageChunk:
        """Metadata goes on the last chunk alone: LangChain joins the strings of chunks that it adds up."""
        return AIMessageChunk(
            content="",
            tool_call_chunks=[
                tool_call_chunk(name=None, args=_spoiler(call.arguments), id=None, index=self._index_of[call.id])
                for call in completion.invalid_tool_calls
                if call.id in self._index_of
            ],
            usage_metadata=_usage_to_langchain(completion.usage) if self._with_usage else None,
            response_metadata=metadata_of(completion),
            chunk_position="last",
        )


def _spoiler(arguments: str) -> str:
    """What makes broken arguments stay broken: a bracket that closes nothing.

    LangChain mends the arguments of a streamed call as well as it can, also when no more of them will come: a path that
    was cut off halfway would be carried out as if it were whole.
    """
    for spoiler in ("", "]", '"]', '\\"]'):
        try:
            mended = parse_partial_json(arguments + spoiler) if arguments + spoiler else {}
        except ValueError:
            return spoiler
        if not isinstance(mended, dict):
            return spoiler
    return "]"


def _reasoning(text: str) -> dict[str, Any]:
    """Reasoning where LangChain looks for it to make the first of a message's ``content_blocks``, whole or in chunks.

    It is not in ``content``, so that ``text`` and what reads it never take the model's thoughts for its answer.
    """
    return {"reasoning_content": text} if text else {}


def _usage_to_langchain(usage: Usage | None) -> UsageMetadata | None:
    if usage is None:
        return None
    return UsageMetadata(
        input_tokens=usage.prompt_tokens,
        output_tokens=usage.completion_tokens,
        total_tokens=usage.total_tokens,
        input_token_details=InputTokenDetails(cache_read=usage.cached_tokens),
    )


def metadata_of(completion: Completion) -> dict[str, Any]:
    """What else is known of an answer, as LangChain names it; what isn't known is left out."""
    metadata = {
        "model_name": completion.model,
        "model_provider": "cloudflare",
        "finish_reason": completion.finish_reason,
        "reasoning_only": completion.reasoning_only or None,
        "request_id": completion.request_id,
        "dropped_tool_calls": [asdict(call) for call in completion.dropped_tool_calls] or None,
        "trimmed": completion.trimmed and asdict(completion.trimmed),
        "cost_usd": completion.usage and completion.usage.cost_usd,
        "saved_usd": completion.usage and (completion.usage.saved_usd or None),
        "cache_status": completion.cache_status,
        "gateway_log_id": completion.gateway_log_id,
    }
    return {key: value for key, value in metadata.items() if value is not None}
