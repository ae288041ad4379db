"""The shapes of a reply's result, and of a stream's event -> the parts of an answer.

The service answers in five shapes, and a route changes its shape without notice (wire.md#whole-replies). So each
is read on every model: native (``response``, ``tool_calls``), chat (``choices[0].message``), hybrid (both at once),
text completion (``choices[0].text``) and Responses (``output``). A stream's events have the same shapes, with a
``delta`` in place of the ``message``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

_REASONING = ("reasoning_content", "reasoning")
# The fields of events that hold nothing but text.
_OF_NATIVE_TEXT = frozenset({"response", "tool_calls", "p"})
_OF_HYBRID_TEXT = _OF_NATIVE_TEXT | {"choices", "created", "id", "model", "object", "usage"}
_OF_DELTA_TEXT = frozenset({"content", "role"})


class ShapeError(ValueError):
    """A reply or an event of an unknown shape; the message completes the sentence "The reply ..."."""


@dataclass(slots=True)
class AnswerParts:
    """What one reply, or one event, says of the answer.

    Attributes:
        text: The text.
        reasoning: What the model thought.
        calls: The tool calls of the choice, or of the Responses output.
        calls_beside: Those beside the choices, or of a native reply. The hybrid shape repeats a call in both.
        finish: The finish reason as it was sent, or None.
        usage: The ``usage`` field as it was sent.
        has_choices: Whether there are choices; a usage without them is a total.
    """

    text: str = ""
    reasoning: str = ""
    calls: Any = None
    calls_beside: Any = None
    finish: Any = None
    usage: Any = None
    has_choices: bool = False


def parts_of_result(result: dict[str, Any]) -> AnswerParts:
    """The parts of a whole reply.

    Raises:
        ShapeError: there is no answer in it.
    """
    output = result.get("output")
    if isinstance(output, list) and not result.get("choices"):
        return _parts_of_output(output, result)
    if result.get("choices") is None and not result.keys() & {"response", "tool_calls"}:
        raise ShapeError("has neither an answer nor an error in it")
    return _parts(result, "message")


def parts_of_event(event: dict[str, Any]) -> AnswerParts:
    """The parts of one event of a stream, each of which may be absent.

    Raises:
        ShapeError: its choices can't be read.
    """
    return _parts(event, "delta")


def plain_text_of(event: dict[str, Any]) -> str | None:
    """The text of an event that has nothing else to say but usage beside choices; None for any other event.

    It is :func:`parts_of_event` for the two shapes that Llama 3.3 streams, made fast.
    """
    text = event.get("response")
    if event.keys() <= _OF_NATIVE_TEXT:
        return text if type(text) is str and not event.get("tool_calls") else None
    if not event.keys() <= _OF_HYBRID_TEXT or event.get("tool_calls"):
        return None
    choices = event.get("choices")
    choice = choices[0] if type(choices) is list and choices else None
    if type(choice) is not dict or choice.get("finish_reason") is not None:
        return None
    delta = choice.get("delta")
    if type(delta) is not dict or not delta.keys() <= _OF_DELTA_TEXT:
        return None
    text = delta.get("content")
    return text if type(text) is str else None


def _parts(value: dict[str, Any], inner: str) -> AnswerParts:
    choices = value.get("choices")
    parts = AnswerParts(
        calls_beside=value.get("tool_calls"),
        finish=value.get("finish_reason"),
        usage=value.get("usage"),
        has_choices=bool(choices),
    )
    if choices or (inner == "message" and choices is not None and "response" not in value):
        choice = choices[0] if isinstance(choices, list) and choices else None
        content = _inner(choice, inner)
        parts.finish = choice.get("finish_reason") or parts.finish if isinstance(choice, dict) else parts.finish
    else:
        content = value[inner] if isinstance(value.get(inner), dict) else value
    text = content.get("content")
    # Beside choices, a number in "response" has lost its white space: the choice's own text counts.
    parts.text = text_of(value.get("response")) if text is None else _text_of_content(text)
    parts.reasoning = _reasoning_of(content)
    parts.calls = content.get("tool_calls") if content is not value else None
    return parts


def _inner(choice: Any, inner: str) -> dict[str, Any]:
    """The message or the delta of a choice. A text completion has its text in the choice itself."""
    if not isinstance(choice, dict):
        raise ShapeError(f"has no {inner} in its choices")
    names = (inner, "message") if inner == "delta" else (inner,)
    found = next((choice[name] for name in names if choice.get(name) is not None), None)
    if found is None and "text" in choice:
        return {"content": choice["text"]}
    if found is None and inner == "delta":
        return {}
    if not isinstance(found, dict):
        raise ShapeError(f"has no {inner} in its choices")
    return found


def text_of(response: Any) -> str:
    """The text in a ``response`` or ``content`` field.

    The field is null beside a tool call, an object or a list in JSON Mode, and a number or a boolean if the model's
    text was one.
    """
    if isinstance(response, str):
        return response
    return "" if response is None else json.dumps(response, ensure_ascii=False)


def _text_of_content(content: Any) -> str:
    """The text of a message, whose content may be a list of text parts, as in a request."""
    if isinstance(content, list) and content and all(_is_text_part(part) for part in content):
        return "".join(part["text"] for part in content)
    return text_of(content)


def _is_text_part(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") in ("text", "output_text") and isinstance(part.get("text"), str)


def _reasoning_of(content: dict[str, Any]) -> str:
    """The reasoning, by either name; both at once hold the same text."""
    return next((text_of(content[name]) for name in _REASONING if content.get(name)), "")


def _parts_of_output(output: list[Any], result: dict[str, Any]) -> AnswerParts:
    """The parts of a Responses output: gpt-oss sends it for an ``input``, and from its batch queue."""
    texts: list[str] = []
    thoughts: list[str] = []
    calls: list[dict[str, Any]] = []
    for item in output:
        kind = item.get("type") if isinstance(item, dict) else None
        if kind == "message":
            texts.append(_text_of_content(item.get("content")))
        elif kind == "reasoning":
            thoughts += _texts(item.get("content")) or _texts(item.get("summary"))
        elif kind == "function_call":
            call_id = item.get("call_id") or item.get("id")
            calls.append({"id": call_id, "name": item.get("name"), "arguments": item.get("arguments")})
        # Items of other types are the traces of built-in tools, and no part of the answer.
    return AnswerParts(
        text="".join(texts),
        reasoning="\n\n".join(thoughts),
        calls=calls or None,
        finish=_finish_of_output(result),
        usage=result.get("usage"),
    )


def _texts(parts: Any) -> list[str]:
    return [part["text"] for part in parts or () if isinstance(part, dict) and isinstance(part.get("text"), str)]


def _finish_of_output(result: dict[str, Any]) -> str | None:
    details = result.get("incomplete_details")
    reason = details.get("reason") if isinstance(details, dict) else None
    if result.get("status") == "incomplete" or reason:
        return "length" if reason in (None, "max_output_tokens") else str(reason)
    return "error" if result.get("status") in ("failed", "cancelled") else None
