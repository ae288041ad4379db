"""Any JSON Schema that a framework hands over -> one that the service accepts.

The service demands ``type`` and ``description`` of every property and understands no ``$ref``; a union, which has no
``type``, breaks its contract (wire.md#tools). What can't be said in its terms is told in the description, for
the model to read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from workersai.protocol.json_types import TYPES, enum_of, inferred, is_of
from workersai.protocol.refs import ALSO, TOLD, Node, References, Trail, canonical
from workersai.protocol.unions import in_brief, noted, union

# Kept as they are, with what they must be.
_KEPT: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("pattern", "format"), str),
    **dict.fromkeys(("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"), int),
    **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"), (int, float)),
    "examples": (list, tuple),
}
SCHEMA_KEYWORDS = ("type", "properties", "$ref", "anyOf", "oneOf", "allOf", "enum", "const", "items")
"""One of these stands in every JSON Schema that says something."""

_MOST_NODES = 10_000  # a schema that grows beyond this when written out is a mistake, or an attack
# Of the formats, those that grammars commonly know; others are told.
_FORMATS = ("date-time", "date", "time", "duration", "email", "hostname", "ipv4", "ipv6", "uri", "uuid")
_LONGEST_TOLD = 300  # characters of a keyword in a description


@dataclass(frozen=True)
class Accepted:
    """A schema as the service takes it.

    Attributes:
        schema: The rewritten schema.
        lacks_nulls: Whether a required property that may be null was made optional, so that its null must be put
            back into the answer (:func:`~workersai.protocol.nulls.with_nulls`).
    """

    schema: dict[str, Any]
    lacks_nulls: bool


def accepted_parameters(schema: Node, where: str, *, closed: bool = False) -> Accepted:
    """The parameters of a tool, in the service's terms: inlined, each property with a type and a description.

    An optional property (one that may be null) is left out of ``required``. Of a union that can't be said as one
    type, one is chosen and the description tells the others.

    Args:
        schema: A JSON Schema of an object, as Pydantic or a framework prints it.
        where: What it belongs to, for errors.
        closed: Objects take no properties other than those that they list.

    Raises:
        BadRequestError: it is no JSON Schema, is not that of an object, or refers to itself; with the place, or the
            cycle.
    """
    accepted = accepted_schema(schema, where, closed=closed)
    kind = accepted.schema["type"]
    if kind != "object":
        raise References(schema, where).error("", f"a tool's parameters must be an object, not {kind!r}")
    accepted.schema.setdefault("properties", {})
    return accepted


def accepted_schema(schema: Node, where: str, *, closed: bool = False) -> Accepted:
    """The same of a schema of any type, as for JSON Mode."""
    references = References(schema, where, most_nodes=_MOST_NODES)
    if isinstance(schema, Mapping) and not set(schema) & set(SCHEMA_KEYWORDS):
        has = ", ".join(map(repr, schema)) or "nothing"
        raise references.error("", f"this is no JSON Schema: it has {has}, but no type and no properties")
    rewriting = _Rewriting(references, closed=closed)
    accepted, _ = rewriting.schema(schema, "", ())
    return Accepted(accepted, rewriting.lacks_nulls)


def words_of(name: str) -> str:
    """A name as a phrase, for what has no description: ``unit_price`` and ``unitPrice`` are ``Unit price``."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name).replace("_", " ").replace("-", " ").split()
    phrase = " ".join(word if word.isupper() else word.lower() for word in words) or name
    return phrase[:1].upper() + phrase[1:]


