"""Tools and JSON Mode through both clients, over real sockets, with scripted answers."""

import json
from typing import Any

import pytest
from pydantic import BaseModel

from tests.counting import operations
from tests.support import EVERY_DIALECT, Driver, Serve, calling, connection, token_counts
from workersai import Completion, InvalidToolCall, Message, Tool, Usage, errors
from workersai.local.engine import CalledTool, RawReply
from workersai.local.scripted import Answer, Refusal
from workersai.protocol.surrogates import whole_value_of
from workersai.protocol.tool_calls import ToolCallAssembler

HI = [Message("user", "hi")]
PLACE = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"anyOf": [{"type": "integer"}, {"type": "null"}]}},
}
TOOLS = [
    Tool("get_weather", "The weather.", PLACE),
    Tool("get_time", "The time.", {"type": "object", "properties": {}}),
]
FACES = pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])


class Person(BaseModel):
    name: str
    age: int | None


def ask(driver: Driver, server: Any, streamed: bool, **options: Any) -> Completion:
    """The answer, whole or by a stream whose deltas tell the same."""
    if not streamed:
        return driver.run(connection(server), HI, **options)
    deltas = driver.stream(connection(server), HI, **options)
    completion = deltas[-1].completion
    assert completion is not None
    assert "".join(delta.text for delta in deltas) == completion.text
    starts = [delta.tool_call for delta in deltas if delta.tool_call and delta.tool_call.name]
    calls = [(call.id, call.name) for call in completion.tool_calls]
    calls += [(call.id, call.name) for call in completion.invalid_tool_calls]
    assert [(start.id, start.name) for start in starts] == calls
    return completion


@EVERY_DIALECT
@FACES
def test_calls_come_back_with_ids_of_their_own(driver: Driver, serve: Serve, streamed: bool) -> None:
    calls = (CalledTool("get_weather", {"city": "Paris"}), CalledTool("get_time", {}))
    server = serve([Answer(tool_calls=calls)])
    completion = ask(driver, server, streamed, tools=TOOLS, tool_choice="any")
    assert [(call.name, call.arguments) for call in completion.tool_calls] == [
        ("get_weather", {"city": "Paris"}),
        ("get_time", {}),
    ]
    assert len({call.id for call in completion.tool_calls}) == 2
    assert completion.finish_reason == "tool_calls"
    assert server.requests[0].body["tool_choice"] == "required"


@EVERY_DIALECT
@FACES
@pytest.mark.parametrize(
    "text",
    [
        '{"type": "function", "name": "get_time", "parameters": {}}',
        '<|python_tag|>{"name": "get_time", "arguments": {}}',
        '[{"name": "get_time", "parameters": {}}]',
    ],
)
def test_a_call_written_as_text_is_a_call(driver: Driver, serve: Serve, streamed: bool, text: str) -> None:
    completion = ask(driver, serve([text]), streamed, tools=TOOLS)
    assert [call.name for call in completion.tool_calls] == ["get_time"]
    assert (completion.text, completion.finish_reason) == ("", "tool_calls")


@EVERY_DIALECT
@FACES
@pytest.mark.parametrize("offered", [{}, {"tools": TOOLS[:1]}, {"tools": TOOLS, "tool_choice": "none"}])
def test_a_text_like_a_call_stays_text_where_no_such_tool_may_be_called(
    driver: Driver, serve: Serve, streamed: bool, offered: dict[str, Any]
) -> None:
    text = '{"type": "function", "name": "get_time", "parameters": {}}'
    completion = ask(driver, serve([text]), streamed, **offered)
    assert (completion.text, completion.tool_calls, completion.finish_reason) == (text, (), "stop")


