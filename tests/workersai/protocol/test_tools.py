"""What a request offers the model: tools from whatever describes a function, and what is refused before it is sent."""

import json
import typing
from collections.abc import Mapping
from importlib.resources import files
from typing import Annotated, Any, Literal

import jsonschema
import pydantic.v1
import pytest
import typing_extensions as te
from pydantic import BaseModel, Field
from typing_extensions import NotRequired, TypedDict

from tests.support import request_of
from tests.typed_dicts import PARAMETERS, TRIPS
from workersai import Message, Settings, Tool, ToolCall
from workersai.errors import BadRequestError
from workersai.options import CallOptions
from workersai.protocol.json_mode import json_mode_of
from workersai.protocol.tools import Offer, ToolChoice, ToolLike, offer_of, tool_of
from workersai.protocol.values import InvalidToolCall

SETTINGS = Settings(account_id="acc", api_token="tok")
SCHEMA = json.loads(files("workersai.local").joinpath("llama-3.3-70b-instruct-fp8-fast.schema.json").read_text())
PROMPT, MESSAGES, *_ = map(jsonschema.Draft202012Validator, SCHEMA["input"]["oneOf"])
NONE = {"type": "object", "properties": {}}


def body(offer: Offer, messages: Any = "hi") -> dict[str, Any]:
    sent: dict[str, Any] = json.loads(request_of(SETTINGS, messages, CallOptions(), offer=offer).content)
    MESSAGES.validate(sent)
    return sent


def get_weather(city: str, unit: Literal["C", "F"] = "C", *, days: int | None = None) -> str:
    """The weather of a city."""
    return f"{city} {unit} {days}"


class GetWeather(BaseModel):
    """The weather of a city."""

    city: str
    unit: Literal["C", "F"] = "C"
    days: int | None = None


class WeatherDict(TypedDict):
    """The weather of a city."""

    city: str
    unit: NotRequired[Literal["C", "F"]]
    days: NotRequired[int | None]


class OldWeather(pydantic.v1.BaseModel):
    """The weather of a city."""

    city: str
    unit: Literal["C", "F"] = "C"
    days: int | None


BARE = {"name": "get_weather", "description": "The weather of a city.", "parameters": GetWeather.model_json_schema()}


@pytest.mark.parametrize(
    ("source", "name"),
    [
        (get_weather, "get_weather"),
        (GetWeather, "GetWeather"),
        (WeatherDict, "WeatherDict"),
        (OldWeather, "OldWeather"),
        (Tool("w", "The weather of a city.", GetWeather.model_json_schema()), "w"),
        (BARE, "get_weather"),
        ({"type": "function", "function": BARE}, "get_weather"),
        (GetWeather.model_json_schema(), "GetWeather"),
    ],
)
def test_a_tool_is_made_of_whatever_describes_a_function(source: ToolLike, name: str) -> None:
    (tool,) = body(offer_of([source], None))["tools"]
    function = tool["function"]
    parameters = function["parameters"]
    assert (tool["type"], function["name"], function["description"]) == ("function", name, "The weather of a city.")
    assert (parameters["type"], parameters["required"]) == ("object", ["city"])
    assert parameters["properties"]["days"] == {"type": "integer", "description": "Days"}
    assert parameters["properties"]["unit"]["enum"] == ["C", "F"]


class Town(te.TypedDict):
    """A town."""

    name: str


class Trip(typing.TypedDict):
    """A trip."""

    city: Annotated[str, ..., "Where to."]
    days: Annotated[int, 3, "How long."]
    price: Annotated[float | None, Field(ge=0, description="At most.")]
    by: Annotated[Literal["train", "car"], "How to get there."]
    towns: list[Town]
    then: "Town | None"
    notes: te.NotRequired[dict[str, Town | None]]


def test_a_typeddict_is_taken_with_all_that_it_says_of_its_fields() -> None:
    (tool,) = body(offer_of([Trip], None))["tools"]
    town = {"type": "object", "properties": {"name": {"type": "string", "description": "Name"}}, "required": ["name"]}
    described = {**town, "description": "A town."}
    assert tool["function"]["parameters"] == {
        "type": "object",
        "properties": {
            "city": {"type": "string", "description": "Where to."},
            "days": {"type": "integer", "default": 3, "description": "How long."},
            "price": {"type": "number", "minimum": 0, "description": "At most."},
            "by": {"type": "string", "enum": ["train", "car"], "description": "How to get there."},
            "towns": {"type": "array", "items": described, "description": "Towns"},
            "then": described,
            "notes": {"type": "object", "additionalProperties": described, "description": "Notes (values may be null)"},
        },
        "required": ["city", "by", "towns"],
    }


