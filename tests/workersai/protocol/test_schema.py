"""Any JSON Schema -> one that the published schema accepts, with nothing lost in silence."""
# ruff: noqa: UP007, UP045, PYI061 - both spellings of a union are what people bring
# ruff: noqa: E501 - in a table, a schema reads best in one line

import json
import tracemalloc
from collections.abc import Callable
from datetime import date
from enum import Enum, IntEnum
from importlib.resources import files
from typing import Annotated, Any, Literal, Optional, Union

import jsonschema
import pydantic.v1
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field, RootModel, create_model

from tests.counting import ComparisonCounter, operations
from workersai.errors import BadRequestError
from workersai.protocol.nulls import with_nulls
from workersai.protocol.schema import accepted_parameters, accepted_schema, words_of

PUBLISHED = json.loads(files("workersai.local").joinpath("llama-3.3-70b-instruct-fp8-fast.schema.json").read_text())
TOOLS = jsonschema.Draft202012Validator(PUBLISHED["input"]["oneOf"][1]["properties"]["tools"])


class Cat(BaseModel):
    """A cat."""

    kind: Literal["cat"]
    lives: int = Field(ge=1, le=9)


class Dog(BaseModel):
    kind: Literal["dog"]
    owner: str | None


class Colour(str, Enum):
    RED = "red"
    BLUE = "blue"


class Node(BaseModel):
    value: int
    children: list["Node"] = []


class Left(BaseModel):
    right: Optional["Right"] = None


class Right(BaseModel):
    left: Left | None = None


def parameters(schema: Any) -> dict[str, Any]:
    """The rewritten parameters; each of them is held against the published schema, and is a JSON Schema."""
    accepted = accepted_parameters(schema, "tool 'f'").schema
    function = {"name": "f", "description": "F", "parameters": accepted}
    TOOLS.validate([{"type": "function", "function": function}])
    jsonschema.Draft202012Validator.check_schema(accepted)
    assert_in_the_services_terms(accepted)
    return accepted


def assert_in_the_services_terms(schema: dict[str, Any]) -> None:
    assert isinstance(schema["type"], str)
    assert not set(schema) & {"$ref", "$defs", "definitions", "anyOf", "oneOf", "allOf", "const", "title"}
    for inner in schema.get("properties", {}).values():
        assert inner["description"]
        assert_in_the_services_terms(inner)
    for keyword in ("items", "additionalProperties"):
        if isinstance(schema.get(keyword), dict):
            assert_in_the_services_terms(schema[keyword])


def of_field(annotation: Any, default: Any = ...) -> dict[str, Any]:
    """How the property of one annotation comes out."""
    model = create_model("Model", unit_price=(annotation, default))
    found: dict[str, Any] = parameters(model.model_json_schema())["properties"]["unit_price"]
    return found


PLAIN = {"description": "Unit price"}
CAT = {
    "type": "object",
    "properties": {
        "kind": {"type": "string", "enum": ["cat"], "description": "Kind"},
        "lives": {"type": "integer", "minimum": 1, "maximum": 9, "description": "Lives"},
    },
    "required": ["kind", "lives"],
    "description": "A cat.",
}


