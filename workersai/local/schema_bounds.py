"""Bounds for JSON Schemas, checked before llama.cpp makes a grammar of them.

The library that makes the grammar writes out what a schema counts: ``maxItems: 10000000`` ended its process, and
``minItems: 1000000000`` took 17 GB first. The bounds are far above what a model with 8,192 tokens can answer.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from workersai.local.engine import GrammarError
from workersai.local.patterns import repetitions

_MOST_BYTES = 512 * 1024
_MOST_SCHEMAS = 5_000
_MOST_VALUES = 10_000
_MOST_PATTERN = 2_000
# The optional properties of one object take time as the square of their number; patterns are compared in pairs.
_SIZES = {"properties": 1_000, "patternProperties": 20}
# Characters of a value or a name that an answer must have as it stands. The time for one grows with their square.
_MOST_LITERAL = 2_000
_MOST_LITERALS = 200_000
_MOST_REPEATED = 100_000
_MOST_DIGITS = 100
_MOST_COMBINATIONS = 1_000
_MOST_STATES = 20_000
# With these, one number has to satisfy more than one schema.
_MERGING = frozenset({"allOf", "$ref", "anyOf", "oneOf"})
# The keywords that count: what one of them may say, and what all of them in a request may say together.
_COUNTS: Mapping[str, tuple[int, int]] = {
    **dict.fromkeys(("minItems", "maxItems", "minContains", "maxContains"), (10_000, 20_000)),
    **dict.fromkeys(("minLength", "maxLength"), (1_000_000, 4_000_000)),
    **dict.fromkeys(("minProperties", "maxProperties"), (1_000, 10_000)),
}
_NUMBERS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
_CHOICES = ("anyOf", "oneOf")


def check_schema_bounds(schemas: Sequence[Mapping[str, Any]]) -> None:
    """Refuses the schemas of a request if a grammar of them could take all memory, or minutes.

    Raises:
        GrammarError: a bound is passed; the message says which, and where.
    """
    size = sum(len(json.dumps(schema)) for schema in schemas)
    if size > _MOST_BYTES:
        raise _too_much("the schemas of the request take", size, _MOST_BYTES, "bytes")
    totals = _Totals()
    for schema in schemas:
        for place, part in _objects(schema, ""):
            totals.count(place, part)
        totals.check_multiples()


@dataclass
class _Totals:
    """What the schemas of one request have counted so far."""

    schemas: int = 0
    values: int = 0
    literals: int = 0
    counts: dict[tuple[int, int], float] = field(default_factory=dict)
    multiples: set[Fraction] = field(default_factory=set)
    merges: bool = False
    """Whether several of ``multiples`` may hold for one number."""

    def count(self, place: str, part: Mapping[str, Any]) -> None:
        """Adds one object of a schema."""
        self.schemas += 1
        _hold("the schemas of the request have", self.schemas, _MOST_SCHEMAS, "parts")
        for literal in _literals(part):
            self._count_literal(place, literal)
        for keyword, bounds in _COUNTS.items():
            self._count_keyword(place, keyword, part.get(keyword), bounds)
        for keyword in _NUMBERS:
            _check_number(f"'{place}/{keyword}'", part.get(keyword))
        self.merges = self.merges or not _MERGING.isdisjoint(part)
        self._count_multiple(place, part.get("multipleOf"))
        _check_pattern(f"'{place}/pattern'", part.get("pattern"))
        for keyword, most in _SIZES.items():
            _hold(f"'{place}/{keyword}' has", _size(part, keyword), most, "names")
        for pattern in part["patternProperties"] if _size(part, "patternProperties") else ():
            _check_pattern(f"'{place}/patternProperties'", pattern)
        _hold(f"'{place}/allOf' has", _combinations(part), _MOST_COMBINATIONS, "combinations")

    def _count_literal(self, place: str, literal: Any) -> None:
        self.values += 1
        _hold("'enum', 'const' and 'properties' have", self.values, _MOST_VALUES, "values and names in all")
        size = len(json.dumps(literal))
        _hold(f"a value or a name at '{place}' has", size, _MOST_LITERAL, "characters")
        self.literals += size
        _hold("'enum', 'const' and 'properties' have", self.literals, _MOST_LITERALS, "characters in all")

    def check_multiples(self) -> None:
        """Refuses numbers that are multiples of so much that the grammar has a state for each remainder."""
        # A number of the grammar has up to four digits behind the point (workersai.local.grammar).
        states = [_states(multiple) for multiple in self.multiples]
        _hold("'multipleOf' takes", sum(states), 2 * _MOST_STATES, "states in all")
        if self.merges:
            _hold("'multipleOf' takes", math.prod(states), _MOST_STATES, "states where schemas are merged")

    def _count_multiple(self, place: str, number: Any) -> None:
        if isinstance(number, bool) or not isinstance(number, int | float) or not number:
            return
        multiple = Fraction(repr(number))
        _hold(f"'{place}/multipleOf' takes", _states(multiple), _MOST_STATES, "states")
        self.multiples.add(multiple)

    def _count_keyword(self, place: str, keyword: str, number: Any, bounds: tuple[int, int]) -> None:
        if isinstance(number, bool) or not isinstance(number, int | float):
            return
        most, most_in_all = bounds
        _hold(f"'{place}/{keyword}' is", number, most, "for one schema")
        self.counts[bounds] = self.counts.get(bounds, 0) + number
        _hold(f"'{keyword}' and its kind come to", self.counts[bounds], most_in_all, "in all")


def _objects(value: Any, place: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Each object of a schema with its place, itself included.

    Names of properties and values of ``enum`` are looked at as if they were schemas, which refuses too much, not too
    little.
    """
    if isinstance(value, Mapping):
        yield place, value
        for name, part in value.items():
            yield from _objects(part, f"{place}/{name}")
    elif isinstance(value, list):
        for index, part in enumerate(value):
            yield from _objects(part, f"{place}/{index}")