@FACES
def test_broken_arguments_are_handed_over(driver: Driver, serve: Serve, streamed: bool) -> None:
    # Scripted as bytes: an engine's calls are always whole.
    broken = {
        "id": "c1",
        "type": "function",
        "index": 0,
        "function": {"name": "get_weather", "arguments": '{"city": Par'},
    }
    if streamed:
        event = json.dumps({"choices": [{"index": 0, "delta": {"tool_calls": [broken]}}]})
        reply = RawReply(f"data: {event}\n\ndata: [DONE]\n\n".encode())
    else:
        envelope = {"result": {"response": None, "tool_calls": [broken]}, "success": True, "errors": []}
        reply = RawReply(json.dumps(envelope).encode(), content_type="application/json")
    completion = ask(driver, serve([reply]), streamed, tools=TOOLS)
    (call,) = completion.invalid_tool_calls
    assert isinstance(call, InvalidToolCall)
    assert (call.id, call.name, call.arguments, completion.tool_calls) == ("c1", "get_weather", '{"city": Par', ())
    assert "not JSON" in call.error


@EVERY_DIALECT
@FACES
def test_ids_are_unique_and_arguments_can_be_sent_back(driver: Driver, serve: Serve, streamed: bool) -> None:
    text = (
        '{"id": 5, "name": "get_time", "parameters": {}}; {"id": "1", "name": "get_time", "parameters": {}};'
        '{"id": "1", "name": "get_time", "parameters": {}}'
    )
    completion = ask(driver, serve([text]), streamed, tools=TOOLS)
    ids = [call.id for call in completion.tool_calls]
    assert len(set(ids)) == 3
    assert all(isinstance(one, str) and one for one in ids)


@FACES
def test_not_a_number_is_no_argument(driver: Driver, serve: Serve, streamed: bool) -> None:
    call = {"id": "c1", "type": "function", "index": 0, "function": {"name": "get_time", "arguments": '{"at": NaN}'}}
    completion = ask(driver, serve(calling(call)), streamed, tools=TOOLS)
    assert [broken.arguments for broken in completion.invalid_tool_calls] == ['{"at": NaN}']


@EVERY_DIALECT
@FACES
def test_one_call_at_a_time_keeps_the_first_and_tells_the_others(driver: Driver, serve: Serve, streamed: bool) -> None:
    calls = (CalledTool("get_weather", {"city": "Paris"}), CalledTool("get_time", {}))
    completion = ask(driver, serve([Answer(tool_calls=calls)]), streamed, tools=TOOLS, parallel_tool_calls=False)
    assert [call.name for call in completion.tool_calls] == ["get_weather"]
    assert [call.name for call in completion.dropped_tool_calls] == ["get_time"]


@EVERY_DIALECT
@FACES
def test_a_leaked_call_that_the_service_sends_as_well_is_one_call(driver: Driver, serve: Serve, streamed: bool) -> None:
    text = '{"name": "get_time", "parameters": {}}'
    server = serve([Answer(text=text, tool_calls=(CalledTool("get_time", {}),))])
    completion = ask(driver, server, streamed, tools=TOOLS)
    assert [call.name for call in completion.tool_calls] == ["get_time"]


@EVERY_DIALECT
@FACES
def test_a_null_that_the_model_could_not_send_is_put_back(driver: Driver, serve: Serve, streamed: bool) -> None:
    tool = Tool("get_weather", "The weather.", {**PLACE, "required": ["city", "days"]})
    server = serve([Answer(tool_calls=(CalledTool("get_weather", {"city": "Paris"}),)), Answer(object={"name": "Ann"})])
    completion = ask(driver, server, streamed, tools=[tool])
    assert completion.tool_calls[0].arguments == {"city": "Paris", "days": None}
    assert server.requests[0].body["tools"][0]["function"]["parameters"]["required"] == ["city"]
    answer = ask(driver, server, streamed, response_format=Person)
    assert Person.model_validate_json(answer.text) == Person(name="Ann", age=None)


@EVERY_DIALECT
@FACES
def test_json_mode_answers_with_the_object_as_text(driver: Driver, serve: Serve, streamed: bool) -> None:
    server = serve([Answer(object={"name": "Ann", "age": 5})])
    completion = ask(driver, server, streamed, response_format=Person)
    assert json.loads(completion.text) == {"name": "Ann", "age": 5}
    body = server.requests[0].body
    assert body["response_format"]["json_schema"]["title"] == "Person"
    assert "stream" not in body, "JSON Mode does not stream on the service"


