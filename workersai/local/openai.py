"""The OpenAI-compatible twin: OpenAI's chat requests read as ``/run`` ones, and answers written in OpenAI's shapes."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from workersai.local.engine import CalledTool, End, GenerationRequest, PromptRead, TextPiece
from workersai.local.reading import request_from_body
from workersai.local.tools import function_of
from workersai.local.validation import Json, check_run_body, check_tool_choice
from workersai.local.wire import (
    DONE,
    Answer,
    WireError,
    bad_input,
    json_from_answer,
    sse,
    usage_to_wire,
)

# What both APIs call by the same name. Whatever else OpenAI's clients send is left unread.
_SAME = (
    "stream",
    "max_tokens",
    "temperature",
    "top_p",
    "top_k",
    "seed",
    "repetition_penalty",
    "frequency_penalty",
    "presence_penalty",
)
_MESSAGE_KEYS = ("role", "content", "name", "tool_call_id", "tool_calls")
# Stop strings that OpenAI's API takes at most.
_MAX_STOPS = 4


@dataclass(frozen=True)
class ChatRequest:
    """A chat request: what is to be answered, and whether a stream ends with the usage."""

    request: GenerationRequest
    include_usage: bool


def request_from_openai(body: Json, *, session_affinity: bool = False) -> ChatRequest:
    """What an OpenAI chat body asks for.

    Raises:
        WireError: it can't be served (5006).
    """
    body = {key: value for key, value in body.items() if value is not None}
    if body.get("n", 1) != 1:
        raise bad_input("'/n' must be 1")
    run_body = _run_body(body)
    check_run_body(run_body)
    request = request_from_body(
        run_body, model=body["model"], session_affinity=session_affinity, stop=_stops(body.get("stop", []))
    )
    # The tools are not held against the /run schema, which asks more of them than OpenAI's clients send.
    tools = _tools(body.get("tools", []))
    check_tool_choice(body)
    options = body.get("stream_options", {})
    return ChatRequest(
        replace(request, tools=tools, tool_choice=body.get("tool_choice")),
        include_usage=isinstance(options, Mapping) and options.get("include_usage") is True,
    )


class OpenAIDialect:
    """OpenAI's shapes, whole and streamed.

    Args:
        model: The name that each reply repeats.
        json_mode: The content must be JSON.
        include_usage: A stream ends with an event for the usage.
        tell_cached: The request named a session, so that ``usage`` tells the cached tokens.
    """

    def __init__(
        self, model: str, *, json_mode: bool = False, include_usage: bool = False, tell_cached: bool = False
    ) -> None:
        self._json_mode = json_mode
        self._include_usage = include_usage
        self._tell_cached = tell_cached
        self._id = f"chatcmpl-{secrets.token_hex(12)}"
        self._head = {"model": model, "created": int(time.time())}
        self._calls = 0

    def error(self, error: WireError) -> dict[str, Any]:
        """OpenAI's error body, with the service's code."""
        return openai_error(error)

    def whole(self, answer: Answer) -> dict[str, Any]:
        """A ``chat.completion``."""
        if self._json_mode and not answer.tool_calls:
            json_from_answer(answer.text, answer.end)
        message: dict[str, Any] = {"role": "assistant", "content": answer.text or None}
        if answer.tool_calls:
            message["tool_calls"] = [_call(call) for call in answer.tool_calls]
        else:
            message["content"] = answer.text
        return {
            "id": self._id,
            "object": "chat.completion",
            **self._head,
            "choices": [{"index": 0, "message": message, "finish_reason": answer.end.finish_reason}],
            "usage": usage_to_wire(answer.end.usage, tell_cached=self._tell_cached),
        }

    def opening(self, prompt: PromptRead) -> list[bytes]:
        """The role."""
        del prompt
        return [self._delta({"role": "assistant", "content": ""})]

    def piece(self, event: TextPiece | CalledTool) -> bytes:
        """A delta with text, or with one complete call."""
        if isinstance(event, TextPiece):
            return self._delta({"content": event.text})
        call = {"index": self._calls, **_call(event)}
        self._calls += 1
        return self._delta({"tool_calls": [call]})

    def closing(self, end: End) -> list[bytes]:
        """The finish reason, the usage where it was asked for, and the end."""
        last = self._delta({}, end.finish_reason)
        usage = usage_to_wire(end.usage, tell_cached=self._tell_cached)
        return [last, *([self._chunk([], usage)] if self._include_usage else []), DONE]

    def failure(self, error: WireError) -> bytes:
        """OpenAI's error body as an event."""
        return sse(self.error(error))

    def _delta(self, delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
        return self._chunk([{"index": 0, "delta": delta, "finish_reason": finish_reason}])

    def _chunk(self, choices: list[dict[str, Any]], usage: dict[str, Any] | None = None) -> bytes:
        head = {"id": self._id, "object": "chat.completion.chunk", **self._head}
        return sse({**head, "choices": choices, **({"usage": usage} if usage else {})})


def openai_error(error: WireError) -> dict[str, Any]:
    """An error in OpenAI's shape; ``code`` is the service's number."""
    return {"error": {"message": error.message, "code": error.code}}


def _run_body(body: Json) -> Json:
    messages = body.get("messages")
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise bad_input("'/messages' must be array of objects")
    run_body = {key: body[key] for key in _SAME if key in body}
    if "max_completion_tokens" in body:
        run_body["max_tokens"] = body["max_completion_tokens"]
    wanted = _response_format(body.get("response_format"))
    if wanted is not None:
        run_body["response_format"] = wanted
    return {**run_body, "messages": [_message(message) for message in messages]}


def _message(message: Json) -> Json:
    known = {key: message[key] for key in _MESSAGE_KEYS if message.get(key) is not None}
    # OpenAI's newer name for the same role.
    role = "system" if known.get("role") == "developer" else known.get("role")
    return {**known, "role": role, "content": _content(known.get("content", ""))}


def _content(content: Any) -> Any:
    """OpenAI's content may be a list of parts; this model reads text only."""
    if not isinstance(content, list):
        return content
    texts = [part.get("text") if isinstance(part, dict) else None for part in content]
    if not all(isinstance(text, str) for text in texts):
        raise bad_input("a part of a message's content is not text, and this model reads text only")
    return "".join(str(text) for text in texts)


def _response_format(wanted: Any) -> Any:
    """Without OpenAI's envelope around the schema, which ``/run`` does not know."""
    if not isinstance(wanted, dict):
        return wanted
    if wanted.get("type") == "text":
        return None
    envelope = wanted.get("json_schema")
    if isinstance(envelope, dict) and "schema" in envelope:
        return {**wanted, "json_schema": envelope["schema"]}
    return wanted


def _stops(stop: Any) -> tuple[str, ...]:
    stops = [stop] if isinstance(stop, str) else stop
    if not isinstance(stops, list) or len(stops) > _MAX_STOPS or not all(isinstance(text, str) for text in stops):
        raise bad_input(f"'/stop' must be a string, or at most {_MAX_STOPS} of them")
    return tuple(text for text in stops if text)


def _tools(tools: Any) -> tuple[Mapping[str, Any], ...]:
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise bad_input("'/tools' must be array of objects")
    for index, function in enumerate(map(function_of, tools)):
        for name, kind, told in (
            ("name", str, "string"),
            ("description", str, "string"),
            ("parameters", dict, "object"),
        ):
            # All but the name may be left out, and be null.
            if not isinstance(function.get(name), kind if name == "name" else kind | None):
                raise bad_input(f"'/tools/{index}/function/{name}' must be {told}")
    return tuple(tools)


def _call(call: CalledTool) -> dict[str, Any]:
    function = {"name": call.name, "arguments": json.dumps(dict(call.arguments), ensure_ascii=False)}
    return {"id": f"chatcmpl-tool-{secrets.token_hex(8)}", "type": "function", "function": function}
