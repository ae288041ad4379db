"""Tools through LangChain, over real sockets, against scripted answers."""

from typing import Annotated, Any

import pydantic.v1
import pytest
from langchain_core import exceptions as langchain
from langchain_core.caches import InMemoryCache
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, ToolMessage
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import InjectedToolArg, StructuredTool, Tool, tool
from pydantic import BaseModel, Field, create_model
from typing_extensions import TypedDict

from langchain_workersai import ChatWorkersAI
from tests.langchain_workersai.face import Face
from tests.support import EVERY_DIALECT, Node, Serve, calling, connection, openai_stream
from tests.typed_dicts import PARAMETERS as TRIP_PARAMETERS
from tests.typed_dicts import TRIPS
from workersai import errors
from workersai.local import LocalServer
from workersai.local.engine import CalledTool
from workersai.local.scripted import Answer

CALLS = (CalledTool("get_weather", {"city": "Paris"}), CalledTool("get_weather", {"city": "Nice"}))


def get_weather(city: str, days: int | None = None) -> str:
    """The weather of a city.

    Args:
        city: Where.
        days: How many days ahead.
    """
    return f"{city} {days}"


class GetWeather(BaseModel):
    """The weather of a city."""

    city: str = Field(description="Where.")
    days: int | None = Field(default=None, description="How many days ahead.")


class OldWeather(pydantic.v1.BaseModel):
    """The weather of a city."""

    city: str = pydantic.v1.Field(description="Where.")
    days: int | None = pydantic.v1.Field(description="How many days ahead.")


class WeatherDict(TypedDict):
    """The weather of a city."""

    city: Annotated[str, ..., "Where."]
    days: Annotated[int | None, None, "How many days ahead."]


@tool(parse_docstring=True)
def weather_tool(city: str, days: int | None = None, user: Annotated[str, InjectedToolArg] = "") -> str:  # noqa: D417
    """The weather of a city.

    Args:
        city: Where.
        days: How many days ahead.
    """
    return f"{city} {days} {user}"


PARAMETERS = GetWeather.model_json_schema()
BARE = {"name": "get_weather", "description": "The weather of a city.", "parameters": PARAMETERS}


def grow(tree: Node) -> None:
    """Grow a tree."""


def undefined(code: "Nowhere") -> None:  # type: ignore[name-defined]  # noqa: F821
    """Runs code."""


class Untold(TypedDict):
    code: str


def chat(server: LocalServer, **fields: Any) -> ChatWorkersAI:
    return ChatWorkersAI(**connection(server), **fields)


def added(chunks: list[AIMessageChunk]) -> AIMessageChunk:
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole = whole + chunk
    return whole


@pytest.mark.parametrize(
    "source",
    [
        get_weather,
        GetWeather,
        OldWeather,
        WeatherDict,
        weather_tool,
        StructuredTool(name="w", description="The weather of a city.", args_schema=PARAMETERS, func=get_weather),
        BARE,
        {"type": "function", "function": BARE},
        {"name": "get_weather", "description": "The weather of a city.", "input_schema": PARAMETERS},
        {**PARAMETERS, "title": "get_weather"},
    ],
    ids=["function", "class", "v1", "typeddict", "tool", "dict tool", "bare", "openai", "anthropic", "schema"],
)
def test_whatever_langchain_takes_for_a_tool_reaches_the_service(serve: Serve, source: Any) -> None:
    server = serve("hi")
    chat(server).bind_tools([source]).invoke("hi")
    function = server.requests[0].body["tools"][0]["function"]
    assert function["description"] == "The weather of a city."
    assert function["parameters"] == {
        "type": "object",
        "properties": {
            "city": {"type": "string", "description": "Where."},
            "days": {"type": "integer", "description": "How many days ahead."},
        },
        "required": ["city"],
    }


@pytest.mark.parametrize("source", TRIPS)
def test_every_typeddict_is_a_tool(serve: Serve, source: type) -> None:
    server = serve("hi")
    chat(server).bind_tools([source]).invoke("hi")
    assert server.requests[0].body["tools"][0]["function"]["parameters"] == TRIP_PARAMETERS


@pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning")  # as_tool is one
def test_a_tool_of_one_text_and_a_runnable_are_tools(serve: Serve) -> None:
    server = serve("hi")
    search = Tool(name="search", description="Look it up.", func=len)
    shout = RunnableLambda(lambda given: given["text"].upper()).as_tool(
        name="shout", description="Shout.", arg_types={"text": str}
    )
    tools: list[Any] = [search, shout]
    chat(server).bind_tools(tools).invoke("hi")
    functions = [entry["function"] for entry in server.requests[0].body["tools"]]
    assert [(function["name"], list(function["parameters"]["properties"])) for function in functions] == [
        ("search", ["__arg1"]),
        ("shout", ["text"]),
    ]


@pytest.mark.parametrize(
    ("choice", "sent"),
    [
        (None, None),
        (False, None),
        ("auto", "auto"),
        ("none", "none"),
        ("any", "required"),
        ("required", "required"),
        (True, "required"),
        ("search", {"type": "function", "function": {"name": "search"}}),
        ({"type": "function", "function": {"name": "search"}}, {"type": "function", "function": {"name": "search"}}),
    ],
)
def test_every_way_to_choose_a_tool_is_sent(serve: Serve, choice: Any, sent: Any) -> None:
    server = serve("hi")
    tools: list[Any] = [get_weather, {"name": "search", "description": "Look it up."}]
    chat(server).bind_tools(tools, tool_choice=choice).invoke("hi")
    assert server.requests[0].body.get("tool_choice") == sent


@EVERY_DIALECT
def test_calls_come_back_with_ids(face: Face, serve: Serve) -> None:
    message = face.whole(chat(serve([Answer(tool_calls=CALLS)])).bind_tools([get_weather]), "hi")
    assert [(call["name"], call["args"]) for call in message.tool_calls] == [
        ("get_weather", {"city": "Paris"}),
        ("get_weather", {"city": "Nice"}),
    ]
    assert len({call["id"] for call in message.tool_calls}) == 2
    assert message.response_metadata["finish_reason"] == "tool_calls"
    assert [block["type"] for block in message.content_blocks] == ["tool_call", "tool_call"]


PIECES = openai_stream(
    [{"id": "c1", "type": "function", "index": 0, "function": {"name": "get_weather"}}],
    [{"index": 0, "function": {"arguments": '{"ci'}}],
    [{"id": "c2", "type": "function", "index": 1, "function": {"name": "get_weather"}}],
    [{"index": 0, "function": {"arguments": 'ty": "Paris"}'}}, {"index": 1, "function": {"arguments": '{"city": "Ni'}}],
    [{"index": 1, "function": {"arguments": 'ce"}'}}],
    [{"index": 0, "id": None, "type": None, "function": {"name": None, "arguments": ""}}],
)


@pytest.mark.parametrize("output_version", ["v0", "v1"])
def test_streamed_calls_arrive_piece_by_piece_and_merge(face: Face, serve: Serve, output_version: str) -> None:
    llm = chat(serve([PIECES]), output_version=output_version).bind_tools([get_weather])
    chunks = face.pieces(llm, "hi")
    pieces = [piece["args"] for chunk in chunks for piece in chunk.tool_call_chunks]
    assert [piece for piece in pieces if piece] == ['{"ci', 'ty": "Paris"}', '{"city": "Ni', 'ce"}']
    whole = added(chunks)
    assert [(call["id"], call["args"]) for call in whole.tool_calls] == [
        ("c1", {"city": "Paris"}),
        ("c2", {"city": "Nice"}),
    ]
    assert whole.response_metadata["finish_reason"] == "tool_calls"


@pytest.mark.parametrize(
    "arguments",
    ["{city", '{"city": "Par', '{"city": "Par\\', '{"city": ', '{"city": "Paris"}}', "[1]", "5", "nul"],
)
def test_broken_arguments_are_invalid_calls_streamed_or_not(face: Face, serve: Serve, arguments: str) -> None:
    call = {"id": "c1", "type": "function", "index": 0, "function": {"name": "get_weather", "arguments": arguments}}
    llm = chat(serve(calling(call))).bind_tools([get_weather])
    for message in (face.whole(llm, "hi"), added(face.pieces(llm, "hi"))):
        (broken,) = message.invalid_tool_calls
        assert (broken["id"], broken["name"]) == ("c1", "get_weather")
        assert broken["args"]
        assert broken["args"].startswith(arguments)
        assert message.tool_calls == []


