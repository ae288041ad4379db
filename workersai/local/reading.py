"""From a checked ``/run`` body to a :class:`GenerationRequest`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from workersai.catalog import SERVICE_MAX_TOKENS
from workersai.local.engine import ChatMessage, GenerationRequest, Sampling

_SAMPLING_KEYS = tuple(item.name for item in fields(Sampling))
_ANY_OBJECT = {"type": "object"}


def request_from_body(
    body: Mapping[str, Any],
    *,
    model: str,
    session_affinity: bool = False,
    stop: tuple[str, ...] = (),
    template: bool = True,
) -> GenerationRequest:
    """What ``body``, which has passed :func:`~workersai.local.validation.run_body`, asks for.

    Without ``template``, no prompt gets a chat template, be it raw or not.
    """
    return GenerationRequest(
        messages=tuple(_message(message) for message in body.get("messages", ())),
        prompt=body.get("prompt"),
        model=model,
        raw=body.get("raw", False) or ("prompt" in body and not template),
        max_tokens=int(body.get("max_tokens", SERVICE_MAX_TOKENS)),
        sampling=Sampling(**{key: body[key] for key in _SAMPLING_KEYS if key in body}),
        json_schema=_json_schema(body.get("response_format")),
        tools=tuple(body.get("tools", ())),
        tool_choice=body.get("tool_choice"),
        stream=body.get("stream", False),
        stop=stop,
        session_affinity=session_affinity,
    )


def _message(message: Mapping[str, Any]) -> ChatMessage:
    return ChatMessage(
        role=message["role"],
        content=message["content"],
        name=message.get("name"),
        tool_call_id=message.get("tool_call_id"),
        tool_calls=tuple(message.get("tool_calls", ())),
    )


def _json_schema(wanted: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    if wanted is None:
        return None
    schema: Mapping[str, Any] = wanted["json_schema"] if wanted["type"] == "json_schema" else _ANY_OBJECT
    return schema
