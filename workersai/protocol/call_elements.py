"""The elements of a passage of text tool calls: where each one is, how its calls are read, and whether it counts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic_core import from_json

from workersai.protocol.text_call_forms import OfferedTools

MOST_BLANK = 500
"""Characters between two calls, or before one. Beyond that a model is running on."""
_CLOSING = tuple(",]})")

Call = dict[str, Any]
"""A call in the form of the HTTP API."""
Reader = Callable[[str], list[Call]]
"""What reads the calls of an element, given the text of the passage."""


@dataclass
class Element:
    """A part of the passage that holds calls."""

    start: int
    end: int
    counts_anywhere: bool
    """Whether it counts whatever follows it."""
    readers: Sequence[Reader]


def chosen(elements: Sequence[Element], text: str, end: int | None) -> tuple[int, list[Call]]:
    """Where the last element ends that counts, and the calls up to there; 0 if none counts.

    Args:
        elements: The elements, in their order.
        text: The text of the passage.
        end: Where something else follows them; None: nothing does.
    """
    calls: list[list[Call]] = []
    for element in elements:
        found = [reader(text) for reader in element.readers]
        if not all(found):
            end = element.start
            break
        calls.append([call for some in found for call in some])
    count = len(calls)
    while count and not _counts(elements[count - 1], text, end):
        count -= 1
        end = elements[count].start
    return (elements[count - 1].end if count else 0), [call for some in calls[:count] for call in some]


def _counts(element: Element, text: str, end: int | None) -> bool:
    if end is None or element.counts_anywhere:
        return True
    gap = text[element.end : end]
    return len(gap) >= MOST_BLANK or ("\n" in gap and not text.startswith(_CLOSING, end))


def json_reader(offered: OfferedTools, start: int, end: int) -> Reader:
    """What reads the calls of a JSON object or list."""

    def read(text: str) -> list[Call]:
        return offered.calls(_decoded(text[start:end]))

    return read


def arguments_reader(name: str, start: int, end: int) -> Reader:
    """What reads a call of that name, of which the arguments are a JSON object."""

    def read(text: str) -> list[Call]:
        return _written_calls([(name, text[start:end])])

    return read


def python_reader(calls: list[tuple[str, str]]) -> Reader:
    """What reads calls from their names and the JSON of their arguments."""
    return lambda _: _written_calls(calls)


def _written_calls(calls: list[tuple[str, str]]) -> list[Call]:
    found = [(name, _decoded(arguments)) for name, arguments in calls]
    return (
        [{"name": name, "arguments": arguments, "id": None} for name, arguments in found]
        if all(isinstance(arguments, dict) for _, arguments in found)
        else []
    )


def _decoded(text: str) -> Any:
    try:
        return from_json(text, allow_inf_nan=False)
    except ValueError:
        return None