@pytest.mark.parametrize("source", TRIPS)
def test_a_field_of_a_typeddict_is_required_as_it_says_itself(source: type) -> None:
    (tool,) = body(offer_of([source], None))["tools"]
    assert tool["function"]["parameters"] == PARAMETERS
    mode = json_mode_of(source)
    assert mode is not None
    assert mode.wire["json_schema"]["required"] == PARAMETERS["required"]
    assert mode.wire["json_schema"]["properties"] == PARAMETERS["properties"]


class Parcel(typing.TypedDict, total=False):
    weight: "te.Required[float]"
    sender: "Annotated[te.Required[str], 'Who sent it.']"
    note: "te.NotRequired[str]"
    colour: str


def test_a_typeddict_whose_annotations_are_strings_has_its_required_fields() -> None:
    (tool,) = body(offer_of([Parcel], None))["tools"]
    assert tool["function"]["parameters"]["required"] == ["weight", "sender"]


class Letter(typing.TypedDict):
    text: str
    stamp: "te.NotRequired[str]"


def test_a_field_that_a_string_marks_as_not_required_is_not() -> None:
    (tool,) = body(offer_of([Letter], None))["tools"]
    assert tool["function"]["parameters"]["required"] == ["text"]


class Tree(te.TypedDict):
    branches: "list[Branch]"


class Branch(te.TypedDict):
    grows: Tree


def test_a_typeddict_that_refers_to_itself_is_refused() -> None:
    with pytest.raises(BadRequestError, match=r"tools\[0\]: the schema refers to itself \(Tree -> Branch -> Tree\)"):
        offer_of([Tree], None)


@pytest.mark.parametrize("key", ["parameters", "input_schema", "inputSchema"])
def test_the_dicts_of_others_are_tools_too(key: str) -> None:
    source = {"name": "get_weather", "description": "The weather.", key: GetWeather.model_json_schema()}
    (tool,) = body(offer_of([source], None))["tools"]
    assert "city" in tool["function"]["parameters"]["properties"]


def test_a_tool_without_parameters_or_description_has_them_on_the_wire() -> None:
    def stop_now() -> None: ...

    sources: list[ToolLike] = [
        stop_now,
        {"name": "stop_now"},
        {"name": "stop_now", "parameters": {}, "description": None},
    ]
    for source in sources:
        (tool,) = body(offer_of([source], None))["tools"]
        assert tool["function"]["description"] == "Stop now"
        assert tool["function"]["parameters"]["properties"] == {}


def test_the_annotations_of_a_function_say_what_its_parameters_are() -> None:
    async def buy(amount: Annotated[int, Field(ge=1, description="How many")]) -> None:
        """Buy some."""

    assert body(offer_of([buy], None))["tools"][0]["function"]["parameters"]["properties"] == {
        "amount": {"type": "integer", "minimum": 1, "description": "How many"}
    }


@pytest.mark.parametrize(
    ("choice", "one", "two"),
    [
        (None, None, None),
        (False, None, None),
        ("auto", "auto", "auto"),
        ("none", "none", "none"),
        ("required", "a", "required"),
        ("any", "a", "required"),
        (True, "a", "required"),
        ("a", "a", "a"),
        ({"type": "function", "function": {"name": "a"}}, "a", "a"),
    ],
)
def test_a_choice_is_sent_in_the_form_that_the_service_enforces(
    choice: ToolChoice | None, one: str | None, two: str | None
) -> None:
    a, b = Tool("a", "A", NONE), Tool("b", "B", NONE)
    for tools, expected in (([a], one), ([a, b], two)):
        offer = offer_of(tools, choice)
        named = {"type": "function", "function": {"name": "a"}}
        assert body(offer).get("tool_choice") == (named if expected == "a" else expected)
        assert offer.callable_names == (frozenset() if choice == "none" else {tool.name for tool in tools})


def test_without_tools_there_is_nothing_to_send() -> None:
    for choice in (None, False, "auto", "none"):
        for offer in (offer_of(None, choice), offer_of([], choice)):
            assert body(offer, [Message("user", "hi")]).keys() == {"messages"}