class _Rewriting:
    """Each method gives the rewritten schema, and whether it also took null."""

    def __init__(self, references: References, *, closed: bool) -> None:
        self._references = references
        self._closed = closed
        self._error = references.error
        self.lacks_nulls = False

    def schema(self, node: Any, place: str, trail: Trail, words: str | None = None) -> tuple[dict[str, Any], bool]:
        """``words`` describe a property whose schema doesn't."""
        whole, trail = self._references.expanded(node, place, trail)
        self._check_description(whole, place)
        variants = self._variants(whole, place)
        if not variants:
            return self._typed(whole, place, trail, words)
        rewritten: list[dict[str, Any]] = []
        known: set[str] = set()
        nullable = whole.get("nullable") is True
        for variant in variants:
            # What stands beside the variants holds for each of them.
            inner, inner_trail = self._references.expanded(variant, place, trail)
            with self._references.deeper():
                one, null = self.schema(self._references.both(whole, inner, place), place, inner_trail)
            nullable = nullable or null
            if one["type"] != "null" and (key := canonical(one)) not in known:
                known.add(key)
                rewritten.append(one)
        described = whole.get("description") or (words if len(rewritten) > 1 else None)
        return union(rewritten, described) if rewritten else {"type": "null"}, nullable

    def _variants(self, whole: dict[str, Any], place: str) -> list[Any]:
        """The schemas of a union, taken out of ``whole``; none where it is no union."""
        for keyword in ("anyOf", "oneOf"):
            variants = self._references.schemas(whole.pop(keyword, ()), f"{place}.{keyword}")
            if variants:
                return variants
        types = whole.get("type")
        if isinstance(types, list | tuple):
            del whole["type"]
            return [{"type": one} for one in types]
        return []

    def _typed(
        self, whole: dict[str, Any], place: str, trail: Trail, words: str | None = None
    ) -> tuple[dict[str, Any], bool]:
        nullable = whole.get("nullable") is True
        notes: list[str] = []
        values = self._values(whole, place)
        texts = [values, whole.get("default"), whole.get("examples"), whole.get("description"), whole.get("pattern")]
        self._references.count_characters(len(self._json(texts, place)), place)
        kind = whole.get("type") or inferred(whole, values)
        if values and not any(is_of(value, kind) for value in values):
            kind = inferred({}, values) or "null"  # the values say it better than a type that none of them is of
        if kind is not None and kind not in TYPES:
            raise self._error(place, f"there is no type {kind!r} in JSON Schema; there are {', '.join(TYPES)}")
        if kind == "null":
            return {"type": "null"}, True
        accepted: dict[str, Any] = {"type": kind or "string"}
        if kind is None:
            # No type at all: any value. Text can say everything.
            accepted["type"] = "string"
            notes.append("any JSON value, as text")
        if values:
            nullable = nullable or None in values
            accepted |= enum_of(values, kind, notes)
        accepted |= self._kept(whole, place)
        if accepted["type"] == "object":
            accepted |= self._of_object(whole, place, trail, notes)
        elif accepted["type"] == "array":
            accepted |= self._of_array(whole, place, trail, notes)
        notes += self._told(whole, place, trail)
        if whole.get("uniqueItems"):
            notes.append("no item twice")
        if "format" in whole and "format" not in accepted:
            notes.append(f"format {whole['format']}")
        description = noted(whole.get("description") or words, notes)
        return accepted | ({"description": description} if description else {}), nullable

    def _told(self, whole: dict[str, Any], place: str, trail: Trail) -> list[str]:
        told = [{keyword: whole[keyword]} for keyword in TOLD if keyword in whole]
        written_out = [self._references.written_out(one, place, trail) for one in [*told, *whole.get(ALSO, ())]]
        return [f"must also satisfy {self._json(one, place)[:_LONGEST_TOLD]}" for one in written_out]

    def _json(self, value: Any, place: str) -> str:
        try:
            return json.dumps(value, ensure_ascii=False, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise self._error(place, f"{value!r:.80} can't be written as JSON: {error}") from None

    def _values(self, whole: dict[str, Any], place: str) -> list[Any]:
        if "const" in whole:
            return [whole["const"]]
        values = whole.get("enum", ())
        if not isinstance(values, list | tuple) or ("enum" in whole and not values):
            raise self._error(f"{place}.enum", "must be a list of at least one value")
        return list(values)

    def _kept(self, whole: dict[str, Any], place: str) -> dict[str, Any]:
        kept: dict[str, Any] = {}
        for bound in ("minimum", "maximum"):
            exclusive = f"exclusive{bound.capitalize()}"
            # As draft 4 has it: beside the bound, and true.
            if isinstance(whole.get(exclusive), bool) and whole.pop(exclusive) and bound in whole:
                whole[exclusive] = whole.pop(bound)
        for keyword, kind in _KEPT.items():
            value = whole.get(keyword)
            if value is None:
                continue
            if isinstance(value, float) and kind is int and value.is_integer():
                value = int(value)  # JSON Schema has 1.0 as an integer
            if not isinstance(value, kind) or isinstance(value, bool) or _too_low(keyword, value):
                raise self._error(f"{place}.{keyword}", f"{value!r} is not what JSON Schema has there")
            if keyword != "format" or value in _FORMATS:
                kept[keyword] = value
        if whole.get("default") is not None:
            kept["default"] = whole["default"]
        return kept

    def _of_object(self, whole: dict[str, Any], place: str, trail: Trail, notes: list[str]) -> dict[str, Any]:
        properties = whole.get("properties", {})
        if not isinstance(properties, Mapping):
            raise self._error(f"{place}.properties", "must be a dict of JSON Schemas")
        required = whole.get("required", [])
        if not isinstance(required, list | tuple) or not all(isinstance(name, str) for name in required):
            raise self._error(f"{place}.required", "must be a list of names")
        must_be_there = set(required)
        parts: dict[str, Any] = {"properties": {}} if "properties" in whole else {}
        needed: list[str] = []
        for name, node in properties.items():
            words = _words(node, str(name))
            accepted, nullable = self._deeper(node, f"{place}.{name}", trail, words)
            accepted.setdefault("description", words)
            parts["properties"][name] = accepted
            if name in must_be_there and nullable:
                self.lacks_nulls = True
            elif name in must_be_there:
                needed.append(name)
        others = whole.get("additionalProperties", False if self._closed and properties else None)
        if isinstance(others, Mapping) and others:
            others, nullable = self._deeper(others, f"{place}.additionalProperties", trail)
            notes += ["values may be null"] * nullable
        elif not isinstance(others, bool):
            others = None
        unlisted = [name for name in required if name not in properties]
        notes += [f"must also have {', '.join(unlisted)}"] if unlisted else []
        found = {"required": needed or None, "additionalProperties": others}
        return parts | {keyword: value for keyword, value in found.items() if value is not None}

    def _of_array(self, whole: dict[str, Any], place: str, trail: Trail, notes: list[str]) -> dict[str, Any]:
        items = whole.get("items", {})
        # A tuple: draft 2020-12 has prefixItems, older drafts a list in items.
        members = whole.get("prefixItems", items if isinstance(items, list | tuple) else ())
        rest = items if isinstance(items, Mapping) else {}
        if not members:
            if not rest:
                return {}
            accepted, nullable = self._deeper(rest, f"{place}[]", trail)
            notes += ["items may be null"] * nullable
            return {"items": accepted}
        members = self._references.schemas(members, f"{place}.prefixItems")
        each = [self._deeper(member, f"{place}[{index}]", trail) for index, member in enumerate(members)]
        told = [in_brief(accepted) + " or null" * nullable for accepted, nullable in each]
        if rest:
            each.append(self._deeper(rest, f"{place}[]", trail))
            told.append(f"then any number of {in_brief(each[-1][0])}")
        notes.append("in this order: " + ", ".join(told))
        # Members of one type can be said as items; others have no common type.
        first, _ = each[0]
        return {"items": first} if all(accepted == first for accepted, _ in each) else {}

    def _deeper(self, node: Any, place: str, trail: Trail, words: str | None = None) -> tuple[dict[str, Any], bool]:
        with self._references.deeper():
            return self.schema(node, place, trail, words)

    def _check_description(self, whole: Node, place: str) -> None:
        if not isinstance(whole.get("description", ""), str):
            raise self._error(f"{place}.description", "must be a string")


def _too_low(keyword: str, value: Any) -> bool:
    """Lengths and counts begin at 0, and a multiple is one of something."""
    return (_KEPT[keyword] is int and value < 0) or (keyword == "multipleOf" and value <= 0)


def _words(node: Any, name: str) -> str:
    """What to call a property that isn't described: its own title, unless that is only its name."""
    title = node.get("title") if isinstance(node, Mapping) else None
    told = isinstance(title, str) and title.replace(" ", "").lower() != name.replace("_", "").lower()
    return str(title) if told and title else words_of(name)