@FACES
def test_a_refusal_of_json_mode_is_an_error_of_its_own(driver: Driver, serve: Serve, streamed: bool) -> None:
    server = serve([Refusal(5024, "AiError: JSON Mode couldn't be met")])
    with pytest.raises(errors.JSONModeError, match="simplify the schema, or use function calling") as caught:
        ask(driver, server, streamed, response_format=Person)
    assert (caught.value.code, len(server.requests)) == (5024, 1)


@EVERY_DIALECT
@FACES
def test_with_tools_and_json_the_object_is_asked_for_once_no_tool_is_called(
    driver: Driver, serve: Serve, streamed: bool
) -> None:
    server = serve(
        [Answer(tool_calls=(CalledTool("get_time", {}),)), "Ann is five.", Answer(object={"name": "Ann", "age": 5})]
    )
    called = ask(driver, server, streamed, tools=TOOLS, response_format=Person)
    assert [call.name for call in called.tool_calls] == ["get_time"]
    answered = ask(driver, server, streamed, tools=TOOLS, response_format=Person)
    assert json.loads(answered.text) == {"name": "Ann", "age": 5}
    assert [sorted({"tools", "response_format"} & set(record.body)) for record in server.requests] == [
        ["tools"],
        ["tools"],
        ["response_format"],
    ]
    # The prompt is read twice, and three words and four are written.
    assert token_counts(answered.usage) == Usage(prompt_tokens=10, completion_tokens=3 + 4)


@EVERY_DIALECT
@FACES
def test_an_answer_that_is_the_object_already_is_not_asked_for_again(
    driver: Driver, serve: Serve, streamed: bool
) -> None:
    server = serve(['{"name": "Ann"}', '{"name": 5}', Answer(object={"name": "Ann", "age": 5})])
    answer = ask(driver, server, streamed, tools=TOOLS, response_format=Person)
    assert json.loads(answer.text) == {"name": "Ann", "age": None}
    assert len(server.requests) == 1
    assert json.loads(ask(driver, server, streamed, tools=TOOLS, response_format=Person).text)["age"] == 5
    assert len(server.requests) == 3, "a name that is a number is no such object"


def test_bad_tools_and_formats_are_refused_before_a_request(driver: Driver, serve: Serve) -> None:
    server = serve("never")
    for bad, says in (
        ({"tools": [{"name": ""}]}, "has no name"),
        ({"tools": TOOLS, "tool_choice": "x"}, "there is no tool 'x'"),
        ({"parallel_tool_calls": "no"}, "parallel_tool_calls must be a bool"),
        ({"response_format": {"type": "xml"}}, "response_format"),
    ):
        for call in (driver.run, driver.stream):
            with pytest.raises(errors.BadRequestError, match=says):
                call(connection(server), HI, **bad)
    assert server.requests == []


def test_a_name_that_comes_with_each_piece_costs_no_more_in_a_long_call(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[int] = []

    def counting(data: bytes, **options: Any) -> Any:
        parsed.append(len(data))
        return whole_value_of(data, **options)

    monkeypatch.setattr("workersai.protocol.tool_calls.whole_value_of", counting)

    def cost(size: int) -> tuple[int, int]:
        def wire(arguments: str) -> dict[str, Any]:
            return {"index": 0, "id": "a", "function": {"name": "f", "arguments": arguments}}

        def assemble() -> None:
            assembler = ToolCallAssembler()
            for piece in ['{"a": ["', *["word\\n"] * size, '"', *[", {}"] * size, "]}"]:
                assembler.add([wire(piece)])
            ((call,), _) = assembler.calls()
            assert call.arguments["a"][0] == "word\n" * size
            assembler.add([wire("{}")])
            assert len(assembler.calls()[0]) == 2, "another name after a whole call is another call"

        parsed.clear()
        return operations(assemble), sum(parsed)

    small, large = cost(100), cost(800)
    assert large[0] <= 8 * 1.6 * small[0]
    assert large[1] <= 8 * 1.6 * small[1]
