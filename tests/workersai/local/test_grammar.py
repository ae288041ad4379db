"""Bounds on what a schema leaves open, without a model: where they are set, and that they only ever narrow."""

import copy
import json
from typing import Any

import pytest

from workersai.local.engine import GrammarError
from workersai.local.grammar import UsableForms, bounded, call_schema, grammar_of

TEXT = {"type": "string", "maxLength": 120}
WHOLE = {"type": "integer", "minimum": -1_000_000_000, "maximum": 1_000_000_000}


@pytest.mark.parametrize(
    ("schema", "narrowed"),
    [
        ({"type": "string"}, TEXT),
        ({"type": "string", "minLength": 300}, {"type": "string", "minLength": 300, "maxLength": 300}),
        ({"type": "string", "maxLength": 9_999}, {"type": "string", "maxLength": 9_999}),
        ({"type": "string", "pattern": "^a+$"}, {"type": "string", "pattern": "^a+$"}),
        ({"type": "string", "format": "date"}, {"type": "string", "format": "date"}),
        ({"type": "string", "enum": ["a" * 300]}, {"type": "string", "enum": ["a" * 300]}),
        ({"type": ["string", "null"]}, {"type": ["string", "null"], "maxLength": 120}),
        ({"type": "integer"}, WHOLE),
        ({"type": "integer", "minimum": 1}, {"type": "integer", "minimum": 1, "maximum": 1_000_000_001}),
        (
            {"type": "number", "maximum": 1},
            {"type": "number", "maximum": 1, "minimum": -1_000_000_000, "multipleOf": 0.0001},
        ),
        ({"type": "number", "multipleOf": 0.5, "exclusiveMinimum": 0, "maximum": 1}, None),
        ({"type": "array", "items": {"type": "string"}}, {"type": "array", "items": TEXT, "maxItems": 8}),
        (
            {"type": "array", "minItems": 20, "items": False},
            {"type": "array", "minItems": 20, "items": False, "maxItems": 20},
        ),
        ({"type": "object", "properties": {}}, {"type": "object", "properties": {}, "additionalProperties": False}),
        ({"type": "object", "additionalProperties": False}, None),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, {"anyOf": [TEXT, {"type": "null"}]}),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"type": "string"}}}, {"$ref": "#/$defs/a", "$defs": {"a": TEXT}}),
        ({"type": "boolean"}, None),
        ({"type": 7}, None),
    ],
    ids=json.dumps,
)
def test_what_a_schema_leaves_open_gets_a_bound(schema: dict[str, Any], narrowed: dict[str, Any] | None) -> None:
    before = copy.deepcopy(schema)
    assert bounded(schema) == (narrowed or before)
    assert schema == before


def test_a_property_may_be_named_like_a_keyword() -> None:
    names = ["type", "maxLength", "enum", "$ref", "items", "properties", "anyOf"]
    schema = {"type": "object", "properties": {name: {"type": "string"} for name in names}, "required": names}
    assert bounded(schema) == {**schema, "properties": dict.fromkeys(names, TEXT), "additionalProperties": False}
    moved = call_schema("f", schema)["properties"]["parameters"]
    assert moved == schema


def test_an_open_object_has_a_few_plain_values() -> None:
    schema = bounded({"type": "object"})
    assert (schema["maxProperties"], schema["additionalProperties"]) == (8, False)
    (values,) = schema["patternProperties"].values()
    assert values["type"] == ["string", "number", "boolean", "null", "array"]
    typed = bounded({"type": "object", "additionalProperties": {"type": "string"}})
    assert [*typed["patternProperties"].values()] == [TEXT]


def test_a_call_keeps_the_references_of_its_parameters() -> None:
    parameters = {
        "type": "object",
        "properties": {"at": {"$ref": "#/$defs/Place"}, "$ref": {"const": "#/$defs/Place"}},
        "$defs": {"Place": {"type": "string"}, "Tree": {"items": {"$ref": "#"}}},
    }
    moved = call_schema("f", parameters)["properties"]["parameters"]
    assert moved["properties"]["at"] == {"$ref": "#/properties/parameters/$defs/Place"}
    assert moved["properties"]["$ref"] == {"const": "#/$defs/Place"}
    assert moved["$defs"]["Tree"]["items"] == {"$ref": "#/properties/parameters"}


async def test_a_form_is_looked_for_once() -> None:
    asked: list[str] = []

    async def holds(grammar: str) -> bool:
        asked.append(grammar)
        return "maxLength" not in grammar

    forms = UsableForms(holds)
    open_text = {"type": "string"}
    # Nothing is left of it once it is bounded, so that it is taken as it stands.
    assert [await forms.of([open_text]) for _ in range(3)] == [[open_text]] * 3
    assert asked == [grammar_of([open_text]), grammar_of([TEXT])]
    with pytest.raises(GrammarError, match="can't turn the schema into a grammar"):
        await forms.of([{"type": "string", "maxLength": 3}])


async def test_only_so_many_forms_are_remembered() -> None:
    asked: list[str] = []

    async def holds(grammar: str) -> bool:
        asked.append(grammar)
        return True

    forms = UsableForms(holds)
    for number in (*range(65), 64, 0):
        await forms.of([{"const": number}])
    # Each is asked for as it stands and bounded; the last is still known, the first was dropped.
    assert len(asked) == 66 * 2
