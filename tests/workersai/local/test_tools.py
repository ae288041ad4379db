"""Tools offered to the real SmolLM2: when it calls, what its calls hold, and what it makes of their answers."""

import json
from typing import Any

import jsonschema
import pytest

from tests.workersai.local.asking import chat, error_of, events_of, result_of, run
from workersai.local import LocalServer

pytestmark = pytest.mark.model

CITY = {"type": "object", "properties": {"city": {"type": "string", "description": "The city."}}, "required": ["city"]}
WEATHER = {"name": "get_weather", "description": "Tells the weather in a city.", "parameters": CITY}
NUMBERS = {
    "type": "object",
    "properties": {
        "a": {"type": "integer", "description": "The first.", "minimum": 0, "maximum": 9},
        "b": {"type": "integer", "description": "The second."},
    },
    "required": ["a", "b"],
}
ADD = {"type": "function", "function": {"name": "add", "description": "Adds two numbers.", "parameters": NUMBERS}}
ADDED = {"type": "function", "function": {"name": "add"}}
# Two ways to ask, one for each of the ways that the model takes without being forced.
TALK, ORDER = "What is your name?", "Call get_weather with city Paris."
CALL = {"name": "get_weather", "arguments": {"city": "Paris"}}


def asking(text: str, **fields: Any) -> dict[str, Any]:
    body = {"messages": [{"role": "user", "content": text}], "tools": [WEATHER, ADD], "temperature": 0}
    return {**body, **fields}


def only_call(result: dict[str, Any]) -> dict[str, Any]:
    (call,) = result["tool_calls"]
    assert result["response"] is None
    assert call.keys() == {"name", "arguments"}
    return dict(call)


def test_a_demanded_call_is_made_whatever_is_said(smollm: LocalServer) -> None:
    result = result_of(run(smollm, asking("What is the weather in Paris?", tool_choice="required")))
    assert only_call(result) == CALL
    assert result["usage"]["completion_tokens"] < 40
    named = only_call(result_of(run(smollm, asking(TALK, tool_choice=ADDED, temperature=2, seed=3))))
    assert named["name"] == "add"
    jsonschema.validate(named["arguments"], NUMBERS)


def test_the_model_chooses_between_a_call_and_a_text(smollm: LocalServer) -> None:
    assert only_call(result_of(run(smollm, asking(ORDER)))) == CALL
    talk = result_of(run(smollm, asking(TALK, tool_choice="auto", max_tokens=12)))
    assert talk["tool_calls"] == []
    assert talk["response"][0].isalpha()


def test_no_call_is_made_where_none_may_be(smollm: LocalServer) -> None:
    result = result_of(run(smollm, asking(ORDER, tool_choice="none", max_tokens=12)))
    assert result["tool_calls"] == []
    assert result["response"]


def test_tools_that_may_not_be_called_are_not_read(smollm: LocalServer) -> None:
    def read(body: dict[str, Any]) -> int:
        return int(result_of(run(smollm, {**body, "max_tokens": 1}))["usage"]["prompt_tokens"])

    without = read({"messages": asking(TALK)["messages"]})
    assert read(asking(TALK, tool_choice="none")) == without
    assert without < read(asking(TALK, tool_choice=ADDED)) < read(asking(TALK))


def test_a_text_beside_tools_is_streamed_in_pieces_and_a_call_at_once(smollm: LocalServer) -> None:
    *events, usage, done = events_of(run(smollm, asking(TALK, max_tokens=12, stream=True)).text)
    assert (len([event for event in events if event["response"]]) > 5, done) == (True, "[DONE]")
    event, usage, done = events_of(run(smollm, asking(ORDER, stream=True)).text)
    assert (event["tool_calls"], usage["usage"]["completion_tokens"] > 5, done) == ([CALL], True, "[DONE]")


def test_the_twin_calls_in_openais_shape(smollm: LocalServer) -> None:
    (choice,) = chat(smollm, asking(ORDER, tool_choice="required")).json()["choices"]
    (call,) = choice["message"]["tool_calls"]
    assert (choice["finish_reason"], choice["message"]["content"], call["type"]) == ("tool_calls", None, "function")
    assert json.loads(call["function"]["arguments"]) == CALL["arguments"]
    *chunks, done = events_of(chat(smollm, asking(ORDER, stream=True)).text)
    (streamed,) = [call for chunk in chunks for call in chunk["choices"][0]["delta"].get("tool_calls", [])]
    assert (streamed["index"], streamed["function"], done) == (0, call["function"], "[DONE]")
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