@pytest.mark.parametrize("arguments", ["", " ", "null", "{}"])
def test_a_call_without_arguments_is_valid_streamed_or_not(face: Face, serve: Serve, arguments: str) -> None:
    call = {"id": "c1", "type": "function", "index": 0, "function": {"name": "get_weather", "arguments": arguments}}
    llm = chat(serve(calling(call))).bind_tools([get_weather])
    for message in (face.whole(llm, "hi"), added(face.pieces(llm, "hi"))):
        assert [(call["id"], call["args"]) for call in message.tool_calls] == [("c1", {})]


@EVERY_DIALECT
def test_a_call_written_as_text_is_a_call_and_prose_is_not_held_up(face: Face, serve: Serve) -> None:
    leaked = '{"type": "function", "name": "get_weather", "parameters": {"city": "Paris"}}'
    llm = chat(serve([leaked, leaked, Answer(pieces=["It ", "is."])])).bind_tools([get_weather])
    for message in (face.whole(llm, "hi"), added(face.pieces(llm, "hi"))):
        assert [(call["name"], call["args"]) for call in message.tool_calls] == [("get_weather", {"city": "Paris"})]
        assert message.text == ""
    assert [chunk.text for chunk in face.pieces(llm, "hi")] == ["It ", "is.", ""]


@EVERY_DIALECT
def test_one_call_at_a_time(face: Face, serve: Serve) -> None:
    llm = chat(serve(lambda _: Answer(tool_calls=CALLS))).bind_tools([get_weather], parallel_tool_calls=False)
    for message in (face.whole(llm, "hi"), added(face.pieces(llm, "hi"))):
        assert [call["args"] for call in message.tool_calls] == [{"city": "Paris"}]
        (dropped,) = message.response_metadata["dropped_tool_calls"]
        assert dropped["arguments"] == {"city": "Nice"}


def test_an_argument_that_must_be_there_and_may_be_null_comes_back_as_null(face: Face, serve: Serve) -> None:
    def forecast(city: str, days: int | None) -> None:
        """A forecast."""

    llm = chat(serve(lambda _: Answer(tool_calls=(CalledTool("forecast", {"city": "Paris"}),)))).bind_tools([forecast])
    for message in (face.whole(llm, "hi"), added(face.pieces(llm, "hi"))):
        assert message.tool_calls[0]["args"] == {"city": "Paris", "days": None}


def test_strict_closes_the_objects(serve: Serve) -> None:
    server = serve("hi")
    chat(server).bind_tools([get_weather], strict=True).invoke("hi")
    function = server.requests[0].body["tools"][0]["function"]
    assert function["parameters"]["additionalProperties"] is False
    assert "strict" not in function, "the published schema has no such field"


@EVERY_DIALECT
def test_a_history_of_calls_goes_back(face: Face, serve: Serve) -> None:
    server = serve("It rains.")
    call = {"id": "c1", "name": "get_weather", "args": {"city": "Paris"}, "type": "tool_call"}
    broken = {"id": "c2", "name": "get_weather", "args": "{city", "error": "no JSON", "type": "invalid_tool_call"}
    history = [
        HumanMessage("Weather?"),
        AIMessage("", tool_calls=[call], invalid_tool_calls=[broken]),
        ToolMessage("rain", tool_call_id="c1"),
        ToolMessage("bad arguments", tool_call_id="c2", status="error"),
    ]
    face.whole(chat(server).bind_tools([get_weather]), history)
    _, assistant, rain, bad = server.requests[0].body["messages"]
    assert assistant["content"] == (
        '{"name":"get_weather","parameters":{"city":"Paris"}}\n{"name":"get_weather","parameters":{city}'
    )
    assert rain == {"role": "tool", "name": "get_weather", "tool_call_id": "c1", "content": "rain"}
    assert bad["content"] == "Error: bad arguments"


