"""The types of JSON Schema: which one a value is of, and which one a schema means that names none."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

TYPES = ("string", "integer", "number", "boolean", "array", "object", "null")
_TYPE_OF = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}

# A keyword that says which type is meant, where none is named.
_TELLTALE = {
    **dict.fromkeys(("properties", "additionalProperties", "patternProperties", "minProperties"), "object"),
    **dict.fromkeys(("items", "prefixItems", "minItems", "maxItems", "uniqueItems"), "array"),
    **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"), "number"),
}


def is_of(value: Any, kind: str | None) -> bool:
    """Whether a value is of a type of JSON Schema, for which ``1.0`` is an integer too."""
    own = _TYPE_OF.get(type(value))
    whole = isinstance(value, float) and value.is_integer()
    return own is not None and (own == kind or (own == "integer" and kind == "number") or (whole and kind == "integer"))


def inferred(whole: Mapping[str, Any], values: list[Any]) -> str | None:
    """The type that a schema means which names none, by its values and its keywords; None where nothing tells."""
    kinds = {_TYPE_OF.get(type(value)) for value in values if value is not None}
    if kinds:
        return _of_values(kinds)
    told = (kind for keyword, kind in _TELLTALE.items() if keyword in whole)
    return next(told, "string" if any(keyword in whole for keyword in ("pattern", "minLength", "format")) else None)


def _of_values(kinds: set[str | None]) -> str | None:
    """The type of an enum's values; of several, one that most others can be written in."""
    if kinds <= {"integer", "number"} and len(kinds) > 1:
        return "number"
    return next((kind for kind in ("string", "number", "integer", *TYPES) if kind in kinds), None)


def enum_of(values: list[Any], kind: str | None, notes: list[str]) -> dict[str, Any]:
    """The values of one type; those of another are told."""
    fitting = [value for value in values if is_of(value, kind)]
    others = [value for value in values if value is not None and not is_of(value, kind)]
    if others:
        notes.append("may also be " + ", ".join(json.dumps(value, ensure_ascii=False, default=str) for value in others))
    return {"enum": fitting} if fitting else {}
