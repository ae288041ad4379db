"""References in a JSON Schema, followed: the service understands no ``$ref`` (wire.md#tools).

A small schema can be a huge one written out: by references to references, and by ``allOf`` of unions, which is a union
of their product. So what is written out is counted before it is made, and refused beyond a bound.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote

from workersai.errors import BadRequestError

Node = Mapping[str, Any]
Trail = tuple[str, ...]

# Keywords that are told in a description: nothing says that the service knows them.
TOLD = (
    *("not", "if", "then", "else", "contains", "patternProperties", "propertyNames", "additionalItems"),
    *("dependentRequired", "dependentSchemas", "dependencies", "unevaluatedProperties", "unevaluatedItems"),
    *("contentEncoding", "contentMediaType", "contentSchema"),
)
_UNIONS = ("anyOf", "oneOf")
ALSO = "x-also"
"""Where what is to be told stands, if it stood there twice."""

_STRICTER: dict[str, Any] = {
    **dict.fromkeys(("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"), max),
    **dict.fromkeys(("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"), min),
}

_DEEPEST = 64
_MOST_STEPS = 256  # references that lead to one place
_MOST_CHARACTERS = 5_000_000  # of values and descriptions; a request with more is none that a model reads
_PER_VALUE = 20  # characters that a value of any kind counts as
_ADVICE = "simplify it, or split it into several"


class References:
    """The references of one schema.

    Args:
        root: The whole schema, which its references point into.
        where: What the schema belongs to, for error messages.
        most_nodes: How many parts it may have with its references written out.
    """

    def __init__(self, root: Node, where: str, *, most_nodes: float = math.inf) -> None:
        self._root = root
        self._where = where
        self._nodes = 0
        self._depth = 0
        self._characters = 0
        self._most_nodes = most_nodes

    def expanded(self, node: Any, place: str, trail: Trail) -> tuple[dict[str, Any], Trail]:
        """``node`` without ``$ref`` and ``allOf`` at its top, and the references that led into it.

        Raises:
            BadRequestError: it is no schema, a reference leads nowhere, or one leads back into itself.
        """
        self.count(1, place)
        if isinstance(node, bool):  # true: any value
            return {}, trail
        if not isinstance(node, Mapping):
            raise self.error(place, f"a JSON Schema must be a dict, not {type(node).__name__}")
        whole = dict(node)
        while "$ref" in whole:
            target, trail = self._followed(whole.pop("$ref"), place, trail)
            whole = self.both(target, whole, place)
        parts: list[Node] = [whole]
        for part in self.schemas(whole.pop("allOf", ()), f"{place}.allOf"):
            # Each part by itself: two of them may well refer to the same schema.
            with self.deeper():
                merged, _ = self.expanded(part, place, trail)
            parts.append(merged)
        # Two neighbours at a time: one after the other, what has been joined would be copied again for each part.
        parts.reverse()
        while len(parts) > 1:
            pairs = zip(parts[::2], parts[1::2], strict=False)
            rest = parts[-1:] if len(parts) % 2 else []
            parts = [*(self.both(first, second, place) for first, second in pairs), *rest]
        return dict(parts[0]), trail

    def both(self, first: Node, second: Node, place: str) -> dict[str, Any]:
        """Two schemas that hold at once, with the product of their unions counted."""
        for keyword in _UNIONS:
            one, other = first.get(keyword), second.get(keyword)
            if isinstance(one, list | tuple) and isinstance(other, list | tuple):
                self.count(len(one) * len(other), place)
        return both(first, second)

    def count(self, parts: int, place: str) -> None:
        """Counts so many parts more.

        Raises:
            BadRequestError: these are too many.
        """
        self._nodes += parts
        if self._nodes > self._most_nodes:
            raise self.error(place, f"written out, the schema has over {self._most_nodes:,} parts: {_ADVICE}")
        if self._depth > _DEEPEST:
            raise self.error(place, f"written out, the schema has over {_DEEPEST} levels: {_ADVICE}")

    def count_characters(self, number: int, place: str) -> None:
        """Counts so many characters more of values and descriptions.

        Raises:
            BadRequestError: these are too many.
        """
        self._characters += number
        if self._characters > _MOST_CHARACTERS:
            raise self.error(place, f"written out, the schema has over {_MOST_CHARACTERS:,} characters: {_ADVICE}")

    @contextmanager
    def deeper(self) -> Iterator[None]:
        """One level further down, for as long as it lasts."""
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1

    def written_out(self, value: Any, place: str, trail: Trail) -> Any:
        """Any part of a schema without references."""
        self.count_characters(_PER_VALUE + (len(value) if isinstance(value, str) else 0), place)
        if not isinstance(value, Mapping | list | tuple):
            return value
        with self.deeper():
            self.count(0, place)
            if isinstance(value, list | tuple):
                return [self.written_out(item, place, trail) for item in value]
            whole, inner = self.expanded(value, place, trail) if "$ref" in value else (dict(value), trail)
            return {key: self.written_out(item, place, inner) for key, item in whole.items()}

    def schemas(self, value: Any, place: str) -> list[Any]:
        """A keyword's list of schemas."""
        if not isinstance(value, list | tuple):
            raise self.error(place, "must be a list of JSON Schemas")
        return list(value)

    def error(self, place: str, problem: str) -> BadRequestError:
        """The refusal of a schema, with the place in it."""
        return BadRequestError(f"{self._where}{place}: {problem}.")

    def _followed(self, reference: Any, place: str, trail: Trail) -> tuple[Node, Trail]:
        if not isinstance(reference, str) or not reference.startswith("#"):
            raise self.error(place, f"the reference {reference!r:.100} leads out of the schema")
        if len(trail) >= _MOST_STEPS:
            raise self.error(place, f"over {_MOST_STEPS} references lead here, one to the next: {_ADVICE}")
        if reference in trail:
            cycle = " -> ".join(map(_short, (*trail[trail.index(reference) :], reference)))
            raise self.error(
                place,
                f"the schema refers to itself ({cycle}), and the service takes no recursive schema; "
                "describe so many levels of it as you need",
            )
        target: Any = self._root
        for step in reference.removeprefix("#").split("/")[1:]:
            key = unquote(step).replace("~1", "/").replace("~0", "~")
            if isinstance(target, Mapping) and key in target:
                target = target[key]
            elif isinstance(target, list | tuple) and key.isdecimal() and int(key) < len(target):
                target = target[int(key)]
            else:
                raise self.error(place, f"the reference {reference!r:.100} leads nowhere")
        if target is True:
            target = {}
        if not isinstance(target, Mapping):
            raise self.error(place, f"the reference {reference!r:.100} leads to what is no JSON Schema")
        return target, (*trail, reference)