def test_arguments_satisfy_a_schema_of_many_kinds(smollm: LocalServer) -> None:
    parameters = {
        "type": "object",
        "properties": {
            "where": {
                "type": "object",
                "description": "The place.",
                "properties": {"lat": {"type": "number", "minimum": -90, "maximum": 90}, "name": {"type": "string"}},
                "required": ["lat", "name"],
            },
            "units": {"type": "string", "description": "Units.", "enum": ["metric", "imperial"]},
            "days": {"type": "array", "description": "Days.", "items": {"$ref": "#/$defs/Day"}, "minItems": 1},
            "type": {"type": "string", "description": "A property that is named like a keyword."},
        },
        "required": ["where", "units", "days", "type"],
        "$defs": {"Day": {"type": "integer", "minimum": 1, "maximum": 7}},
    }
    tool = {**WEATHER, "parameters": parameters}
    for sampling in ({"temperature": 0}, {"temperature": 1.5, "seed": 5}):
        result = result_of(run(smollm, asking("Weather in Oslo?", tools=[tool], tool_choice="required", **sampling)))
        jsonschema.validate(only_call(result)["arguments"], parameters)


@pytest.mark.parametrize("choice", ["required", "auto"])
def test_parameters_that_no_grammar_can_be_made_of_are_5024(smollm: LocalServer, choice: str) -> None:
    impossible = {"n": {"type": "string", "description": "No text.", "pattern": "(?=look)ahead"}}
    tool = {**WEATHER, "parameters": {"type": "object", "properties": impossible, "required": ["n"]}}
    status, code, message = error_of(run(smollm, asking(TALK, tools=[ADD, tool], tool_choice=choice)))
    assert (status, code) == (400, 5024)
    assert "be it JSON Mode's or a tool's" in message


def test_a_call_that_max_tokens_cuts_short_is_a_text(smollm: LocalServer) -> None:
    cut = asking(ORDER, tool_choice="required", max_tokens=6)
    result = result_of(run(smollm, cut))
    assert (result["tool_calls"], result["response"].startswith('{"name"')) == ([], True)
    (choice,) = chat(smollm, cut).json()["choices"]
    assert (choice["finish_reason"], choice["message"]["content"]) == ("length", result["response"])


def test_what_would_run_on_is_bounded(smollm: LocalServer) -> None:
    story = {
        "type": "object",
        "properties": {"text": {"type": "string"}, "n": {"type": "number"}},
        "required": ["text"],
    }
    answered = {"messages": asking("Tell me a very long story.")["messages"], "temperature": 0}
    told = result_of(run(smollm, {**answered, "response_format": {"type": "json_schema", "json_schema": story}}))
    assert 0 < len(told["response"]["text"]) <= 120
    names = {"type": "array", "items": {"type": "string"}, "minItems": 2}
    for seed in (1, 2):
        body = {**answered, "temperature": 0.6, "seed": seed}
        result = result_of(run(smollm, {**body, "response_format": {"type": "json_schema", "json_schema": names}}))
        jsonschema.validate(result["response"], {**names, "maxItems": 8})
        assert result["usage"]["completion_tokens"] < 256


def test_bounds_that_leave_nothing_are_not_set(smollm: LocalServer) -> None:
    parts = [
        {"type": "object", "properties": {name: {"type": "boolean"}}, "required": [name]} for name in ("left", "right")
    ]
    wanted = {"type": "json_schema", "json_schema": {"allOf": parts}}
    result = result_of(run(smollm, {"prompt": "Left and right?", "response_format": wanted, "temperature": 0}))
    assert result["response"].keys() >= {"left", "right"}


def test_tools_and_json_mode_give_either_and_a_demanded_call_wins(smollm: LocalServer) -> None:
    name = {"type": "object", "properties": {"me": {"type": "string", "maxLength": 20}}, "required": ["me"]}
    wanted = {"response_format": {"type": "json_schema", "json_schema": name}}
    assert only_call(result_of(run(smollm, asking(ORDER, **wanted)))) == CALL
    assert only_call(result_of(run(smollm, asking(TALK, tool_choice="required", **wanted))))["name"] in {
        "get_weather",
        "add",
    }
    talk = result_of(run(smollm, asking(TALK, tool_choice="none", **wanted)))
    jsonschema.validate(talk["response"], name)


@pytest.mark.parametrize("shape", ["text", "calls"])
def test_a_tools_answer_is_answered_in_words(smollm: LocalServer, shape: str) -> None:
    openai = {"id": "1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'}}
    called = (
        {"content": '{"name": "get_weather", "parameters": {"city": "Paris"}}'}
        if shape == "text"
        else {
            "content": "",
            "tool_calls": [openai],
        }
    )
    messages = [
        {"role": "user", "content": "What is the weather in Paris?"},
        {"role": "assistant", **called},
        {"role": "tool", "name": "get_weather", "tool_call_id": "1", "content": "22 degrees and sunny"},
    ]
    result = result_of(run(smollm, asking("", messages=messages, max_tokens=16)))
    assert result["tool_calls"] == []
    assert "22 degrees" in result["response"]