@pytest.mark.parametrize(
    ("tools", "choice", "says"),
    [
        ([Tool("", "A", NONE)], None, r"tools\[0\] has no name"),
        ([{"description": "A"}], None, r"tools\[0\] has no name"),
        ([{"type": "function", "function": {"name": " "}}], None, r"tools\[0\] has no name"),
        ([{"type": "function", "function": "f"}], None, r"tools\[0\]: function must be a dict"),
        (
            [{"type": "web_search_20250305", "name": "web_search"}],
            None,
            r"tools\[0\] is a tool of the type 'web_search_2",
        ),
        ([{"type": "web_search"}], None, r"tools\[0\] is a tool of the type 'web_search'"),
        ([get_weather, BARE], None, r"tools\[1\]: there are two tools of the name 'get_weather'"),
        ([get_weather], "get_time", r"tool_choice: there is no tool 'get_time'; there are 'get_weather'"),
        ([get_weather], {"type": "function", "function": {"name": "x"}}, "there is no tool 'x'"),
        ([get_weather], {"name": "x"}, "tool_choice must be 'auto'"),
        ([get_weather], 5, "tool_choice must be 'auto'"),
        ([], "any", "tool_choice: 'any' asks for a call, but there are no tools"),
        (None, "get_weather", "there are no tools"),
        ("get_weather", None, "tools must be a list, not str"),
        ([5], None, r"tools\[0\] must be a workersai.Tool, a dict"),
        ([{"name": "f", "parameters": {"city": "string"}}], None, "tool 'f': this is no JSON Schema"),
        ([{"name": "f", "parameters": 5}], None, "tool 'f': a JSON Schema must be a dict"),
        ([{"name": "f", "description": 5}], None, r"tools\[0\] \(f\): its description must be a string"),
        ([lambda *things, **more: (things, more)], None, r"tools\[0\]: no JSON Schema can be made of <lambda>"),
    ],
)
def test_bad_tools_are_refused_by_name(tools: Any, choice: Any, says: str) -> None:
    with pytest.raises(BadRequestError, match=says):
        offer_of(tools, choice)


def test_what_json_schema_cannot_say_is_refused() -> None:
    class Thing: ...

    def run(code: Thing) -> None: ...

    def undefined(code: "Nowhere") -> None: ...  # type: ignore[name-defined]  # noqa: F821

    for function in (run, undefined):
        with pytest.raises(BadRequestError, match=f"no JSON Schema can be made of {function.__name__}"):
            tool_of(function)


def test_a_text_with_tools_is_a_message_and_a_prompt_takes_none() -> None:
    offer = offer_of([get_weather], None)
    assert body(offer, "hi")["messages"] == [{"role": "user", "content": "hi"}]
    with pytest.raises(BadRequestError, match="raw=True sends the text as a prompt, and the service takes no tools"):
        request_of(SETTINGS, "hi", CallOptions(raw=True), offer=offer)
    with pytest.raises(BadRequestError, match="Leave out prompt_form='completion' to send the text as a message"):
        request_of(SETTINGS, "hi", CallOptions(prompt_form="completion"), offer=offer)
    with pytest.raises(BadRequestError, match="prompt is empty"):
        request_of(SETTINGS, "", CallOptions(), offer=offer)


def test_a_history_of_calls_goes_back_in_the_form_that_the_model_follows() -> None:
    sent = body(
        Offer(),
        [
            Message("user", "Weather?"),
            Message(
                "assistant",
                "Let me see.",
                tool_calls=[ToolCall("c1", "get_weather", {"city": "Paris"})],
                invalid_tool_calls=[InvalidToolCall("c2", "get_time", "{now", "The arguments are not JSON.")],
            ),
            Message("tool", "sunny", tool_call_id="c1"),
            Message("tool", "Error: no JSON", tool_call_id="c2", name="clock"),
        ],
    )
    _, assistant, weather, clock = sent["messages"]
    assert assistant["content"] == (
        'Let me see.\n{"name":"get_weather","parameters":{"city":"Paris"}}\n{"name":"get_time","parameters":{now}'
    )
    assert [call["id"] for call in assistant["tool_calls"]] == ["c1"]
    assert weather == {"role": "tool", "content": "sunny", "tool_call_id": "c1", "name": "get_weather"}
    assert clock["name"] == "clock"


