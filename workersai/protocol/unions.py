"""A union of schemas -> the one schema that says most of it, and what it can't say in words."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from workersai.protocol.refs import canonical

Schema = dict[str, Any]

_SCALARS = ("string", "number", "integer", "boolean")
_NUMBERS = ("integer", "number")
_LONGEST_BRIEF = 200  # characters


def union(variants: Sequence[Schema], description: str | None = None) -> Schema:
    """One schema of one type for several, which are in the service's terms already.

    Enums of one type become one enum, an integer or a number a number, objects one object with the properties of
    all. Where no type covers all, text stands for numbers and booleans, a list for a single item of it, and the
    first one named for the rest.
    """
    first, *rest = variants
    if not rest:
        return (
            first
            if description is None
            else {**first, "description": _outer_and_own(first.get("description"), description)}
        )
    kinds = [variant["type"] for variant in variants]
    if set(kinds) == {"object"}:
        return _described(_one_object(variants), description, f"one of: {_briefs(variants)}")
    if set(kinds) <= set(_NUMBERS) or len(set(kinds)) == 1:
        return _one_type(variants, "number" if "number" in kinds else kinds[0], description)
    chosen = _most_telling(variants)
    others = [variant for variant in variants if variant is not chosen]
    return _described(chosen, description or chosen.get("description"), f"may also be {_briefs(others)}")


def noted(description: str | None, notes: Sequence[str]) -> str | None:
    """A description with what the schema itself doesn't say."""
    if not notes:
        return description or None
    said = "; ".join(dict.fromkeys(notes))
    return f"{description} ({said})" if description else said[:1].upper() + said[1:]


def in_brief(schema: Schema) -> str:
    """A schema in a few words."""
    kind = str(schema["type"])
    if "enum" in schema:
        text = " or ".join(json.dumps(value, ensure_ascii=False, default=str) for value in schema["enum"])
    elif schema.get("properties"):
        text = f"{kind} with " + ", ".join(_property_in_brief(*item) for item in schema["properties"].items())
    elif "items" in schema:
        text = f"{kind} of {in_brief(schema['items'])}"
    else:
        bounds = [f"{key} {schema[key]}" for key in ("pattern", "format", "minimum", "maximum") if key in schema]
        text = f"{kind} ({', '.join(bounds)})" if bounds else kind
    return text if len(text) <= _LONGEST_BRIEF else f"{text[:_LONGEST_BRIEF]} ..."


def _property_in_brief(name: str, schema: Schema) -> str:
    return f"{name} {in_brief(schema)}" if "enum" in schema else name


def _briefs(variants: Sequence[Schema]) -> str:
    return " | ".join(dict.fromkeys(map(in_brief, variants)))


def _outer_and_own(own: str | None, outer: str) -> str:
    # A variant's own description may hold a note on what was lost in it.
    return own if own and own.startswith(outer) else outer if not own else f"{outer} ({own})"


def _described(schema: Schema, description: str | None, note: str) -> Schema:
    return {**schema, "description": noted(description, [note])}


def _one_type(variants: Sequence[Schema], kind: str, description: str | None) -> Schema:
    """What all of one type have in common."""
    common = {
        key: value
        for key, value in variants[0].items()
        if key != "description" and all(variant.get(key) == value for variant in variants)
    }
    common["type"] = kind
    if all("enum" in variant for variant in variants):
        common["enum"] = _distinct([value for variant in variants for value in variant["enum"]])
        told = description or variants[0].get("description")
        return common | ({"description": told} if told else {})
    if kind == "number" and all(set(variant) <= {"type", "description"} for variant in variants):
        # A number is all that an integer is: nothing is lost.
        told = description or variants[0].get("description")
        return common | ({"description": told} if told else {})
    return _described(common, description, f"one of: {_briefs(variants)}")


def _one_object(variants: Sequence[Schema]) -> Schema:
    together: dict[str, dict[str, Schema]] = {}  # by the name of a property, its schemas, each once
    for variant in variants:
        for name, schema in variant.get("properties", {}).items():
            together.setdefault(name, {}).setdefault(canonical(schema), schema)
    merged: Schema = {
        "type": "object",
        "properties": {name: _one_property([*schemas.values()]) for name, schemas in together.items()},
    }
    needing = Counter(name for variant in variants for name in set(variant.get("required", ())))
    required = [name for name in together if needing[name] == len(variants)]
    if required:
        merged["required"] = required
    others = [variant.get("additionalProperties") for variant in variants]
    if all(other == others[0] for other in others) and others[0] is not None:
        merged["additionalProperties"] = others[0]
    return merged


def _one_property(schemas: Sequence[Schema]) -> Schema:
    descriptions = dict.fromkeys(schema["description"] for schema in schemas)
    return union(list(schemas), " / ".join(descriptions)) if len(schemas) > 1 else schemas[0]


def _most_telling(variants: Sequence[Schema]) -> Schema:
    kinds = Counter(map(_bare, variants))
    for variant in variants:
        items = variant.get("items")
        if items is not None and kinds[_bare(items)] == len(variants) - 1:
            return variant
    if all(variant["type"] in _SCALARS for variant in variants):
        # Free text can hold a number or a boolean; one of fixed values can't.
        texts = (
            variant for variant in variants if variant["type"] == "string" and not set(variant) & {"enum", "pattern"}
        )
        return next(texts, variants[0])
    return variants[0]


def _bare(schema: Schema) -> str:
    return canonical({key: value for key, value in schema.items() if key != "description"})


def _distinct(values: Sequence[Any]) -> list[Any]:
    found: dict[tuple[type, str], Any] = {}
    for value in values:
        found.setdefault((type(value), canonical(value)), value)
    return list(found.values())
