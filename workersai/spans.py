"""What a span says of a call: the attributes of its request and its answer, by the names of the GenAI conventions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from pydantic_core import from_json

from workersai.calls import Call, Operation
from workersai.protocol.embeddings import Embeddings
from workersai.protocol.request import json_text
from workersai.protocol.values import Completion, Usage

Attributes = dict[str, "str | bool | int | float | Sequence[str]"]

GATEWAY_HEADER = "cf-aig-gateway-id"

PROVIDER = "cloudflare.workers_ai"
"""The conventions list no name for it."""

_SETTINGS = ("temperature", "top_p", "top_k", "seed", "max_tokens", "frequency_penalty", "presence_penalty")
_DEFAULT_PORTS = {"https": 443, "http": 80}


def asked_of(call: Call, operation: Operation) -> Attributes:
    """What the request of a call says, its words aside."""
    url = urlsplit(call.request.url)
    found: Attributes = {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": PROVIDER,
        "gen_ai.request.model": call.asked.model,
        "server.address": url.hostname or "",
        "server.port": url.port or _DEFAULT_PORTS[url.scheme],
    }
    if operation in ("chat", "text_completion"):
        found |= _settings_of(call)
    names = {"workersai.session_affinity": "x-session-affinity", "workersai.gateway": GATEWAY_HEADER}
    headers = call.request.headers
    return found | {name: str(headers[header]) for name, header in names.items() if header in headers}


def _settings_of(call: Call) -> Attributes:
    body = _body_of(call)
    found: Attributes = {f"gen_ai.request.{name}": body[name] for name in _SETTINGS if name in body}
    if call.asked.stop:
        found["gen_ai.request.stop_sequences"] = list(call.asked.stop)
    if body.get("stream"):
        found["gen_ai.request.stream"] = True
    in_json = "response_format" in body or call.in_json is not None
    return {**found, "gen_ai.output.type": "json" if in_json else "text"}


def answer_of(found: Any) -> Attributes:
    """What an answer of any kind says of itself, its words aside."""
    told: Attributes = {}
    usage: Usage | None = getattr(found, "usage", None)
    if usage is not None:
        told["gen_ai.usage.input_tokens"] = usage.prompt_tokens
        told["gen_ai.usage.output_tokens"] = usage.completion_tokens
        if usage.cached_tokens:
            told["gen_ai.usage.cache_read.input_tokens"] = usage.cached_tokens
        if usage.cost_usd is not None:
            told["workersai.cost_usd"] = usage.cost_usd
    for name, field in (("gen_ai.response.model", "model"), ("workersai.cache_status", "cache_status")):
        if (value := getattr(found, field, None)) is not None:
            told[name] = value
    if isinstance(found, Completion) and found.finish_reason is not None:
        told["gen_ai.response.finish_reasons"] = [found.finish_reason]
    if isinstance(found, Embeddings) and found.vectors:
        told["gen_ai.embeddings.dimension.count"] = len(found.vectors[0])
    return told


def content_of(call: Call) -> Attributes:
    """What was said to the model, and the tools that it was offered."""
    body = _body_of(call)
    messages = body.get("messages") or [{"role": "user", "content": text} for text in _texts_of(body)]
    told: dict[str, Any] = {
        "gen_ai.system_instructions": [_text(each["content"]) for each in messages if each["role"] == "system"],
        "gen_ai.input.messages": [_message(each) for each in messages if each["role"] != "system"],
        "gen_ai.tool.definitions": body.get("tools"),
    }
    return {name: json_text(value) for name, value in told.items() if value}


def written_of(completion: Completion) -> Attributes:
    """What the model wrote."""
    parts = [{"type": "reasoning", "content": completion.reasoning}] if completion.reasoning else []
    parts += [_text(completion.text)] if completion.text else []
    calls = [_called(call.id, call.name, dict(call.arguments)) for call in completion.tool_calls]
    broken = [_called(call.id, call.name, call.arguments) for call in completion.invalid_tool_calls]
    reason = "tool_call" if completion.finish_reason == "tool_calls" else completion.finish_reason
    message = {"role": "assistant", "parts": [*parts, *calls, *broken], "finish_reason": reason or "stop"}
    return {"gen_ai.output.messages": json_text([message])}


def _body_of(call: Call) -> dict[str, Any]:
    body: dict[str, Any] = from_json(call.request.content)
    return body


def _texts_of(body: Mapping[str, Any]) -> list[str]:
    if "contexts" in body:
        return [body["query"], *(context["text"] for context in body["contexts"])]
    text = body.get("prompt", body.get("text"))
    return list(text) if isinstance(text, list) else [str(text)]


def _message(message: Mapping[str, Any]) -> dict[str, Any]:
    if message["role"] == "tool":
        answer = {"type": "tool_call_response", "id": message.get("tool_call_id"), "response": message["content"]}
        return {"role": "tool", "parts": [answer]}
    calls = [
        _called(call["id"], call["function"]["name"], from_json(call["function"]["arguments"]))
        for call in message.get("tool_calls", ())
    ]
    # What a history repeats in words is the same call (protocol/request.py).
    said = [] if calls or not message["content"] else [_text(message["content"])]
    return {"role": message["role"], "parts": [*said, *calls]}


def _text(content: str) -> dict[str, str]:
    return {"type": "text", "content": content}


def _called(id_: str, name: str, arguments: Any) -> dict[str, Any]:
    return {"type": "tool_call", "id": id_, "name": name, "arguments": arguments}
