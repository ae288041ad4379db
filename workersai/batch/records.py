"""Requests, answers and errors as the journal keeps them: JSON text, and back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from pydantic import TypeAdapter

from workersai import errors
from workersai.batch.values import BatchRequest
from workersai.errors import BadRequestError, WorkersAIError
from workersai.protocol.json_mode import response_format_to_json
from workersai.protocol.request import IN_BODY, Input, json_text
from workersai.protocol.tools import tool_to_openai, tools_of
from workersai.protocol.values import Completion, Message

BATCH_INPUT = "batch_input"
SHAPING = (
    "model",
    *IN_BODY,
    "prompt_form",
    BATCH_INPUT,
    "max_tokens",
    "default_max_tokens",
    "on_overflow",
    "stop",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "response_format",
)
"""The options that decide what is answered; the others say how it is asked for."""

_COMPLETION = TypeAdapter(Completion)
_MESSAGES = TypeAdapter(list[Message])
_PLAIN = {"role", "content", "tool_call_id", "name"}


def options_to_json(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options as JSON can hold them: tools and a response format become the schemas that they stand for.

    Raises:
        BadRequestError: they are none that the service could take.
    """
    told = dict(options)
    if told.get("tools"):
        told["tools"] = [tool_to_openai(tool) for tool in tools_of(told["tools"])]
    if told.get("response_format") is not None:
        told["response_format"] = response_format_to_json(told["response_format"])
    plain: dict[str, Any] = json.loads(json_text(told))
    return plain


def request_to_json(request: BatchRequest) -> str:
    """A request as text; equal requests have equal texts."""
    told: dict[str, Any] = {}
    if isinstance(request.input, str):
        told["prompt"] = request.input
    elif all(isinstance(message, Mapping) for message in request.input):
        told["messages"] = list(request.input)
    else:
        told["messages"] = [_message_to_json(message) for message in request.input]
    if request.options:
        told["options"] = options_to_json(request.options)
    return json_text(told)


def request_from_json(text: str, reference: str, metadata: str | None) -> BatchRequest:
    """The request again."""
    told: dict[str, Any] = json.loads(text)
    return BatchRequest(
        told["prompt"] if "prompt" in told else _input_from_json(told["messages"]),
        reference,
        told.get("options", {}),
        json.loads(metadata) if metadata else {},
    )


def completion_to_json(completion: Completion) -> str:
    """An answer as text, in ASCII, which also holds halves of surrogate pairs; NaN stays NaN."""
    return json.dumps(_COMPLETION.dump_python(completion, exclude_defaults=True))


def completion_from_json(text: str) -> Completion:
    """The answer again."""
    return _COMPLETION.validate_python(json.loads(text))


def error_to_json(error: WorkersAIError) -> str:
    """An error as text, without the piece of an answer that it may hold."""
    known = next(kind for kind in type(error).__mro__ if getattr(errors, kind.__name__, None) is kind)
    facts = {name: value for name, value in error.facts().items() if value is not None and name != "partial"}
    return json.dumps({"class": known.__name__, "message": error.message, "facts": facts})


def error_from_json(text: str) -> WorkersAIError:
    """The error again."""
    told = json.loads(text)
    kind: type[WorkersAIError] = getattr(errors, told["class"])
    return kind(told["message"], **told["facts"])


def metadata_to_json(metadata: Mapping[str, Any]) -> str | None:
    """Metadata as text; None for none.

    Raises:
        BadRequestError: JSON can't hold it.
    """
    try:
        return json_text(dict(metadata)) if metadata else None
    except BadRequestError as error:
        raise BadRequestError(f"metadata: {error.message}") from None


def _message_to_json(message: Message | Mapping[str, Any]) -> Mapping[str, Any]:
    if not isinstance(message, Message):
        return message
    if not message.tool_calls and not message.invalid_tool_calls:
        told = {"role": message.role, "content": message.content}
        own = {"tool_call_id": message.tool_call_id, "name": message.name}
        return told | {name: value for name, value in own.items() if value is not None}
    plain = replace(message, tool_calls=tuple(message.tool_calls), invalid_tool_calls=tuple(message.invalid_tool_calls))
    told_whole: list[dict[str, Any]] = _MESSAGES.dump_python([plain], mode="json")
    return told_whole[0]


def _input_from_json(messages: Sequence[dict[str, Any]]) -> Input:
    if all(message.keys() <= _PLAIN for message in messages):
        return cast("Input", messages)
    return [message if message.keys() <= _PLAIN else _MESSAGES.validate_python([message])[0] for message in messages]
