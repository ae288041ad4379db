"""JSON Mode: what the answer must look like -> the ``response_format`` of a request.

The service takes the bare JSON Schema and doesn't understand OpenAI's envelope of name, schema and strict: the name
and the description survive as the schema's own (wire.md#json-mode).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic_core import from_json

from workersai.errors import BadRequestError
from workersai.protocol.json_types import TYPES, is_of
from workersai.protocol.nulls import with_nulls
from workersai.protocol.refs import Node
from workersai.protocol.schema import SCHEMA_KEYWORDS, accepted_schema
from workersai.protocol.sources import json_schema_of

ResponseFormat = Mapping[str, Any] | type
"""``{"type": "json_object"}``, ``{"type": "json_schema", "json_schema": ...}`` with the JSON Schema or OpenAI's
envelope around it, a JSON Schema of an object, a Pydantic class, or a TypedDict."""

_WHERE = "response_format"


@dataclass(frozen=True)
class JSONMode:
    """A checked ``response_format``.

    Attributes:
        wire: As the request has it.
        nullable: The schema by which nulls must be put back into the answer; None where there are none to put back.
    """

    wire: dict[str, Any]
    nullable: Node | None = None

    def answer(self, text: str) -> str:
        """The text of an answer in JSON Mode, with the nulls that the model could not be told of."""
        if self.nullable is None:
            return text
        try:
            value = from_json(text)
        except ValueError:  # cut off by max_tokens: who asked will see it
            return text
        return json.dumps(with_nulls(value, self.nullable), ensure_ascii=False)

    def is_met_by(self, text: str) -> bool:
        """Whether a text that was not written in JSON Mode is such an object all the same."""
        try:
            value = from_json(text)
        except ValueError:
            return False
        return _fits(value, self.wire.get("json_schema", {"type": "object"}))


def json_mode_of(source: ResponseFormat | None) -> JSONMode | None:
    """JSON Mode as it is asked for, or None where it is not: for None, and for OpenAI's ``{"type": "text"}``.

    Raises:
        BadRequestError: it is no response format; the schema is none that the service could take.
    """
    if source is None:
        return None
    if isinstance(source, type):
        return _by_schema(json_schema_of(source, _WHERE))
    if not isinstance(source, Mapping):
        raise BadRequestError(f"{_WHERE} must be a dict, a Pydantic class or a TypedDict, not {type(source).__name__}.")
    kind = source.get("type")
    if kind == "text":
        return None
    if kind == "json_object":
        return JSONMode({"type": "json_object"})
    if kind == "json_schema":
        schema = source.get("json_schema")
        return _by_schema(_unwrapped(schema), closed=isinstance(schema, Mapping) and schema.get("strict") is True)
    if kind in TYPES or (kind is None and set(source) & set(SCHEMA_KEYWORDS)):
        return _by_schema(source)
    raise BadRequestError(f"{_WHERE}: its type must be 'json_object' or 'json_schema', got {kind!r}.")


def response_format_to_json(source: ResponseFormat) -> dict[str, Any]:
    """A response format as JSON can hold it: classes become the schemas that they stand for.

    Raises:
        BadRequestError: a class is none that a schema can be made of.
    """
    if isinstance(source, type):
        return dict(json_schema_of(source, _WHERE))
    if not isinstance(source, Mapping):
        raise BadRequestError(f"{_WHERE} must be a dict, a Pydantic class or a TypedDict, not {type(source).__name__}.")
    told = dict(source)
    for name in ("json_schema", "schema"):
        if isinstance(told.get(name), type | Mapping):
            told[name] = response_format_to_json(told[name])
    return told


def _by_schema(schema: Node, *, closed: bool = False) -> JSONMode:
    accepted = accepted_schema(schema, _WHERE, closed=closed)
    if accepted.schema["type"] != "object":
        raise BadRequestError(f"{_WHERE}: an answer in JSON Mode is an object, not {accepted.schema['type']!r}.")
    title = schema.get("title")
    named = {"title": title} if isinstance(title, str) and title else {}
    return JSONMode(
        wire={"type": "json_schema", "json_schema": named | accepted.schema},
        nullable=schema if accepted.lacks_nulls else None,
    )


def _unwrapped(schema: Any) -> Node:
    if isinstance(schema, type):
        return json_schema_of(schema, _WHERE)
    if not isinstance(schema, Mapping):
        raise BadRequestError(f"{_WHERE}: json_schema must be a JSON Schema, not {type(schema).__name__}.")
    if "schema" not in schema or set(schema) & set(SCHEMA_KEYWORDS):
        return schema
    inner = _unwrapped(schema["schema"])
    own = {"title": schema.get("name"), "description": schema.get("description")}
    return {**inner, **{key: value for key, value in own.items() if value}}


def _fits(value: Any, schema: Node) -> bool:
    """Whether a value is of an accepted schema, by its types, its enums and its names."""
    if not is_of(value, schema["type"]) or ("enum" in schema and value not in schema["enum"]):
        return False
    if isinstance(value, list):
        return "items" not in schema or all(_fits(item, schema["items"]) for item in value)
    if not isinstance(value, dict):
        return True
    properties = schema.get("properties", {})
    others = schema.get("additionalProperties", True)
    return set(schema.get("required", ())) <= set(value) and all(
        _fits(inner, properties[name])
        if name in properties
        else (_fits(inner, others) if isinstance(others, Mapping) else others)
        for name, inner in value.items()
    )