def _short(reference: str) -> str:
    return reference.rpartition("/")[2].removeprefix("#") or "the whole schema"


def both(first: Node, second: Node) -> dict[str, Any]:
    """Two schemas that hold at once; of a keyword that can't be joined, the second's counts.

    What is malformed stays as it is, for whoever reads it to find.
    """
    merged = {**first, **second}
    for keyword in first.keys() & second.keys():
        one, other = first[keyword], second[keyword]
        if keyword in _STRICTER and isinstance(one, int | float) and isinstance(other, int | float):
            merged[keyword] = _STRICTER[keyword](one, other)
        elif keyword == "properties":
            merged[keyword] = _joined(one, other)
        elif isinstance(one, list | tuple) and isinstance(other, list | tuple):
            merged[keyword] = _lists(keyword, list(one), list(other))
        elif keyword in TOLD and one != other:
            merged[ALSO] = [*merged.get(ALSO, ()), {keyword: one}]
    return merged


def _joined(one: Any, other: Any) -> Any:
    if not isinstance(one, Mapping) or not isinstance(other, Mapping):
        return one if isinstance(other, Mapping) else other
    shared = {
        name: {"allOf": [one[name], other[name]]} for name in one.keys() & other.keys() if one[name] != other[name]
    }
    return {**one, **other, **shared}


def _lists(keyword: str, one: list[Any], other: list[Any]) -> list[Any]:
    if keyword in ("required", "allOf"):
        known = set(map(canonical, one))
        return one + [item for item in other if canonical(item) not in known]
    if keyword == "enum":
        allowed = set(map(canonical, other))
        return [item for item in one if canonical(item) in allowed]
    if keyword in _UNIONS and one != other:
        return [{"allOf": [first, second]} for first in one for second in other]
    return other


def canonical(value: Any) -> str:
    """A text that two values have in common if they are the same in JSON, so that they can be looked up."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # JSON Schema has 1.0 as an integer
    try:
        return json.dumps(value, sort_keys=True, default=repr)
    except TypeError:  # keys of several types
        return repr(value)
    except (ValueError, RecursionError):  # it holds itself, or is too deep, which is refused where it is written
        return f"{type(value).__name__} {id(value)}"