@pytest.mark.parametrize(
    ("annotation", "comes_out"),
    [
        (str, {"type": "string"} | PLAIN),
        (Optional[int], {"type": "integer"} | PLAIN),
        (
            Annotated[int, Field(ge=1, lt=5, multiple_of=2)],
            {"type": "integer", "minimum": 1, "exclusiveMaximum": 5, "multipleOf": 2} | PLAIN,
        ),
        (Annotated[str, Field(description="What it costs")], {"type": "string", "description": "What it costs"}),
        (Annotated[str, Field(title="Cost per piece")], {"type": "string", "description": "Cost per piece"}),
        (
            Annotated[str, Field(pattern="^a", max_length=3)],
            {"type": "string", "pattern": "^a", "maxLength": 3} | PLAIN,
        ),
        (Literal["a", "b", None], {"type": "string", "enum": ["a", "b"]} | PLAIN),
        (Literal["a", 1], {"type": "string", "enum": ["a"], "description": "Unit price (may also be 1)"}),
        (Literal[1, 2], {"type": "integer", "enum": [1, 2]} | PLAIN),
        (Colour, {"type": "string", "enum": ["red", "blue"]} | PLAIN),
        (IntEnum("Size", [("S", 1), ("L", 2)]), {"type": "integer", "enum": [1, 2]} | PLAIN),
        (Cat, CAT),
        (Optional[Cat], CAT),
        (list[Cat], {"type": "array", "items": CAT} | PLAIN),
        (
            set[int],
            {"type": "array", "items": {"type": "integer"}, "description": "Unit price (no item twice)"},
        ),
        (bytes, {"type": "string", "description": "Unit price (format binary)"}),
        (date, {"type": "string", "format": "date"} | PLAIN),
        (dict[str, int], {"type": "object", "additionalProperties": {"type": "integer"}} | PLAIN),
        (dict[str, Any], {"type": "object", "additionalProperties": True} | PLAIN),
        (Any, {"type": "string", "description": "Unit price (any JSON value, as text)"}),
        (Union[int, float], {"type": "number"} | PLAIN),
        (Union[int, str], {"type": "string", "description": "Unit price (may also be integer)"}),
        (Union[bool, Literal["auto"]], {"type": "boolean", "description": 'Unit price (may also be "auto")'}),
        (
            Union[str, list[str], None],
            {"type": "array", "items": {"type": "string"}, "description": "Unit price (may also be string)"},
        ),
        (
            list[Optional[int]],
            {"type": "array", "items": {"type": "integer"}, "description": "Unit price (items may be null)"},
        ),
        (
            tuple[int, int],
            {
                "type": "array",
                "items": {"type": "integer"},
                "minItems": 2,
                "maxItems": 2,
                "description": "Unit price (in this order: integer, integer)",
            },
        ),
        (
            tuple[int, str],
            {
                "type": "array",
                "minItems": 2,
                "maxItems": 2,
                "description": "Unit price (in this order: integer, string)",
            },
        ),
        (None, {"type": "null"} | PLAIN),
    ],
)
def test_a_property_comes_out_with_a_type_and_a_description(annotation: Any, comes_out: dict[str, Any]) -> None:
    assert of_field(annotation) == comes_out


@pytest.mark.parametrize("annotation", [str, Optional[str], Union[str, int, None], Optional[list[int]]])
def test_an_empty_description_is_none(annotation: Any) -> None:
    plain = of_field(annotation)
    assert plain["description"].startswith("Unit price")
    assert of_field(Annotated[annotation, Field(description="")]) == plain


def test_a_default_is_kept_and_null_is_none() -> None:
    assert of_field(int, 5) == {"type": "integer", "default": 5, "description": "Unit price"}
    assert of_field(int | None, None) == {"type": "integer", "description": "Unit price"}


def test_a_union_of_objects_becomes_one_object_and_says_which_there_are() -> None:
    found = of_field(Union[Cat, Dog])
    assert found["properties"]["kind"] == {"type": "string", "enum": ["cat", "dog"], "description": "Kind"}
    assert set(found["properties"]) == {"kind", "lives", "owner"}
    assert found["required"] == ["kind"]
    assert found["description"] == (
        'Unit price (one of: object with kind "cat", lives | object with kind "dog", owner)'
    )
    assert of_field(Annotated[Union[Cat, Dog], Field(discriminator="kind")]) == found


