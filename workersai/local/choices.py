"""Replies of ``/ai/run`` with ``choices``: the hybrid shape of Llama 3.3, and the chat shape.

Written from the samples in tests/wire, and independent of the rest of the package. The samples' names (``w05``) are
given where a shape follows one.
"""

from __future__ import annotations

import json
import re
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from typing_extensions import override

from workersai.local.engine import CalledTool, End, PromptRead, TextPiece
from workersai.local.increments import Increments, total_usage
from workersai.local.wire import (
    DONE,
    Answer,
    Manner,
    WireError,
    call_to_wire,
    error_to_wire,
    json_from_answer,
    padding,
    sse,
    usage_to_wire,
)

# Digits that survive as a number: a JavaScript number holds 15 of them.
_NUMBER = re.compile(r"\s*(\d{1,15})\s*", re.ASCII)
_INSTRUCT = re.compile(r"-instruct.*")
# Characters of a call's arguments that each event of a stream brings: few, so that even short ones come in several.
_ARGUMENTS_PIECE = 4


@dataclass(frozen=True)
class RunFormat:
    """What a reply depends on besides its answer."""

    model: str
    manner: Manner
    json_mode: bool = False
    tell_cached: bool = False
    """The request named a session. Otherwise, the number of cached tokens is 0."""


class Choices(ABC):
    """The part that all replies with ``choices`` share."""

    def __init__(self, told: RunFormat) -> None:
        self._told = told
        self._increments = Increments(told.model, tell_cached=told.tell_cached)

    def error(self, error: WireError) -> dict[str, Any]:
        """The body of a failed call."""
        return self._told.manner.error(error)

    def whole(self, answer: Answer) -> dict[str, Any]:
        """The result, wrapped as the route does it."""
        if self._told.json_mode and not answer.tool_calls:
            json_from_answer(answer.text, answer.end)
        return self._told.manner.result(self._result(answer), answer.notes)

    def piece(self, event: TextPiece | CalledTool) -> bytes:
        """The events of one piece of the answer."""
        events = [self._text(event)] if isinstance(event, TextPiece) else self._call(event)
        return b"".join(map(sse, events))

    def failure(self, error: WireError) -> bytes:
        """The error event; no ``[DONE]`` follows it."""
        return sse({"errors": [error_to_wire(error)], "success": False})

    @abstractmethod
    def _result(self, answer: Answer) -> dict[str, Any]: ...

    @abstractmethod
    def _text(self, piece: TextPiece) -> dict[str, Any]: ...

    @abstractmethod
    def _call(self, call: CalledTool) -> Sequence[dict[str, Any]]: ...

    def usage(self, end: End, *, neurons: bool = False) -> dict[str, Any]:
        """The usage of the whole answer."""
        return total_usage(end.usage, self._told.model if neurons else None, tell_cached=self._told.tell_cached)

    def totals(self, end: End) -> list[bytes]:
        """The native event that ends each stream of the service since August 2026 (s02), and the end marker."""
        return [sse({"response": "", "usage": self.usage(end, neurons=True)}), DONE]


class HybridDialect(Choices):
    """``choices``, and the same in ``response`` and ``tool_calls`` beside them: w04, w05, w06, s02, s03."""

    _called = False

    @override
    def _result(self, answer: Answer) -> dict[str, Any]:
        message: dict[str, Any] = {"content": None, "role": "assistant", "reasoning": None}
        if not answer.tool_calls:
            unused = ("annotations", "audio", "function_call", "refusal")
            message |= {"content": answer.text, **dict.fromkeys(unused)}
        result = {
            "choices": [_choice(answer, message)],
            **head(_short_name(self._told.model), "chat.completion"),
            "usage": self.usage(answer.end),
            "tool_calls": [call_to_wire(call) for call in answer.tool_calls],
        }
        if self._told.manner.bare:  # the binding has no response, and its usage no details (w04)
            return {**result, "usage": usage_to_wire(answer.end.usage, tell_cached=False)}
        return {**result, "response": self._response(answer)}

    def _response(self, answer: Answer) -> Any:
        if answer.tool_calls:
            return None
        return json_from_answer(answer.text, answer.end) if self._told.json_mode else _number_or_text(answer.text)

    def opening(self, prompt: PromptRead) -> list[bytes]:
        """An event without text, with the tokens of the prompt."""
        return [sse(self._event({"content": ""}, "", self._increments.prompt(prompt)))]

    @override
    def _text(self, piece: TextPiece) -> dict[str, Any]:
        return self._event({"content": piece.text}, _number_or_text(piece.text), self._increments.piece(piece))

    @override
    def _call(self, call: CalledTool) -> Sequence[dict[str, Any]]:
        """One event with the call in both places, without an index (s03)."""
        self._called = True
        delta = {"tool_calls": [_openai_call(call)]}
        return [{"choices": [{"delta": delta, "index": 0}], "tool_calls": [call_to_wire(call)]}]

    def closing(self, end: End) -> list[bytes]:
        """The finish reason, the totals and the end."""
        last = self._event({}, "", self._increments.rest(end.usage), end.finish_reason)
        return [sse(last), *self.totals(end)]

    def _event(
        self, delta: dict[str, Any], response: Any, usage: dict[str, Any], finish: str | None = None
    ) -> dict[str, Any]:
        return {
            "choices": [{"delta": delta, "finish_reason": finish, "index": 0}],
            "model": _short_name(self._told.model),
            "object": "chat.completion.chunk",
            "response": response,
            "tool_calls": [],
            "usage": usage,
        }


