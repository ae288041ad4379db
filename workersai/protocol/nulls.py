"""The nulls of an answer, put back: ``protocol/schema.py`` tells the service of no null, so the model sends none.

A field that has to be there, but may be null, is then left out by a model that has nothing for it. What validates the
answer by the schema that the caller gave must find it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from workersai.protocol.refs import Node, References, Trail, both


def with_nulls(value: Any, schema: Node) -> Any:
    """``value`` with null for each property that ``schema`` requires, lets be null, and doesn't find."""
    return _Filling(References(schema, "")).filled(value, schema, ())


class _Filling:
    def __init__(self, references: References) -> None:
        self._references = references

    def filled(self, value: Any, node: Any, trail: Trail) -> Any:
        for variant, inner in self._variants(node, trail):
            if isinstance(value, list) and variant.get("type", "array") == "array":
                return self._list(value, variant, inner)
            is_object = isinstance(value, dict) and variant.get("type", "object") == "object"
            if is_object and self._could_be(value, variant, inner):
                return self._object(value, variant, inner)
        return value

    def _list(self, value: list[Any], whole: Node, trail: Trail) -> list[Any]:
        items = whole.get("items", True)
        members = whole.get("prefixItems", items if isinstance(items, list | tuple) else ())
        others = items if isinstance(items, Mapping) else True
        return [
            self.filled(item, members[index] if index < len(members) else others, trail)
            for index, item in enumerate(value)
        ]

    def _object(self, value: dict[str, Any], whole: Node, trail: Trail) -> dict[str, Any]:
        properties = whole.get("properties", {})
        others = whole.get("additionalProperties")
        filled = {
            name: self.filled(inner, properties.get(name, others if isinstance(others, Mapping) else True), trail)
            for name, inner in value.items()
        }
        missing = self._missing(value, whole)
        return filled | {name: None for name in missing if self._may_be_null(properties[name], trail)}

    def _could_be(self, value: dict[str, Any], whole: Node, trail: Trail) -> bool:
        """Whether an object is one of this schema, as far as its required properties and its constants tell."""
        properties = whole.get("properties", {})
        if not all(self._may_be_null(properties[name], trail) for name in self._missing(value, whole)):
            return False
        consts = {name: node["const"] for name, node in properties.items() if "const" in _mapping(node)}
        return all(value.get(name, const) == const for name, const in consts.items())

    def _missing(self, value: dict[str, Any], whole: Node) -> list[str]:
        properties = whole.get("properties", {})
        return [name for name in whole.get("required", ()) if name in properties and name not in value]

    def _may_be_null(self, node: Any, trail: Trail) -> bool:
        return any(
            variant.get("type") == "null"
            or variant.get("nullable") is True
            or None in variant.get("enum", ())
            or variant.get("const", ...) is None
            for variant, _ in self._variants(node, trail)
        )

    def _variants(self, node: Any, trail: Trail) -> list[tuple[Node, Trail]]:
        """The schemas that a value may be of: those of a union, or the one that it is."""
        whole, trail = self._references.expanded(node, "", trail)
        variants = whole.pop("anyOf", None) or whole.pop("oneOf", None)
        if variants:
            parts = (self._references.expanded(variant, "", trail) for variant in variants)
            return [found for part, inner in parts for found in self._variants(both(whole, part), inner)]
        types = whole.get("type")
        if isinstance(types, list | tuple):
            return [({**whole, "type": one}, trail) for one in types]
        return [(whole, trail)]


def _mapping(node: Any) -> Node:
    return node if isinstance(node, Mapping) else {}
