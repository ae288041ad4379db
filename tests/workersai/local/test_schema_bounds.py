"""Schemas that count too far: each is refused before a grammar is made of it, and what is left ends no process."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.workersai.local.asking import error_of, result_of, run
from workersai.local import LocalServer, SmolLM
from workersai.local.engine import GrammarError
from workersai.local.patterns import repetitions
from workersai.local.schema_bounds import check_schema_bounds

TEXT = {"type": "string"}


def asking(schema: Any) -> dict[str, Any]:
    wanted = {"type": "json_schema", "json_schema": schema}
    return {"messages": [{"role": "user", "content": "give"}], "max_tokens": 3, "response_format": wanted}


def property_with(schema: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {"a": schema}, "required": ["a"]}


def nested(kind: str, count: int, depth: int) -> Any:
    schema: Any = TEXT
    for _ in range(depth):
        schema = {"type": "array", "items": schema, kind: count}
    return schema


def alternatives(count: int) -> dict[str, Any]:
    return {"anyOf": [{"properties": {f"p{index}": TEXT}} for index in range(count)]}


# Each keyword by itself: the last value that is let through, and the first that is not.
KEYWORDS = [
    *[(keyword, 10_000, 10_001) for keyword in ("minItems", "maxItems", "minContains", "maxContains")],
    *[(keyword, 1_000_000, 1_000_001) for keyword in ("minLength", "maxLength")],
    *[(keyword, 1_000, 1_001) for keyword in ("minProperties", "maxProperties")],
    ("maximum", 10**99, 10**101),
    ("minimum", -(10**99), -(10**101)),
    ("exclusiveMaximum", 1e99, 1e-101),
    ("multipleOf", 20_000, 20_001),
    ("multipleOf", 0.0001, 0.00020001),
    ("multipleOf", 10**9, 10**9 + 1),
    ("pattern", "^a{1,100000}$", "^a{1,100001}$"),
    ("pattern", "^((a{1,10}b){1,100}c){100}$", "^((a{1,10}b){1,100}c){101}$"),
    ("pattern", "a" * 2_000, "a" * 2_001),
    ("enum", [*range(9_990)], [*range(10_010)]),
    ("enum", ["a" * 1_990], ["a" * 2_010]),
    ("const", {"a": "b" * 1_980}, {"a": "b" * 2_010}),
    ("properties", {f"p{index}": {} for index in range(1_000)}, {f"p{index}": {} for index in range(1_001)}),
    ("required", ["a" * 1_990], ["a" * 2_010]),
    ("patternProperties", {f"p{index}": {} for index in range(20)}, {f"p{index}": {} for index in range(21)}),
    ("patternProperties", {"a{100000}": {}}, {"a{100001}": {}}),
    ("allOf", [alternatives(10)] * 3, [alternatives(10)] * 4),
    ("anyOf", [TEXT] * 4_990, [TEXT] * 5_010),
    ("description", "a" * 500_000, "a" * 600_000),
]
# What no keyword does alone.
TOGETHER: list[Any] = [
    {"properties": {name: {"type": "array", "maxItems": 9_000} for name in "abc"}},
    {"properties": {name: {"type": "string", "maxLength": 900_000} for name in "abcde"}},
    {"allOf": [{"multipleOf": 197}, {"multipleOf": 199}]},
    {"$defs": {"a": {"multipleOf": 197}, "b": {"multipleOf": 199}}, "allOf": [{"$ref": "#/$defs/a"}]},
    {"properties": {"a": {"multipleOf": 19_997}, "b": {"multipleOf": 19_993}, "c": {"multipleOf": 97}}},
    {"properties": {f"p{index}": {"enum": ["a" * 1_900]} for index in range(110)}},
    {"items": [{"allOf": [alternatives(40), {"oneOf": [TEXT] * 40}]}]},
]


@pytest.mark.parametrize(("keyword", "fits", "passes"), KEYWORDS, ids=lambda value: json.dumps(value)[:40])
def test_each_keyword_has_a_bound(keyword: str, fits: Any, passes: Any) -> None:
    for place in ({}, {"type": "object"}):
        check_schema_bounds([property_with({**place, keyword: fits})])
        with pytest.raises(GrammarError, match=r"but the local server's limit is [\d,]+\. Set a smaller number"):
            check_schema_bounds([property_with({**place, keyword: passes})])


@pytest.mark.parametrize("schema", TOGETHER, ids=lambda value: json.dumps(value)[:60])
def test_what_adds_up_has_a_bound(schema: Any) -> None:
    with pytest.raises(GrammarError, match="the local server's limit is"):
        check_schema_bounds([schema])


def test_the_schemas_of_a_request_add_up() -> None:
    check_schema_bounds([{"maxItems": 10_000}, {"maxItems": 10_000}])
    with pytest.raises(GrammarError, match="'maxItems' and its kind come to 30,000 in all"):
        check_schema_bounds([{"maxItems": 10_000}] * 3)


@pytest.mark.parametrize(
    ("pattern", "count"),
    [
        ("a{3}b{4}", 4),
        ("(a{1,5}b){2,3}", 15),
        ("(a{2}(b{3}){4}){5}", 60),
        ("a{2}{3}", 6),
        ("(a{5})*{4}", 20),
        ("(a{5})?b", 5),
        (r"\{9}[a{9}]\(a{2}", 2),
        ("[]{9}]{3}", 3),
        ("[^]{9}]{3}", 3),
        ("a{2,}", 2),
        ("(((", 1),
        ("a{4})){7}", 28),
        ("a{" + "9" * 5_000 + "}", 999_999_999_999),
        ("a{x}", 1),
    ],
)
def test_repetitions_within_repetitions_multiply(pattern: str, count: int) -> None:
    assert repetitions(pattern) == count


def worker_of(server: LocalServer) -> int:
    assert isinstance(server.engine, SmolLM)
    process = server.engine._llama.process
    assert process is not None
    return process.pid


@pytest.mark.model
def test_a_schema_beyond_a_bound_is_5024_with_the_bound(smollm: LocalServer) -> None:
    status, code, message = error_of(run(smollm, asking(property_with({"type": "array", "minItems": 10**9}))))
    assert (status, code) == (400, 5024)
    assert message == (
        "AiError: JSON Mode couldn't be met: '/properties/a/minItems' is 1,000,000,000 for one schema, but the local "
        "server's limit is 10,000. Set a smaller number, or a simpler schema."
    )
    tool = {"name": "f", "description": "d", "parameters": {"type": "object", "properties": {"a": {}}}}
    tool["parameters"]["properties"]["a"] = {"type": "array", "description": "d", "maxItems": 10_000_000}  # type: ignore[index]
    body = {"messages": [{"role": "user", "content": "give"}], "tools": [tool]}
    assert error_of(run(smollm, body))[:2] == (400, 5024)


@pytest.mark.model
@pytest.mark.parametrize(
    "schema",
    [
        *[
            {"type": ["array", "string", "object"], keyword: fits}
            for keyword, fits, _ in KEYWORDS
            if keyword != "anyOf"
        ],
        nested("maxItems", 1_000, 10),
        nested("minItems", 1_000, 10),
        {"type": "array", "maxItems": 10_000, "items": {"type": "array", "maxItems": 10_000, "items": TEXT}},
        {"allOf": [{"type": "number"}, {"multipleOf": 19_997}]},
        {"properties": {"a": {"multipleOf": 19_997}, "b": {"multipleOf": 19_993}}},
        {"enum": [letter + "a" * 1_900 for letter in "abcdefghijklmnopqrstuvwxyz"]},
        {"$defs": {"a": {"properties": {name: {"$ref": "#/$defs/a"} for name in "abcdefgh"}}}, "$ref": "#/$defs/a"},
        {"$ref": "file:///etc/passwd"},
        {"$ref": "#"},
    ],
    ids=lambda value: json.dumps(value)[:60],
)
def test_a_schema_at_its_bounds_ends_no_process(smollm: LocalServer, schema: Any) -> None:
    worker = worker_of(smollm)
    assert run(smollm, asking(property_with(schema))).status_code in (200, 400)
    assert worker_of(smollm) == worker
    assert result_of(run(smollm, {"prompt": "hi", "max_tokens": 1}))["response"] is not None


COUNTS = st.sampled_from([0, 1, 3, 50, 999, 10_000, 10**6, 10**9, 10**300, -1, 0.5, 1e-9, "x", None, True])
NUMBERS = st.sampled_from([7, 0.25, 997, 3_600, 19_997, 1e-300, 1e300, 0, -3])
PATTERNS = st.sampled_from(
    ["^a{1,9}$", r"^\p{L}{2,99}$", "^((a{1,60}b){1,60}){1,20}$", "(", "^(a|b)*a(a|b){90}$", ".*"]
)
LEAVES: st.SearchStrategy[Any] = st.fixed_dictionaries(
    {"type": st.sampled_from(["string", "number", "integer", "array", "object", "null"])},
    optional={
        **dict.fromkeys(("minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties"), COUNTS),
        **dict.fromkeys(("multipleOf", "minimum", "maximum"), NUMBERS),
        "pattern": PATTERNS,
        "enum": st.lists(st.text(max_size=20) | st.integers(), max_size=4),
        "uniqueItems": st.booleans(),
    },
)
NAMES = st.sampled_from("abcd")
SCHEMAS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.builds(lambda items, count: {"type": "array", "items": items, "maxItems": count}, inner, COUNTS),
        st.builds(lambda parts: {"type": "object", "properties": parts}, st.dictionaries(NAMES, inner, max_size=4)),
        st.builds(
            lambda keyword, parts: {keyword: parts},
            st.sampled_from(["anyOf", "oneOf", "allOf", "prefixItems"]),
            st.lists(inner, min_size=1, max_size=4),
        ),
        st.builds(lambda key, part: {"patternProperties": {key: part}}, PATTERNS, inner),
        st.builds(lambda part: {"$defs": {"a": part}, "items": {"$ref": "#/properties/a/$defs/a"}}, inner),
    ),
    max_leaves=8,
)


@pytest.mark.model
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(schema=SCHEMAS)
def test_no_schema_ends_llama_cpp(smollm: LocalServer, schema: Any) -> None:
    worker = worker_of(smollm)
    response = run(smollm, asking(property_with(schema)))
    assert response.status_code in (200, 400), response.text
    assert worker_of(smollm) == worker
