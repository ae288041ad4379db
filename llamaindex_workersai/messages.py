"""LlamaIndex's messages and responses <-> the values of ``workersai``. Nothing else translates between the two."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from llama_index.core.base.llms.types import (
    CachePoint,
    ChatMessage,
    ChatResponse,
    CompletionResponse,
    ContentBlock,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)
from llama_index.core.llms.llm import ToolSelection
from pydantic import BaseModel
from pydantic_core import from_json

from workersai.errors import BadRequestError
from workersai.protocol.tool_calls import ToolCallAssembler, call_from_text
from workersai.protocol.values import ROLES, Completion, Delta, InvalidToolCall, Message, Role, ToolCall

# What an assistant's turn may hold beside its text: the thoughts of another model are not this one's words, and a
# cache point is a hint to a service that takes one. This model's own reasoning is not sent back either: newer routes
# may take it as the message's ``reasoning``, but Llama's schema has no such field (wire.md#requests).
_NOT_SAID = (ToolCallBlock, ThinkingBlock, CachePoint)


def messages_from_llamaindex(messages: Sequence[ChatMessage]) -> list[Message]:
    """The conversation in the service's terms.

    Raises:
        BadRequestError: a message has a role that the service lacks, or holds something other than text.
    """
    return [_message(message, f"messages[{index}]") for index, message in enumerate(messages)]


def _message(message: ChatMessage, where: str) -> Message:
    if not isinstance(message, ChatMessage):
        raise BadRequestError(f"{where} must be a ChatMessage, not {type(message).__name__}.")
    calls, invalid = _calls(message, where)
    return Message(
        role=_role(message, where),
        content=_text(message, where),
        tool_calls=calls,
        invalid_tool_calls=invalid,
        tool_call_id=message.additional_kwargs.get("tool_call_id"),
        name=message.additional_kwargs.get("name"),
    )


def _role(message: ChatMessage, where: str) -> Role:
    for role in ROLES:
        if message.role.value == role:
            return role
    raise BadRequestError(f"{where}: the service knows no role {message.role.value!r}; it knows {', '.join(ROLES)}.")


def _text(message: ChatMessage, where: str) -> str:
    for block in message.blocks:
        said = isinstance(block, TextBlock) or (message.role is MessageRole.ASSISTANT and isinstance(block, _NOT_SAID))
        if not said:
            raise BadRequestError(f"{where} holds a {type(block).__name__}: this model takes text only.")
    return message.content or ""


def _calls(message: ChatMessage, where: str) -> tuple[tuple[ToolCall, ...], tuple[InvalidToolCall, ...]]:
    blocks = [_call(block) for block in message.blocks if isinstance(block, ToolCallBlock)]
    listed = message.additional_kwargs.get("tool_calls")
    if blocks or not listed or message.role is not MessageRole.ASSISTANT:
        return (
            tuple(call for call in blocks if isinstance(call, ToolCall)),
            tuple(call for call in blocks if isinstance(call, InvalidToolCall)),
        )
    # Older histories have their calls here alone, as dicts or objects in OpenAI's shape.
    wires = [call.model_dump() if isinstance(call, BaseModel) else call for call in listed]
    if not all(isinstance(wire, dict) for wire in wires):
        raise BadRequestError(f"{where}: additional_kwargs['tool_calls'] must be a list of dicts in OpenAI's shape.")
    assembler = ToolCallAssembler()
    assembler.add(wires)
    return assembler.calls()


def _call(block: ToolCallBlock) -> ToolCall | InvalidToolCall:
    given = block.tool_kwargs
    # As text where they are broken, and in the calls of other models.
    text = given if isinstance(given, str) else json.dumps(given, ensure_ascii=False, default=str)
    call = call_from_text(block.tool_call_id or "", block.tool_name, text)
    return replace(call, arguments=given) if isinstance(call, ToolCall) and isinstance(given, dict) else call


def tool_selections(message: ChatMessage) -> list[ToolSelection]:
    """The calls in an answer, for LlamaIndex to carry out.

    LlamaIndex has no calls with broken arguments, and would carry one out without any. Such a call is handed over with
    arguments that no tool takes, so that the failure tells the model; its text stays in the message, too.
    """
    selections = []
    for call in (_call(block) for block in message.blocks if isinstance(block, ToolCallBlock)):
        if isinstance(call, ToolCall):
            arguments = dict(call.arguments)
        else:
            # Two of them: LlamaIndex hands a single one to a tool of one parameter whatever it is called.
            arguments = {"broken arguments": call.arguments, "what is wrong": call.error}
        selections.append(ToolSelection(tool_id=call.id, tool_name=call.name, tool_kwargs=arguments))
    return selections


def chat_response(completion: Completion) -> ChatResponse:
    """A whole answer to a chat."""
    return ChatResponse(
        message=_message_to_llamaindex(completion), raw=_raw(completion), additional_kwargs=_usage(completion)
    )


def completion_response(completion: Completion) -> CompletionResponse:
    """A whole answer to a prompt; it has no place for calls but ``additional_kwargs``."""
    thinking = {"thinking": completion.reasoning} if completion.reasoning else {}
    told = {**_usage(completion), **_message_to_llamaindex(completion).additional_kwargs, **thinking}
    return CompletionResponse(text=completion.text, raw=_raw(completion), additional_kwargs=told)


class GrowingResponse:
    """The responses of one stream: LlamaIndex's hold the text and the calls so far beside the new piece.

    A new piece of reasoning is in ``additional_kwargs["thinking_delta"]``, where LlamaIndex's agents look for it.
    """

    def __init__(self) -> None:
        self._text = ""
        self._reasoning = ""
        self._calls: dict[int, _GrowingCall] = {}

    def chat(self, delta: Delta) -> ChatResponse:
        """The answer to a chat, grown by ``delta``; the last one is the whole answer."""
        if delta.completion is not None:
            return chat_response(delta.completion).model_copy(update={"delta": delta.text})
        self._text += delta.text
        self._reasoning += delta.reasoning
        piece = delta.tool_call
        if piece is not None:
            call = self._calls.setdefault(piece.index, _GrowingCall(piece.id or "", piece.name or ""))
            call.arguments += piece.arguments
        message = _assistant(self._text, [call.block() for call in self._calls.values()], self._reasoning)
        return ChatResponse(message=message, delta=delta.text, additional_kwargs=_thinking_delta(delta))

    def completion(self, delta: Delta) -> CompletionResponse:
        """The answer to a prompt, grown by ``delta``; the last one is the whole answer."""
        if delta.completion is not None:
            return completion_response(delta.completion).model_copy(update={"delta": delta.text})
        self._text += delta.text
        return CompletionResponse(text=self._text, delta=delta.text, additional_kwargs=_thinking_delta(delta))


def _thinking_delta(delta: Delta) -> dict[str, Any]:
    return {"thinking_delta": delta.reasoning} if delta.reasoning else {}


@dataclass
class _GrowingCall:
    id: str
    name: str
    arguments: str = ""

    def block(self) -> ToolCallBlock:
        """The call with those of its arguments that have come."""
        try:
            arguments = from_json(self.arguments or "{}", allow_partial="trailing-strings")
        except ValueError:
            arguments = {}
        return ToolCallBlock(
            tool_call_id=self.id, tool_name=self.name, tool_kwargs=arguments if isinstance(arguments, dict) else {}
        )


def _message_to_llamaindex(completion: Completion) -> ChatMessage:
    calls = [
        ToolCallBlock(tool_call_id=call.id, tool_name=call.name, tool_kwargs=dict(call.arguments))
        for call in completion.tool_calls
    ]
    broken = [
        ToolCallBlock(tool_call_id=call.id, tool_name=call.name, tool_kwargs=call.arguments)
        for call in completion.invalid_tool_calls
    ]
    return _assistant(completion.text, [*calls, *broken], completion.reasoning)


def _assistant(text: str, calls: Sequence[ToolCallBlock], reasoning: str) -> ChatMessage:
    if not calls and not reasoning:
        return ChatMessage(role=MessageRole.ASSISTANT, content=text)
    blocks: list[ContentBlock] = [ThinkingBlock(content=reasoning)] if reasoning else []
    if text or not calls:
        blocks.append(TextBlock(text=text))
    if not calls:
        return ChatMessage(role=MessageRole.ASSISTANT, blocks=blocks)
    # LlamaIndex's memory and programs look here for calls; their blocks are what is read back.
    listed = [{"id": call.tool_call_id, "name": call.tool_name, "arguments": call.tool_kwargs} for call in calls]
    return ChatMessage(
        role=MessageRole.ASSISTANT,
        blocks=[*blocks, *calls],
        additional_kwargs={"tool_calls": listed},
    )


def _usage(completion: Completion) -> dict[str, Any]:
    """The token counts, under the names that LlamaIndex's own counters look for."""
    usage = completion.usage
    if usage is None:
        return {}
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
        "cached_tokens": usage.cached_tokens,
    }


def _raw(completion: Completion) -> dict[str, Any]:
    told = {
        "reasoning_only": completion.reasoning_only or None,
        "cost_usd": completion.usage and completion.usage.cost_usd,
        "saved_usd": completion.usage and (completion.usage.saved_usd or None),
        "dropped_tool_calls": list(map(asdict, completion.dropped_tool_calls)) or None,
        "trimmed": completion.trimmed and asdict(completion.trimmed),
        "cache_status": completion.cache_status,
        "gateway_log_id": completion.gateway_log_id,
    }
    return {
        "model": completion.model,
        "finish_reason": completion.finish_reason,
        "request_id": completion.request_id,
        "usage": _usage(completion),
        **{key: value for key, value in told.items() if value is not None},
    }