def test_what_may_be_null_need_not_be_there_and_its_null_is_put_back() -> None:
    schema = create_model("Model", a=(int | None, ...), b=(str, ...), pets=(list[Cat | Dog], ...)).model_json_schema()
    assert parameters(schema)["required"] == ["b", "pets"]
    sent = {"b": "x", "pets": [{"kind": "cat", "lives": 3}, {"kind": "dog"}, {"kind": "dog", "owner": "Ann"}]}
    assert with_nulls(sent, schema) == {
        "a": None,
        "b": "x",
        "pets": [{"kind": "cat", "lives": 3}, {"kind": "dog", "owner": None}, {"kind": "dog", "owner": "Ann"}],
    }
    assert with_nulls({"a": 1, "b": "x"}, schema) == {"a": 1, "b": "x"}, "what is missing is not made up"


def test_a_pydantic_v1_class_works() -> None:
    class Old(pydantic.v1.BaseModel):
        """Of old."""

        name: str
        size: int | None
        tag: Literal["x"] = "x"

    assert parameters(Old.schema()) == {
        "type": "object",
        "description": "Of old.",
        "properties": {
            "name": {"type": "string", "description": "Name"},
            "size": {"type": "integer", "description": "Size"},
            "tag": {"type": "string", "enum": ["x"], "default": "x", "description": "Tag"},
        },
        "required": ["name"],
    }


def test_what_the_service_is_not_known_to_take_is_told() -> None:
    schema = {
        "type": "object",
        "properties": {
            "a": {"type": "string", "description": "An a.", "not": {"const": "b"}},
            "b": {"allOf": [{"type": "integer"}, {"minimum": 2}], "$comment": "for us"},
            "c": {"properties": {"d": {"enum": [1, 2.5]}}},
            "e": {"type": ["string", "null"], "nullable": True},
            "f": {"anyOf": [{"type": "string", "pattern": "a"}, {"type": "string", "format": "date"}]},
        },
        "required": ["a", "e"],
    }
    assert parameters(schema)["properties"] == {
        "a": {"type": "string", "description": 'An a. (must also satisfy {"not": {"const": "b"}})'},
        "b": {"type": "integer", "minimum": 2, "description": "B"},
        "c": {
            "type": "object",
            "properties": {"d": {"type": "number", "enum": [1, 2.5], "description": "D"}},
            "description": "C",
        },
        "e": {"type": "string", "description": "E"},
        "f": {"type": "string", "description": "F (one of: string (pattern a) | string (format date))"},
    }
    assert parameters(schema)["required"] == ["a"]


def test_a_reference_may_point_anywhere_in_the_schema() -> None:
    schema = {
        "type": "object",
        "properties": {"a/b": {"type": "integer", "description": "Ab."}, "c": {"$ref": "#/properties/a~1b"}},
        "definitions": {},
    }
    assert parameters(schema)["properties"]["c"] == {"type": "integer", "description": "Ab."}


