"""The shapes that ``workersai doctor`` tells apart, on captured replies and streams."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workersai._doctor.requests import most_cost_usd, text_bodies
from workersai._doctor.shapes import (
    call_places,
    expected_shape,
    result_of_payload,
    result_shape,
    stream_facts,
    usage_convention,
    usage_of_result,
)
from workersai.catalog import DEFAULT_MODEL

SAMPLES = Path(__file__).parents[2] / "wire" / "samples"
INDEX = {entry["file"]: entry for entry in json.loads((SAMPLES / "index.json").read_text())}

WHOLE = {
    "w01_l33_native_object.json": "native",
    "w02_l33_native_tool_call.json": "native",
    "w04_l33_hybrid_binding.json": "hybrid",
    "w05_l33_hybrid_rest.json": "hybrid",
    "w06_l33_hybrid_tool_call.json": "hybrid",
    "w07_l33_prompt_text_completion.json": "text completion",
    "w20_gemma4_text.json": "chat",
    "w23_qwen3_reasoning_tool_call.json": "chat",
    "w24_qwen3_prompt_text_completion.json": "text completion",
    "w26_gptoss_dict_content.json": "chat",
    "w27_gptoss_responses.json": "Responses",
}
STREAMS = {
    "s01_l33_native.sse": ("native", "totals"),
    "s02_l33_hybrid_numbers.sse": ("hybrid", "increments, then totals"),
    "s10_l33_prompt_stream.sse": ("text completion", None),
    "s20_glm53_reasoning.sse": ("chat", None),
    "s23_qwen38_zero_usage_last.sse": ("chat", "totals, then zeros"),
    "s26_qwq_2025_cumulative.sse": ("chat", "cumulative, then totals"),
}


def result_of(file: str) -> Any:
    return result_of_payload(json.loads((SAMPLES / file).read_text()))


@pytest.mark.parametrize(("file", "shape"), WHOLE.items())
def test_the_shape_of_a_captured_reply(file: str, shape: str) -> None:
    assert result_shape(result_of(file)) == shape


def test_each_captured_answer_has_a_known_shape() -> None:
    whole = [name for name, entry in INDEX.items() if entry["kind"] == "whole" and (SAMPLES / name).exists()]
    assert len(whole) > len(WHOLE)
    assert not [name for name in whole if result_shape(result_of(name)) == "unknown"]


def test_the_usage_of_each_captured_answer_is_read() -> None:
    for name, entry in INDEX.items():
        if entry["kind"] == "whole" and (SAMPLES / name).exists() and entry["expect"].get("usage"):
            found = usage_of_result(result_of(name))
            assert found is not None
            assert list(found[:2]) == entry["expect"]["usage"], name


@pytest.mark.parametrize(("file", "expected"), STREAMS.items())
def test_the_shape_and_the_usage_of_a_captured_stream(file: str, expected: tuple[str, str | None]) -> None:
    facts = stream_facts([(SAMPLES / file).read_bytes()])
    assert facts.shape == expected[0]
    assert expected[1] in (None, facts.usage)
    assert (facts.done, facts.unreadable) == (True, 0)


def test_the_tokens_of_each_captured_stream_are_counted() -> None:
    for name, entry in INDEX.items():
        wanted = entry["expect"].get("usage")
        if name.endswith(".sse") and (SAMPLES / name).exists() and wanted:
            found = stream_facts([(SAMPLES / name).read_bytes()]).tokens
            assert found is not None, name
            assert list(found) == wanted, name


@pytest.mark.parametrize("file", STREAMS)
@given(data=st.data())
def test_where_a_stream_is_cut_changes_nothing(file: str, data: st.DataObject) -> None:
    body = (SAMPLES / file).read_bytes()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=5)))
    chunks = [body[start:end] for start, end in zip([0, *cuts], [*cuts, len(body)], strict=True)]
    whole, cut = stream_facts([body]), stream_facts(chunks)
    assert (cut.shape, cut.usage, cut.tokens, cut.done) == (whole.shape, whole.usage, whole.tokens, whole.done)
    assert (cut.first_text is None) == (whole.first_text is None)


def test_where_calls_stand() -> None:
    assert call_places(result_of("w06_l33_hybrid_tool_call.json")) == ["the top level"]
    assert call_places(result_of("w23_qwen3_reasoning_tool_call.json")) == ["choices[0].message"]
    assert call_places(result_of("w04_l33_hybrid_binding.json")) == []


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["choices", "message", "delta", "usage", "response", "output"]), inner, max_size=3
        )
    ),
    max_leaves=8,
)


@given(JSON)
def test_nothing_that_can_come_breaks_the_look_at_it(value: Any) -> None:
    result_shape(value)
    call_places(value)
    usage_of_result(value)
    stream_facts([b"data: " + json.dumps(value).encode() + b"\n\n"])
    usage_convention([value] if isinstance(value, dict) else [])


def test_a_run_costs_less_than_a_cent() -> None:
    most = most_cost_usd(DEFAULT_MODEL)
    assert most is not None
    assert 0 < most < 0.01
    assert most_cost_usd("@cf/example/model") is None
    assert all(body["max_tokens"] <= 96 for body in text_bodies(DEFAULT_MODEL))


def test_what_is_expected_is_known_of_the_default_model_only() -> None:
    assert expected_shape(DEFAULT_MODEL, "messages") == "hybrid"
    assert expected_shape(DEFAULT_MODEL, "prompt") == "text completion"
    assert expected_shape("@cf/example/model", "messages") is None