@pytest.mark.parametrize(
    ("messages", "says"),
    [
        ([Message("user", "hi"), Message("tool", "5", tool_call_id="c1")], r"messages\[1\] is a tool's answer, but no"),
        (
            [Message("assistant", "", tool_calls=[ToolCall("c1", "f", {})]), Message("tool", "5", tool_call_id="c2")],
            r"messages\[1\] answers the call 'c2', which no message before it holds; there are 'c1'",
        ),
        ([Message("assistant", "", invalid_tool_calls=[5])], r"messages\[0\]: invalid_tool_calls must be a list"),  # type: ignore[list-item]
    ],
)
def test_an_answer_to_no_call_is_refused(messages: list[Message], says: str) -> None:
    with pytest.raises(BadRequestError, match=says):
        body(Offer(), messages)


def test_a_call_without_an_id_may_be_answered_by_any() -> None:
    history = [Message("assistant", "", tool_calls=[ToolCall("", "f", {})]), Message("tool", "5", tool_call_id="c2")]
    assert body(Offer(), history)["messages"][1]["tool_call_id"] == "c2"
    assert body(Offer(), [history[0], Message("tool", "5")])["messages"][1] == {
        "role": "tool",
        "content": "5",
        "name": "f",
    }


ENVELOPE = {"name": "Weather", "description": "Of a city.", "schema": GetWeather.model_json_schema(), "strict": True}


@pytest.mark.parametrize(
    ("source", "title", "description"),
    [
        (GetWeather, "GetWeather", "The weather of a city."),
        (WeatherDict, "WeatherDict", "The weather of a city."),
        (OldWeather, "OldWeather", "The weather of a city."),
        (GetWeather.model_json_schema(), "GetWeather", "The weather of a city."),
        (
            {"type": "json_schema", "json_schema": GetWeather.model_json_schema()},
            "GetWeather",
            "The weather of a city.",
        ),
        ({"type": "json_schema", "json_schema": GetWeather}, "GetWeather", "The weather of a city."),
        ({"type": "json_schema", "json_schema": ENVELOPE}, "Weather", "Of a city."),
    ],
)
def test_json_mode_has_the_bare_schema_with_name_and_description(source: Any, title: str, description: str) -> None:
    mode = json_mode_of(source)
    assert mode is not None
    assert mode.wire["type"] == "json_schema"
    schema = mode.wire["json_schema"]
    assert (schema["title"], schema["description"], schema["required"]) == (title, description, ["city"])
    assert schema["properties"]["days"] == {"type": "integer", "description": "Days"}
    options = CallOptions(prompt_form="completion")
    PROMPT.validate(json.loads(request_of(SETTINGS, "hi", options, json_mode=mode).content))


def test_a_json_object_of_any_kind_and_plain_text_can_be_asked_for() -> None:
    assert json_mode_of(None) is json_mode_of({"type": "text"}) is None
    mode = json_mode_of({"type": "json_object"})
    assert mode is not None
    assert mode.wire == {"type": "json_object"}


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ({}, "its type must be 'json_object' or 'json_schema', got None"),
        ({"type": "xml"}, "its type must be"),
        ({"json_schema": {}}, "its type must be"),
        ("json_object", "must be a dict, a Pydantic class or a TypedDict, not str"),
        (5, "not int"),
        ([], "not list"),
        ({"type": "json_schema"}, "json_schema must be a JSON Schema, not NoneType"),
        ({"type": "json_schema", "json_schema": {}}, "no JSON Schema: it has nothing"),
        ({"type": "json_schema", "json_schema": {"x": object()}}, "no JSON Schema: it has 'x'"),
    ],
)
def test_a_response_format_that_the_service_lacks_is_refused(source: Any, says: str) -> None:
    with pytest.raises(BadRequestError, match=f"response_format.*{says}"):
        json_mode_of(source)


def test_whether_a_text_is_the_object_that_was_asked_for() -> None:
    mode = json_mode_of(GetWeather)
    assert mode is not None
    assert mode.is_met_by('{"city": "Paris"}')
    assert not any(map(mode.is_met_by, ("Paris", '{"unit": "C"}', '["city"]', "")))


def test_a_schema_that_is_no_json_is_refused() -> None:
    for default in (object(), float("nan")):
        schema: Mapping[str, Any] = {"type": "object", "properties": {"a": {"type": "string", "default": default}}}
        with pytest.raises(BadRequestError, match="can't be written as JSON"):
            request_of(SETTINGS, "hi", CallOptions(), json_mode=json_mode_of(schema))