@pytest.mark.parametrize(
    ("schema", "comes_out"),
    [
        (
            {"$ref": "#/$defs/B", "properties": {"x": {"type": "string"}}, "required": ["x"]},
            {
                "properties": {
                    "base": {"type": "integer", "description": "Base"},
                    "x": {"type": "string", "description": "X"},
                },
                "required": ["base", "x"],
            },
        ),
        (
            {"allOf": [{"$ref": "#/$defs/B"}, {"properties": {"base": {"maximum": 5, "description": "Low."}}}]},
            {"properties": {"base": {"type": "integer", "maximum": 5, "description": "Low."}}, "required": ["base"]},
        ),
        (
            {
                "allOf": [
                    {"properties": {"a": {"maximum": 5, "minimum": 1}}},
                    {"properties": {"a": {"maximum": 7, "minimum": 2}}},
                ]
            },
            {"properties": {"a": {"type": "number", "maximum": 5, "minimum": 2, "description": "A"}}},
        ),
        (
            {"properties": {"a": {"type": "string", "allOf": [{"enum": ["a", "b"]}, {"enum": ["b", "c"]}]}}},
            {"properties": {"a": {"type": "string", "enum": ["b"], "description": "A"}}},
        ),
        (
            {"properties": {"a": {"type": "string", "allOf": [{"not": {"const": "a"}}, {"not": {"const": "b"}}]}}},
            {
                "properties": {
                    "a": {
                        "type": "string",
                        "description": 'A (must also satisfy {"not": {"const": "a"}}; must also satisfy {"not": {"const": "b"}})',
                    }
                }
            },
        ),
        (
            {"properties": {"a": {"type": "integer", "minimum": 1, "exclusiveMinimum": True}}},
            {"properties": {"a": {"type": "integer", "exclusiveMinimum": 1, "description": "A"}}},
        ),
        (
            {"properties": {"a.b.c": {"$ref": "#/$defs/any"}}},
            {"properties": {"a.b.c": {"type": "string", "description": "A.b.c (any JSON value, as text)"}}},
        ),
        (
            {"properties": {"a": {"type": "object", "patternProperties": {"^x": {"$ref": "#/$defs/any"}}}}},
            {
                "properties": {
                    "a": {
                        "type": "object",
                        "description": 'A (must also satisfy {"patternProperties": {"^x": {}}})',
                    }
                }
            },
        ),
        (
            {"properties": {"a": {"type": "array", "prefixItems": [{"type": "integer"}], "items": {"type": "string"}}}},
            {
                "properties": {
                    "a": {"type": "array", "description": "A (in this order: integer, then any number of string)"}
                }
            },
        ),
    ],
)
def test_what_holds_at_once_is_joined(schema: dict[str, Any], comes_out: dict[str, Any]) -> None:
    base = {"type": "object", "properties": {"base": {"type": "integer"}}, "required": ["base"]}
    found = parameters({"type": "object", **schema, "$defs": {"B": base, "any": True}})
    assert found == {"type": "object", **comes_out}


def test_a_schema_may_refer_to_another_twice() -> None:
    a = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}
    schema = {
        "allOf": [{"$ref": "#/$defs/A"}, {"$ref": "#/$defs/B"}],
        "properties": {"other": {"$ref": "#/$defs/A"}},
        "$defs": {"A": a, "B": {"allOf": [{"$ref": "#/$defs/A"}], "properties": {"y": {"type": "string"}}}},
    }
    found = parameters(schema)
    assert set(found["properties"]) == {"x", "y", "other"}
    assert found["required"] == ["x"]