class ChatDialect(Choices):
    """``choices`` only: w20, w23; streams with pieces of calls and the usage in an event of its own: s21, s24."""

    def __init__(self, told: RunFormat) -> None:
        super().__init__(told)
        self._chunk_head = head(told.model, "chat.completion.chunk")
        self._calls = 0

    @override
    def _result(self, answer: Answer) -> dict[str, Any]:
        message: dict[str, Any] = {"content": answer.text, "role": "assistant"}
        if answer.tool_calls:
            message |= {"content": None, "tool_calls": [_openai_call(call) for call in answer.tool_calls]}
        return {
            "choices": [_choice(answer, message)],
            **head(self._told.model, "chat.completion"),
            "usage": self.usage(answer.end, neurons=True),
        }

    def opening(self, prompt: PromptRead) -> list[bytes]:
        """The role."""
        del prompt  # the usage comes last
        return [sse(self._delta({"content": "", "reasoning_content": None, "role": "assistant"}))]

    @override
    def _text(self, piece: TextPiece) -> dict[str, Any]:
        return self._delta({"content": piece.text, "reasoning_content": None})

    @override
    def _call(self, call: CalledTool) -> Sequence[dict[str, Any]]:
        """The name, then the arguments a few characters at a time (s24)."""
        index, whole = self._calls, _openai_call(call)
        self._calls += 1
        arguments: str = whole["function"]["arguments"]
        start = {"function": {"name": call.name}, "id": whole["id"], "index": index, "type": "function"}
        parts = [{"function": {"arguments": part}, "index": index} for part in _parts(arguments)]
        return [self._delta({"tool_calls": [part]}) for part in (start, *parts)]

    def closing(self, end: End) -> list[bytes]:
        """The finish reason, the usage in an event without a choice, and the end."""
        last = self._delta({} if self._calls else {"reasoning_content": None}, end.finish_reason)
        return [sse(last), sse(self._chunk([]) | {"usage": self.usage(end, neurons=True)}), DONE]

    def _delta(self, delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        return self._chunk([{"delta": delta, "finish_reason": finish, "index": 0, "logprobs": None}])

    def _chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {"choices": choices, **self._chunk_head, "p": padding()}


def head(model: str, kind: str) -> dict[str, Any]:
    """What identifies a reply or a stream; ``kind`` is its ``object``."""
    prefix = "cmpl" if kind == "text_completion" else "chatcmpl"
    return {"created": int(time.time()), "id": f"{prefix}-{secrets.token_hex(12)}", "model": model, "object": kind}


def _choice(answer: Answer, message: dict[str, Any]) -> dict[str, Any]:
    return {"finish_reason": answer.end.finish_reason, "index": 0, "logprobs": None, "message": message}


def _short_name(model: str) -> str:
    """The name that Llama's hybrid replies give: ``...-instruct-sd``."""
    return _INSTRUCT.sub("-instruct-sd", model)


def _number_or_text(text: str) -> int | str:
    """``response`` as the service sends it: a number for a text of digits, which loses its white space (s02)."""
    match = _NUMBER.fullmatch(text)
    return int(match[1]) if match else text


def _openai_call(call: CalledTool) -> dict[str, Any]:
    function = {"name": call.name, "arguments": json.dumps(dict(call.arguments), ensure_ascii=False)}
    return {"id": f"chatcmpl-tool-{secrets.token_hex(8)}", "type": "function", "function": function}


def _parts(text: str) -> Iterator[str]:
    return (text[start : start + _ARGUMENTS_PIECE] for start in range(0, len(text), _ARGUMENTS_PIECE))
