"""The shapes of replies and streams (wire.md#whole-replies, wire.md#streams): which one a captured body has.

It reads bodies as they came, and shares no code with the readers of the clients: a check that uses the code it checks
finds nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from workersai.catalog import DEFAULT_MODEL
from workersai.protocol.sse import SSEDecoder

Shape = Literal["native", "hybrid", "chat", "text completion", "Responses", "mixed", "unknown"]
Form = Literal["messages", "prompt"]

KNOWN: tuple[Shape, ...] = ("native", "hybrid", "chat", "text completion", "Responses")

# What Llama 3.3 sends since August 2026. For other models no shape is expected: routes differ and change.
_EXPECTED: Mapping[str, Mapping[Form, Shape]] = {DEFAULT_MODEL: {"messages": "hybrid", "prompt": "text completion"}}

_DONE = b"[DONE]"
_PLACES = ("choices[0].message", "choices[0].delta", "the top level")


def expected_shape(model: str, form: Form) -> Shape | None:
    """The shape that is expected today (wire.md#whole-replies) of a model's reply; None where any known one will do."""
    return _EXPECTED.get(model, {}).get(form)


def result_of_payload(payload: Any) -> Any:
    """The result inside the envelope, or the payload itself where there is no envelope."""
    return payload["result"] if isinstance(payload, dict) and "result" in payload else payload


def result_shape(result: Any) -> Shape:
    """The shape of one whole reply, or of an item of a batch."""
    if not isinstance(result, dict):
        return "unknown"
    choice = _first_choice(result)
    if choice is not None:
        if isinstance(choice.get("message"), dict):
            return "hybrid" if _has_native_part(result) else "chat"
        return "text completion" if "text" in choice else "unknown"
    if isinstance(result.get("output"), list):
        return "Responses"
    return "native" if _has_native_part(result) and not result.get("choices") else "unknown"


def call_places(result: Any) -> list[str]:
    """Where tool calls stand in a whole reply: in the message, at the top level, or in both."""
    if not isinstance(result, dict):
        return []
    choice = _first_choice(result) or {}
    holders = (choice.get("message"), choice.get("delta"), result)
    return [
        place
        for place, holder in zip(_PLACES, holders, strict=True)
        if isinstance(holder, dict) and holder.get("tool_calls")
    ]


def usage_of_result(result: Any) -> tuple[int, int, int | None] | None:
    """Prompt, completion and cached tokens of a whole reply, under any of the published names; None without them."""
    usage = result.get("usage") if isinstance(result, dict) else None
    if not isinstance(usage, dict):
        return None
    prompt = _count(usage, "prompt_tokens", "input_tokens")
    completion = _count(usage, "completion_tokens", "output_tokens")
    if prompt is None and completion is None:
        return None
    details = usage.get("prompt_tokens_details")
    cached = _count(details, "cached_tokens") if isinstance(details, dict) else None
    return prompt or 0, completion or 0, cached


@dataclass(frozen=True)
class StreamFacts:
    """What a captured stream looks like.

    Attributes:
        shape: That of the events that bring text or calls; ``mixed`` for several.
        usage: How usage is counted: ``none``, ``totals``, ``cumulative``, ``increments``, and what follows it.
        tokens: Prompt and completion tokens by that convention; None without usage.
        done: Whether ``[DONE]`` came.
        first_text: The index of the network chunk that brought the first text; None for a stream without text.
        events: The number of events.
        unreadable: The number of events that are not JSON objects.
    """

    shape: Shape
    usage: str
    tokens: tuple[int, int] | None
    done: bool
    first_text: int | None
    events: int
    unreadable: int


def stream_facts(chunks: Iterable[bytes]) -> StreamFacts:
    """The facts of a stream, from its bytes as the network cut them."""
    decoder = SSEDecoder()
    events: list[Any] = []
    first_text: int | None = None
    done, unreadable = False, 0

    def take(index: int, found: Iterable[bytes]) -> None:
        nonlocal first_text, done, unreadable
        for data in found:
            if data.strip() == _DONE:
                done = True
                continue
            event = _json_or_none(data)
            if not isinstance(event, dict):
                unreadable += 1
                continue
            events.append(event)
            if first_text is None and _has_text(event):
                first_text = index

    last = 0
    for last, chunk in enumerate(chunks):
        take(last, decoder.feed(chunk))
    take(last, decoder.close())
    usage, tokens = usage_convention(events)
    shapes: set[Shape] = {found for event in events if (found := event_shape(event)) is not None}
    shape: Shape = "mixed" if len(shapes) > 1 else next(iter(shapes), "unknown")
    return StreamFacts(shape, usage, tokens, done, first_text, len(events) + unreadable, unreadable)


def event_shape(event: Mapping[str, Any]) -> Shape | None:
    """The shape of one event; None for an event that only brings usage, or nothing."""
    if str(event.get("type", "")).startswith("response."):
        return "Responses"
    choice = _first_choice(event)
    if choice is not None:
        if "text" in choice and "delta" not in choice:
            return "text completion"
        return "hybrid" if _has_native_part(event) else "chat"
    if "usage" in event and not _has_text(event) and not event.get("tool_calls"):
        return None
    return "native" if _has_native_part(event) or isinstance(event.get("delta"), dict) else None


def usage_convention(events: Sequence[Mapping[str, Any]]) -> tuple[str, tuple[int, int] | None]:
    """How the events of a stream count tokens, and the tokens that this comes to.

    A usage in an event without choices is the total. Counts beside choices that never fall are cumulative, else they
    are increments and add up. Zeros after counts mean nothing.
    """
    beside: list[tuple[int, int]] = []
    totals: list[tuple[int, int]] = []
    ends_in_zeros = False
    for event in events:
        found = usage_of_result(event)
        if found is None:
            continue
        counts = found[:2]
        ends_in_zeros = not any(counts) and bool(beside or totals)
        if any(counts):
            (totals if _first_choice(event) is None else beside).append(counts)
    zeros = ", then zeros" if ends_in_zeros else ""
    if not beside:
        if not totals:
            return "none", None
        cumulative = len(totals) > 1 and _never_fall(totals)
        return ("cumulative" if cumulative else "totals") + zeros, totals[-1]
    if len(beside) == 1:
        return "totals" + zeros, (totals or beside)[-1]
    name = "cumulative" if _never_fall(beside) else "increments"
    if totals:
        return f"{name}, then totals{zeros}", totals[-1]
    summed = (sum(prompt for prompt, _ in beside), sum(completion for _, completion in beside))
    return name + zeros, beside[-1] if name == "cumulative" else summed


def _never_fall(counts: Sequence[tuple[int, int]]) -> bool:
    return all(before[0] <= after[0] and before[1] <= after[1] for before, after in pairwise(counts))


def _first_choice(result: Mapping[str, Any]) -> dict[str, Any] | None:
    choices = result.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    return first if isinstance(first, dict) else None


def _has_native_part(result: Mapping[str, Any]) -> bool:
    return "response" in result or "tool_calls" in result


def _has_text(event: Mapping[str, Any]) -> bool:
    choice = _first_choice(event) or {}
    deltas = [each for each in (choice.get("delta"), event.get("delta")) if isinstance(each, dict)]
    texts = [each.get(name) for each in deltas for name in ("content", "reasoning", "reasoning_content")]
    return any(text not in (None, "") for text in (*texts, choice.get("text"), event.get("response")))


def _count(holder: Mapping[str, Any], *names: str) -> int | None:
    for name in names:
        value = holder.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e12:  # noqa: PLR2004
            return int(value)
    return None


def _json_or_none(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None
