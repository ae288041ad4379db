"""References in a JSON Schema, followed: the service understands no ``$ref`` (wire page, "Requests")."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from workersai.errors import BadRequestError

Node = Mapping[str, Any]
Trail = tuple[str, ...]

_DEEPEST = 64


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
        self._most_nodes = most_nodes

    def expanded(self, node: Any, place: str, trail: Trail) -> tuple[dict[str, Any], Trail]:
        """``node`` without ``$ref`` and ``allOf`` at its top, and the references that led into it.

        Raises:
            BadRequestError: it is no schema, a reference leads nowhere, or one leads back into itself.
        """
        self._count(place)
        if isinstance(node, bool):  # true: any value
            return {}, trail
        if not isinstance(node, Mapping):
            raise self.error(place, f"a JSON Schema must be a dict, not {type(node).__name__}")
        whole = dict(node)
        while "$ref" in whole:
            target, trail = self._followed(whole.pop("$ref"), place, trail)
            whole = {**target, **whole}
        for part in self.schemas(whole.pop("allOf", ()), f"{place}.allOf"):
            # Each part by itself: two of them may well refer to the same schema.
            merged, _ = self.expanded(part, place, trail)
            whole = both(merged, whole)
        return whole, trail

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
            raise self.error(place, f"the reference {reference!r} leads out of the schema")
        if reference in trail:
            cycle = " -> ".join(map(_short, (*trail[trail.index(reference) :], reference)))
            raise self.error(
                place,
                f"the schema refers to itself ({cycle}), and the service takes no recursive schema; "
                "describe so many levels of it as you need",
            )
        target: Any = self._root
        for step in filter(None, reference.removeprefix("#").split("/")):
            key = unquote(step).replace("~1", "/").replace("~0", "~")
            if isinstance(target, Mapping) and key in target:
                target = target[key]
            elif isinstance(target, list | tuple) and key.isdecimal() and int(key) < len(target):
                target = target[int(key)]
            else:
                raise self.error(place, f"the reference {reference!r} leads nowhere")
        if not isinstance(target, Mapping):
            raise self.error(place, f"the reference {reference!r} leads to what is no JSON Schema")
        return target, (*trail, reference)

    def _count(self, place: str) -> None:
        self._nodes += 1
        if self._nodes > self._most_nodes or place.count(".") + place.count("[") > _DEEPEST:
            most = f"{self._most_nodes:,} parts or {_DEEPEST} levels"
            raise self.error("", f"written out, the schema has over {most}; does it refer to itself?")


def _short(reference: str) -> str:
    return reference.rpartition("/")[2].removeprefix("#") or "the whole schema"


def both(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Two schemas that hold at once; of a keyword in both, the second's counts."""
    merged = {**first, **second}
    if "properties" in first and "properties" in second:
        merged["properties"] = {**first["properties"], **second["properties"]}
    if "required" in first and "required" in second:
        merged["required"] = list(dict.fromkeys([*first["required"], *second["required"]]))
    return merged