@pytest.mark.parametrize(
    ("tools", "options", "says"),
    [
        ([{"name": "", "description": "x"}], {}, r"tools\[0\] has no name"),
        ([get_weather, {"name": "get_weather"}], {}, "two tools of the name 'get_weather'"),
        ([get_weather], {"tool_choice": "search"}, "there is no tool 'search'; there are 'get_weather'"),
        ([], {"tool_choice": "any"}, "there are no tools"),
        ([{"name": "f", "parameters": {"type": "objekt"}}], {}, "tool 'f': there is no type 'objekt'"),
        ([{"name": "f", "parameters": {"city": "str"}}], {}, "tool 'f': this is no JSON Schema"),
        ([Node], {}, r"tool 'Node'.children\[\]: the schema refers to itself \(Node -> Node\)"),
        ([grow], {}, r"tool 'grow'.tree.children\[\]: the schema refers to itself"),
        ([tool(grow)], {}, r"tool 'grow'.tree.children\[\]: the schema refers to itself"),
        (None, {}, "tools must be a list, not NoneType"),
        ([StructuredTool], {}, r"tools\[0\] is the class StructuredTool: make a tool of it"),
        ([5], {}, r"tools\[0\] must be a workersai.Tool, a dict, a Pydantic class, a TypedDict or a function, not int"),
        ([GetWeather(city="x")], {}, r"tools\[0\] must be .* not GetWeather"),
        ([undefined], {}, r"tools\[0\] can't be made a tool of: name 'Nowhere' is not defined"),
        ([{"type": "web_search"}], {}, r"tools\[0\] is a tool of the type 'web_search'"),
        ([{"colour": "red"}], {}, r"a tool's dict has name, description and parameters; this one has 'colour'"),
        ([{"name": "Ann", "city": "Oslo"}], {}, "this one has 'name', 'city'"),
        ([{"toolSpec": {}}], {}, r"tools\[0\] can't be made a tool of"),
    ],
)
def test_bad_tools_are_refused_when_they_are_bound(serve: Serve, tools: Any, options: Any, says: str) -> None:
    server = serve("never")
    with pytest.raises(errors.BadRequestError, match=says) as caught:
        chat(server).bind_tools(tools, **options)
    assert isinstance(caught.value, langchain.ModelInvalidRequestError)
    assert server.requests == []


def test_an_answer_of_a_tool_that_was_not_called_is_refused(face: Face, serve: Serve) -> None:
    server = serve("never")
    with pytest.raises(errors.BadRequestError, match=r"messages\[1\] is a tool's answer, but no call"):
        face.whole(chat(server), [HumanMessage("hi"), ToolMessage("5", tool_call_id="c1")])
    assert server.requests == []


def test_the_same_tool_twice_is_refused_before_a_request(face: Face, serve: Serve) -> None:
    server = serve("never")
    llm = chat(server).bind_tools([GetWeather, GetWeather.model_json_schema()])
    for call in (face.whole, face.pieces):
        with pytest.raises(errors.BadRequestError, match="two tools of the name 'GetWeather'"):
            call(llm, "hi")
    assert server.requests == []


def test_a_typeddict_that_is_not_described_is_not_described_as_a_dict(serve: Serve) -> None:
    server = serve("hi")
    chat(server).bind_tools([Untold]).invoke("hi")
    assert server.requests[0].body["tools"][0]["function"]["description"] == "Untold"


def test_tools_can_be_given_to_a_call_as_they_are(face: Face, serve: Serve) -> None:
    server = serve("hi")
    for tools in ([weather_tool], [get_weather], [GetWeather]):
        face.whole(chat(server), "hi", tools=tools)
        face.pieces(chat(server), "hi", tools=tools)
    assert {len(record.body["tools"]) for record in server.requests} == {1}


def test_the_cache_tells_tools_and_formats_of_one_name_apart(serve: Serve) -> None:
    def format_of(field: str) -> type[BaseModel]:
        return create_model("Answer", **{field: (str, ...)})  # type: ignore[call-overload, no-any-return]

    server = serve([Answer(object={"a": "1"}), Answer(object={"b": "2"})])
    llm = chat(server, cache=InMemoryCache())
    texts = [llm.invoke("hi", response_format=format_of(field)).text for field in ("a", "b", "a")]
    assert texts == ['{"a": "1"}', '{"b": "2"}', '{"a": "1"}']
    assert len(server.requests) == 2
