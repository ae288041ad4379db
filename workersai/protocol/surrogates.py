"""JSON whose text is cut inside a character: half of a surrogate pair, which no Unicode text may hold.

A model's token can be a part of a character. A JSON encoder that works token by token writes such a part as one half of
a surrogate pair, in a reply that was cut off there, or in two events of a stream.
"""

from __future__ import annotations

import json
import re
from typing import Any

from pydantic_core import from_json

_HALF = re.compile(rb"\\u[dD][89a-fA-F]")
# As deep as Pydantic's parser reads. Python's own depends on its version and on how deep the caller's stack is.
_DEEPEST = 201


def value_of(data: bytes, *, allow_inf_nan: bool = True) -> tuple[Any, bool]:
    """A JSON value, and whether its strings may hold halves of characters.

    Raises:
        ValueError: it is no JSON, for another reason.
    """
    try:
        return from_json(data, allow_inf_nan=allow_inf_nan), False
    except ValueError:
        if not _HALF.search(data):
            raise
    try:
        value = json.loads(data)
        if not allow_inf_nan:
            json.dumps(value, allow_nan=False)
    except RecursionError:
        raise ValueError("nested too deep") from None
    if _is_deeper(value, _DEEPEST):
        raise ValueError("nested too deep")
    return value, True


def _is_deeper(value: Any, levels: int) -> bool:
    """Whether a value is nested in more than this many levels, the innermost text or number being one of them."""
    level = [value]
    for _ in range(levels):
        level = [
            inner
            for each in level
            if isinstance(each, list | dict)
            for inner in (each.values() if isinstance(each, dict) else each)
        ]
        if not level:
            return False
    return True


def whole_value_of(data: bytes, *, allow_inf_nan: bool = True) -> Any:
    """A JSON value, its strings :func:`repaired`.

    Raises:
        ValueError: it is no JSON.
    """
    value, has_halves = value_of(data, allow_inf_nan=allow_inf_nan)
    return repaired(value) if has_halves else value


def repaired(value: Any) -> Any:
    """The value with each half of a character replaced by U+FFFD, and two halves that belong together joined.

    Raises:
        ValueError: it is nested too deep.
    """
    try:
        return _repaired(value)
    except RecursionError:
        raise ValueError("nested too deep") from None


def _repaired(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, list):
        return [_repaired(item) for item in value]
    if isinstance(value, dict):
        return {_repaired(name): _repaired(item) for name, item in value.items()}
    return value


class Halves:
    """Joins a text whose pieces may be cut inside a character."""

    def __init__(self) -> None:
        self._first = ""

    def join(self, piece: str) -> str:
        """The piece, with the half that was held back; a first half at its end is held back in turn."""
        piece, self._first = self._first + piece, ""
        if piece and "\ud800" <= piece[-1] <= "\udbff":
            piece, self._first = piece[:-1], piece[-1]
        whole: str = repaired(piece)
        return whole

    def flush(self) -> str:
        """What stands for a half that nothing followed."""
        rest, self._first = self._first, ""
        whole: str = repaired(rest)
        return whole


class HalvesOfCalls:
    """The same for the arguments of streamed calls, each of which has pieces of its own."""

    def __init__(self) -> None:
        self._by_index: dict[Any, Halves] = {}

    def join(self, wires: Any) -> Any:
        """The entries of a ``tool_calls`` field, with the halves that were held back."""
        return [self._joined(wire) for wire in wires] if isinstance(wires, list) else repaired(wires)

    def _joined(self, wire: Any) -> Any:
        sound = repaired(wire)
        function = wire.get("function") if isinstance(wire, dict) else None
        arguments = function.get("arguments") if isinstance(function, dict) else None
        if isinstance(arguments, str) and isinstance(wire.get("index"), int):
            halves = self._by_index.setdefault(wire["index"], Halves())
            sound["function"]["arguments"] = halves.join(arguments)
        return sound
