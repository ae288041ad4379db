"""Scripted replies of a reasoning model, whole or streamed, in the shape of the chat routes."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from workersai.local.engine import GenerationRequest, RawReply

Script = Callable[[GenerationRequest], RawReply]

CALL = {"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Oslo"}'}}
USAGE = {"prompt_tokens": 20, "completion_tokens": 30, "total_tokens": 50}


def thinking(
    *reasoning: str,
    text: str = "",
    call: dict[str, Any] | None = None,
    finish: str = "stop",
    name: str = "reasoning_content",
) -> Script:
    """A script whose replies are thoughts, then a text or a call; a stream has the thoughts in these pieces."""
    body, events = bodies(*reasoning, text=text, call=call, finish=finish, name=name)
    whole, stream = RawReply(body, content_type="application/json"), RawReply([events])
    return lambda request: stream if request.stream else whole


def bodies(
    *reasoning: str,
    text: str = "",
    call: dict[str, Any] | None = None,
    finish: str = "stop",
    name: str = "reasoning_content",
) -> tuple[bytes, bytes]:
    """The same as the bodies of a whole reply and of a stream."""
    calls = {} if call is None else {"tool_calls": [call]}
    message = {"role": "assistant", "content": text, name: "".join(reasoning), **calls}
    result = {"choices": [{"index": 0, "message": message, "finish_reason": finish}], "usage": USAGE}
    whole = json.dumps({"result": result, "success": True}).encode()
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}, *({name: piece} for piece in reasoning)]
    deltas += [{"content": piece} for piece in (text[:3], text[3:]) if piece]
    deltas += [{"tool_calls": [{**call, "index": 0}]}] if call is not None else []
    choices = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
    events = [{"choices": [choice]} for choice in [*choices, {"index": 0, "delta": {}, "finish_reason": finish}]]
    lines = [f"data: {json.dumps(event)}\n\n" for event in [*events, {"response": "", "usage": USAGE}]]
    return whole, "".join([*lines, "data: [DONE]\n\n"]).encode()


def in_turn(*scripts: Script) -> Script:
    """A script that answers the first request as the first of these, and so on."""
    left = iter(scripts)

    def answer(request: GenerationRequest) -> RawReply:
        return next(left)(request)

    return answer


ONLY_THOUGHTS = thinking("Well, ", "let me see", finish="length")
"""A model that ran out of tokens before it wrote an answer."""