@pytest.mark.parametrize(
    ("schema", "comes_out"),
    [
        ({"type": "string", "enum": [True, False]}, {"type": "boolean", "enum": [True, False], "description": "A"}),
        ({"type": "integer", "enum": [1.0, 2]}, {"type": "integer", "enum": [1.0, 2], "description": "A"}),
        ({"enum": [None]}, {"type": "null", "description": "A"}),
        ({"type": "array", "minItems": 1.0}, {"type": "array", "minItems": 1, "description": "A"}),
        (
            {"type": "object", "additionalProperties": {"type": ["integer", "null"]}, "required": ["b"]},
            {
                "type": "object",
                "additionalProperties": {"type": "integer"},
                "description": "A (values may be null; must also have b)",
            },
        ),
        (
            {"type": "array", "prefixItems": [{"type": "integer"}, {"type": ["string", "null"]}]},
            {"type": "array", "description": "A (in this order: integer, string or null)"},
        ),
        (
            {"type": "string", "contentEncoding": "base64"},
            {"type": "string", "description": 'A (must also satisfy {"contentEncoding": "base64"})'},
        ),
    ],
)
def test_no_value_is_lost_in_silence(schema: dict[str, Any], comes_out: dict[str, Any]) -> None:
    assert parameters({"type": "object", "properties": {"a": schema}})["properties"]["a"] == comes_out


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        (Node.model_json_schema(), r"tool 'f'.children\[\]: the schema refers to itself \(Node -> Node\)"),
        (Left.model_json_schema(), r"refers to itself \(Left -> Right -> Left\)"),
        ({"type": "object", "properties": {"a": {"$ref": "#"}}}, r"\(the whole schema"),
        (
            {"type": "object", "properties": {"a": {"$ref": "#/$defs/no"}}},
            r"f'.a: the reference '#/\$defs/no' leads nowhere",
        ),
        ({"type": "object", "properties": {"a": {"$ref": "https://x/y"}}}, "leads out of the schema"),
        ({"type": "object", "properties": {"a": 5}}, r"f'.a: a JSON Schema must be a dict, not int"),
        ({"type": "object", "properties": ["a"]}, r"f'.properties: must be a dict"),
        ({"type": "object", "properties": {"a": {"type": "str"}}}, r"f'.a: there is no type 'str' in JSON Schema"),
        ({"type": "object", "required": "a"}, r"f'.required: must be a list of names"),
        ({"type": "object", "properties": {"a": {"enum": []}}}, r"f'.a.enum: must be a list of at least one"),
        ({"type": "object", "properties": {"a": {"anyOf": {"type": "string"}}}}, r"a.anyOf: must be a list"),
        ({"type": "object", "properties": {"a": {"minimum": "1"}}}, r"a.minimum: '1' is not what"),
        ({"type": "object", "properties": {"a": {"description": 1}}}, r"a.description: must be a string"),
        ({"type": "array", "items": {"type": "string"}}, "parameters must be an object, not 'array'"),
        (RootModel[list[int]].model_json_schema(), "parameters must be an object, not 'array'"),
        ({"city": {"type": "string"}}, "no JSON Schema: it has 'city', but no type and no properties"),
        ([], "must be a dict, not list"),
        (
            {"type": "object", "properties": {"a": {"allOf": [{"properties": 3}, {"properties": {}}]}}},
            "a.properties: must be",
        ),
        (
            {"type": "object", "properties": {"a": {"allOf": [{"required": 3}, {"type": "object"}]}}},
            "a.required: must be",
        ),
        ({"type": "object", "properties": {"a": {"minimum": True}}}, "a.minimum: True is not what"),
        ({"type": "object", "properties": {"a": {"default": {1, 2}}}}, "f'.a: .* can't be written as JSON"),
        ({"type": "object", "properties": {"a": {"enum": [float("nan")]}}}, "f'.a: .* can't be written as JSON"),
        (
            {"type": "object", "properties": {"a": {"not": {"$ref": "#/no"}}}},
            "f'.a: the reference '#/no' leads nowhere",
        ),
    ],
)
def test_what_is_no_schema_that_the_service_could_take_is_refused_with_its_place(schema: Any, says: str) -> None:
    with pytest.raises(BadRequestError, match=says):
        accepted_parameters(schema, "tool 'f'")


def test_a_schema_that_grows_without_end_is_refused() -> None:
    layers = {
        f"d{n}": {"type": "object", "properties": {k: {"$ref": f"#/$defs/d{n + 1}"} for k in "ab"}} for n in range(20)
    }
    growing = {"$ref": "#/$defs/d0", "$defs": {**layers, "d20": {"type": "string"}}}
    deep: dict[str, Any] = {"type": "object"}
    deep["properties"] = {"again": deep}
    for schema in (growing, deep):
        with pytest.raises(
            BadRequestError,
            match=r"tool 'f'\..*has over (10,000 parts|64 levels): simplify it, or split it into several",
        ):
            accepted_parameters(schema, "tool 'f'")


def test_json_mode_takes_a_schema_of_any_type() -> None:
    assert accepted_schema({"type": "array", "items": {"type": "integer"}}, "response_format").schema["type"] == "array"


@pytest.mark.parametrize(
    ("name", "words"),
    [("unit_price", "Unit price"), ("unitPrice", "Unit price"), ("URL", "URL"), ("_", "_"), ("x-y", "X y")],
)
def test_a_name_becomes_words(name: str, words: str) -> None:
    assert words_of(name) == words


names = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True).filter(lambda name: not hasattr(BaseModel, name))
scalars = st.sampled_from(
    [str, int, float, bool, Any, Colour, Cat, Dog, Literal["a", 1, None], Annotated[int, Field(ge=0)], bytes]
)


def compound(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    pairs = st.tuples(inner, inner)
    return st.one_of(
        inner.map(lambda one: Optional[one]),
        inner.map(lambda one: list[one]),  # type: ignore[valid-type]
        inner.map(lambda one: dict[str, one]),  # type: ignore[valid-type]
        pairs.map(lambda two: Union[two]),
        pairs.map(lambda two: tuple[two]),  # type: ignore[valid-type]
        models(inner),
    )


def models(annotations: st.SearchStrategy[Any]) -> st.SearchStrategy[type[BaseModel]]:
    described = st.sampled_from(["", "Why it is there."])
    fields = st.tuples(annotations, st.booleans(), described).map(
        lambda made: (made[0], Field(description=made[2] or None) if made[1] else Field(default=None))
    )
    return st.dictionaries(names, fields, max_size=4).map(lambda of: create_model("Made", **of))  # type: ignore[call-overload]


@settings(max_examples=150)
@given(models(st.recursive(scalars, compound, max_leaves=6)))
def test_whatever_pydantic_prints_comes_out_as_the_published_schema_has_it(model: type[BaseModel]) -> None:
    parameters(model.model_json_schema())


def values_of(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """What a model may answer that is held to an accepted schema."""
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if schema["type"] == "array":
        items = values_of(schema["items"]) if "items" in schema else st.none()
        return st.lists(items, min_size=schema.get("minItems", 0), max_size=schema.get("maxItems", 3))
    if schema["type"] == "object":
        needed = schema.get("required", ())
        properties = {name: values_of(inner) for name, inner in schema.get("properties", {}).items()}
        listed = st.fixed_dictionaries(
            {name: inner for name, inner in properties.items() if name in needed},
            optional={name: inner for name, inner in properties.items() if name not in needed},
        )
        others = schema.get("additionalProperties")
        if not isinstance(others, dict):
            return listed
        return st.tuples(st.dictionaries(st.text(max_size=3), values_of(others), max_size=2), listed).map(
            lambda two: two[0] | two[1]
        )
    return {
        "string": st.text(max_size=5),
        "integer": st.integers(schema.get("minimum", -9), schema.get("maximum", 9)),
        "number": st.floats(0, 9),
        "boolean": st.booleans(),
        "null": st.none(),
    }[schema["type"]]


def lossless(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        inner.map(lambda one: Optional[one]),
        inner.map(lambda one: list[one]),  # type: ignore[valid-type]
        inner.map(lambda one: dict[str, one]),  # type: ignore[valid-type]
        inner.map(lambda one: tuple[one, one]),  # type: ignore[valid-type]
        models(inner),
    )


@settings(max_examples=150)
@given(models(st.recursive(scalars, lossless, max_leaves=6)), st.data())
def test_an_answer_to_the_rewritten_schema_is_one_to_the_schema_itself(
    model: type[BaseModel], data: st.DataObject
) -> None:
    schema = model.model_json_schema()
    answer = data.draw(values_of(parameters(schema)))
    model.model_validate(with_nulls(answer, schema))


def any_of(number: int) -> dict[str, Any]:
    return {"anyOf": [{"type": "object", "properties": {f"p{number}_{n}": {"type": "string"}}} for n in range(10)]}


def chain(size: int, last: dict[str, Any]) -> dict[str, Any]:
    return {f"l{n}": {"$ref": f"#/$defs/l{n + 1}"} for n in range(size)} | {f"l{size}": last}


GROWING: dict[str, tuple[dict[str, Any], str]] = {
    "a product of unions": ({"allOf": [any_of(n) for n in range(7)]}, "over 10,000 parts"),
    "references in allOf": (
        {
            "allOf": [{"$ref": "#/$defs/l0"}],
            "$defs": {f"l{n}": {"allOf": [{"$ref": f"#/$defs/l{n + 1}"}] * 10} for n in range(9)} | {"l9": {}},
        },
        "over 10,000 parts",
    ),
    "references in not": (
        {
            "properties": {"a": {"not": {"$ref": "#/$defs/l0"}}},
            "$defs": {f"l{n}": {"x": [{"$ref": f"#/$defs/l{n + 1}"}] * 10} for n in range(9)} | {"l9": {}},
        },
        "over 10,000 parts",
    ),
    "one enum in many places": (
        {
            "properties": {f"p{n}": {"$ref": "#/$defs/e"} for n in range(2_000)},
            "$defs": {"e": {"enum": [f"a value {n}" for n in range(1_000)]}},
        },
        "over 5,000,000 characters",
    ),
    "one description in many places": (
        {
            "properties": {f"p{n}": {"$ref": "#/$defs/e"} for n in range(2_000)},
            "$defs": {"e": {"type": "string", "description": "x" * 10_000}},
        },
        "over 5,000,000 characters",
    ),
    "one list in many places": (
        {
            "properties": {f"p{n}": {"not": {"$ref": "#/$defs/e"}} for n in range(2_000)},
            "$defs": {"e": {"x": list(range(10_000))}},
        },
        "over 5,000,000 characters",
    ),
    "a chain of references": (
        {"properties": {"a": {"$ref": "#/$defs/l0"}}, "$defs": chain(1_000, {"type": "string"})},
        "over 256 references",
    ),
}


@pytest.mark.parametrize("name", GROWING)
def test_a_small_schema_of_a_huge_one_is_refused_before_it_is_made(name: str) -> None:
    schema, bound = GROWING[name]
    tracemalloc.start()
    try:
        with pytest.raises(BadRequestError, match=rf"tool 'f'.*{bound}.*simplify it, or split it into several"):
            accepted_parameters({"type": "object", **schema}, "tool 'f'")
        assert tracemalloc.get_traced_memory()[1] < 50_000_000
    finally:
        tracemalloc.stop()


def counted(count: int) -> list[str]:
    return [ComparisonCounter(f"p{n}") for n in range(count)]


WIDE: dict[str, Callable[[int], dict[str, Any]]] = {
    "properties": lambda n: {"properties": {name: {"type": "string"} for name in counted(n)}, "required": counted(n)},
    "enums that hold at once": lambda n: {"properties": {"a": {"allOf": [{"enum": counted(n)}, {"enum": counted(n)}]}}},
    "names that are required twice": lambda n: {"allOf": [{"required": counted(n)}, {"required": counted(n)}]},
    "a union of enums": lambda n: {"properties": {"a": {"anyOf": [{"enum": [name]} for name in counted(n)]}}},
    "a union of objects": lambda n: {
        "anyOf": [
            {"type": "object", "properties": {name: {"type": "string"}, "a": {"enum": [name]}}, "required": [name]}
            for name in counted(n)
        ]
    },
    "a union of lists and their items": lambda n: {
        "properties": {
            "a": {
                "anyOf": [
                    *({"type": "string", "description": name} for name in counted(n)),
                    *({"type": "array", "items": {"type": "string"}, "description": name} for name in counted(n)),
                ]
            }
        }
    },
    "parts that hold at once": lambda n: {"allOf": [{"properties": {name: {"type": "string"}}} for name in counted(n)]},
}


@pytest.mark.parametrize("name", WIDE)
def test_a_schema_is_rewritten_in_a_time_in_proportion_to_it(name: str) -> None:
    def cost(size: int) -> tuple[int, int]:
        schema = {"type": "object", **WIDE[name](size)}
        ComparisonCounter.compared = 0
        return operations(lambda: accepted_parameters(schema, "tool 'f'")), ComparisonCounter.compared

    small, large = cost(100), cost(800)
    assert large[0] <= 8 * 1.6 * small[0]
    assert large[1] <= 8 * 1.6 * small[1] + 8_000