def _states(multiple: Fraction) -> int:
    """A number without its point: 25 for 0.25. A power of ten takes one state."""
    scaled = abs(multiple)
    while scaled.denominator > 1:
        scaled *= 10
    return 1 if str(scaled).rstrip("0") == "1" else scaled.numerator


def _size(part: Mapping[str, Any], keyword: str) -> int:
    value = part.get(keyword)
    return len(value) if isinstance(value, Mapping) else 0


def _literals(part: Mapping[str, Any]) -> Iterator[Any]:
    """What an answer must have as it stands: values, and the names of properties."""
    if isinstance(part.get("enum"), list):
        yield from part["enum"]
    if "const" in part:
        yield part["const"]
    for keyword in ("properties", "required"):
        if isinstance(part.get(keyword), Mapping | list):
            yield from part[keyword]


def _check_number(place: str, number: Any) -> None:
    if isinstance(number, bool) or not isinstance(number, int | float) or not number:
        return
    digits = math.ceil(abs(math.log10(abs(number)))) if math.isfinite(number) else math.inf
    _hold(f"{place} has", digits, _MOST_DIGITS, "digits")


def _check_pattern(place: str, pattern: Any) -> None:
    if not isinstance(pattern, str):
        return
    _hold(f"{place} has", len(pattern), _MOST_PATTERN, "characters")
    _hold(f"{place} repeats a part", repetitions(pattern), _MOST_REPEATED, "times")


def _combinations(schema: Any) -> int:
    """How many combinations of alternatives an ``allOf`` has, as far as no ``$ref`` hides them."""
    parts = schema.get("allOf") if isinstance(schema, Mapping) else None
    return math.prod(map(_alternatives, parts)) if isinstance(parts, list) else 1


def _alternatives(schema: Any) -> int:
    if not isinstance(schema, Mapping):
        return 1
    choices = [schema[key] for key in _CHOICES if isinstance(schema.get(key), list)]
    return math.prod(sum(map(_alternatives, choice)) or 1 for choice in choices) * _combinations(schema)


def _hold(what: str, number: float, most: int, unit: str) -> None:
    if number > most:
        raise _too_much(what, number, most, unit)


def _too_much(what: str, number: float, most: int, unit: str) -> GrammarError:
    counted = f"{number:,}" if isinstance(number, int) and number < 10**30 else "more than can be counted"
    if isinstance(number, float) and math.isfinite(number):
        counted = f"{number:,g}"
    return GrammarError(
        f"{what} {counted} {unit}, but the local server's limit is {most:,}. Set a smaller number, or a simpler schema."
    )
