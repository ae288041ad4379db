"""Grammars that hold a model to JSON, for llguidance: what llama.cpp's ``grammar`` field takes here.

A small model runs on where a schema lets it: in a text, a list, the digits of a number, the names of an open object.
:func:`bounded` ends each of these. It only ever narrows a schema, so that whatever fits the result fits the original.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from workersai.local.engine import GrammarError

Schema = Mapping[str, Any]

_MOST_CHARACTERS = 120
_MOST_ITEMS = 8
_MOST_NUMBER = 1_000_000_000
_STEP = 0.0001
# The names in an object that may have any.
_NAME = "^[A-Za-z_][A-Za-z0-9_ -]{0,31}$"

# Where JSON Schema has a schema, a list of them, and schemas by name: anything else is no schema, whatever its keys.
_ONE = frozenset({"items", "additionalProperties", "additionalItems", "contains", "not", "propertyNames"})
_LIST = frozenset({"anyOf", "oneOf", "allOf", "prefixItems", "items"})
_NAMED = frozenset({"properties", "patternProperties", "$defs", "definitions"})
# What says by itself which values there are; its parts are bounded where they stand.
_DECIDED = frozenset({"enum", "const", "$ref", "anyOf", "oneOf", "allOf"})
_KINDS = frozenset({"string", "number", "integer", "boolean", "null", "array", "object"})

_NUMBER_BOUNDS = {"minimum": -_MOST_NUMBER, "maximum": _MOST_NUMBER, "multipleOf": _STEP}
_SCALARS = ["string", "number", "boolean", "null"]
_SCALAR = {"type": _SCALARS, "maxLength": _MOST_CHARACTERS, **_NUMBER_BOUNDS}
# What stands for "any value" inside a list or an object that may hold any.
_VALUE = {**_SCALAR, "type": [*_SCALARS, "array"], "maxItems": _MOST_ITEMS, "items": _SCALAR}

# Sets of schemas whose usable form is remembered: finding it takes 0.1 s.
_MOST_REMEMBERED = 64

# One line, with the spaces that models have seen most: free white space is one more way to run on.
_LAYOUT = {"x-guidance": {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}}


def grammar_of(schemas: Sequence[Schema], *, or_text: bool = False) -> str:
    """The grammar of an answer that fits one of ``schemas``, or is a text that begins with no ``{`` and no space."""
    rules = {f"json{index}": f"%json {json.dumps({**schema, **_LAYOUT})}" for index, schema in enumerate(schemas)}
    if or_text:
        rules["TEXT"] = r"/[^{\s](?s:.*)/"
    written = [f"{name}: {rule}" for name, rule in rules.items()]
    # The first line tells llama.cpp that the rest is written for llguidance.
    return "\n".join(["%llguidance {}", f"start: {' | '.join(rules)}", *written, ""])


def call_schema(name: str, parameters: Schema) -> dict[str, Any]:
    """What a call of the tool ``name`` must satisfy; ``parameters`` are for its arguments."""
    properties = {"name": {"const": name}, "parameters": _everywhere(parameters, _moved)}
    return {"type": "object", "properties": properties, "required": [*properties], "additionalProperties": False}


def bounded(schema: Schema) -> dict[str, Any]:
    """A copy of ``schema`` whose values all come to an end soon, as far as it sets no bounds itself."""
    narrowed: dict[str, Any] = _everywhere(schema, _bounded_here)
    return narrowed


class UsableForms:
    """Finds out in which form a model's runtime can use schemas, once for each set of them.

    Args:
        holds: Tells whether the runtime can use a grammar.
    """

    def __init__(self, holds: Callable[[str], Awaitable[bool]]) -> None:
        self._holds = holds
        self._known: dict[str, Sequence[Schema]] = {}

    async def of(self, schemas: Sequence[Schema]) -> Sequence[Schema]:
        """``schemas``, bounded; or as they stand, where the bounds leave no answer that fits.

        Raises:
            GrammarError: they can't be used.
        """
        key = grammar_of(schemas)
        if key not in self._known:
            form = await self._found(schemas)
            if len(self._known) >= _MOST_REMEMBERED:
                self._known.pop(next(iter(self._known)))
            self._known[key] = form
        return self._known[key]

    async def _found(self, schemas: Sequence[Schema]) -> Sequence[Schema]:
        # Asked first: bounds can make the branches of a oneOf look apart which are not, and hide that it is no good.
        if not await self._holds(grammar_of(schemas)):
            raise GrammarError(
                "llama.cpp can't turn the schema into a grammar, be it JSON Mode's or a tool's; a simpler one may do."
            )
        narrow = [bounded(schema) for schema in schemas]
        return narrow if await self._holds(grammar_of(narrow)) else schemas


def _everywhere(schema: Any, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Any:
    """A copy in which ``change`` was made to each schema: first to the outermost, then to those inside of it."""
    if schema is True:
        schema = {}
    if not isinstance(schema, Mapping):
        return schema
    changed = change(dict(schema))
    for key, part in changed.items():
        if key in _NAMED and isinstance(part, Mapping):
            changed[key] = {name: _everywhere(inner, change) for name, inner in part.items()}
        elif key in _LIST and isinstance(part, list):
            changed[key] = [_everywhere(inner, change) for inner in part]
        elif key in _ONE:
            changed[key] = _everywhere(part, change)
    return changed


def _moved(schema: dict[str, Any]) -> dict[str, Any]:
    """References to within the parameters' own schema, as they read from the schema of the whole call."""
    target = schema.get("$ref")
    if isinstance(target, str) and target.startswith("#"):
        schema["$ref"] = f"#/properties/parameters{target.removeprefix('#')}"
    return schema


def _bounded_here(schema: dict[str, Any]) -> dict[str, Any]:
    if schema.keys() & _DECIDED:
        return schema
    kinds = _kinds(schema.get("type", [*_KINDS]))
    if "string" in kinds and not schema.keys() & {"pattern", "format"}:
        _set_most(schema, "maxLength", "minLength", _MOST_CHARACTERS)
    if kinds & {"number", "integer"}:
        _bound_number(schema)
    if "number" in kinds:
        schema.setdefault("multipleOf", _STEP)
    if "array" in kinds:
        _set_most(schema, "maxItems", "minItems", _MOST_ITEMS)
        if schema.get("items", True) is True:
            schema["items"] = "prefixItems" not in schema and _VALUE
    if "object" in kinds:
        _bound_object(schema)
    return schema


def _kinds(named: Any) -> frozenset[str]:
    names = named if isinstance(named, list) else [named]
    return frozenset(name for name in names if isinstance(name, str))


def _set_most(schema: dict[str, Any], most: str, least: str, bound: int) -> None:
    schema.setdefault(most, max(bound, _number(schema, least) or 0))


def _bound_number(schema: dict[str, Any]) -> None:
    low = _number(schema, "minimum", "exclusiveMinimum")
    high = _number(schema, "maximum", "exclusiveMaximum")
    if low is None:
        schema["minimum"] = min(-_MOST_NUMBER, (high or 0) - _MOST_NUMBER)
    if high is None:
        schema["maximum"] = max(_MOST_NUMBER, (low or 0) + _MOST_NUMBER)


def _number(schema: Schema, *keys: str) -> Any:
    given = (schema[key] for key in keys if key in schema)
    return next((value for value in given if isinstance(value, int | float) and not isinstance(value, bool)), None)


def _bound_object(schema: dict[str, Any]) -> None:
    properties, others = schema.get("properties"), schema.get("additionalProperties", True)
    if "patternProperties" in schema or others is False or (properties is None and "required" in schema):
        return
    if properties is None:
        schema |= {"patternProperties": {_NAME: _VALUE if others is True else others}, "additionalProperties": False}
        _set_most(schema, "maxProperties", "minProperties", _MOST_ITEMS)
    elif others is True:
        schema["additionalProperties"] = False
