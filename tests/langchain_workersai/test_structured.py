"""Structured output through LangChain, over real sockets, against scripted answers."""

import json
from typing import Any, ClassVar, Literal

import pydantic.v1
import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.exceptions import OutputParserException
from pydantic import BaseModel, Field, field_validator
from typing_extensions import TypedDict

from langchain_workersai import ChatWorkersAI
from tests.langchain_workersai.face import Face
from tests.support import EVERY_DIALECT, Node, Serve, connection, openai_stream
from tests.typed_dicts import PARAMETERS, TRIPS
from workersai import errors
from workersai.local import LocalServer
from workersai.local.engine import CalledTool, RawReply
from workersai.local.scripted import Answer, Refusal

ANN = {"name": "Ann", "age": 5}


class Person(BaseModel):
    """Somebody."""

    name: str
    age: int | None = Field(description="In years.")

    @field_validator("name")
    @classmethod
    def _is_no_number(cls, name: str) -> str:
        if name.isdigit():
            raise ValueError("a name is no number")
        return name


class OldPerson(pydantic.v1.BaseModel):
    """Somebody."""

    name: str
    age: int | None


class PersonDict(TypedDict):
    """Somebody."""

    name: str
    age: int | None


KINDS = pytest.mark.parametrize(
    ("schema", "expected"),
    [
        (Person, Person(name="Ann", age=5)),
        (OldPerson, OldPerson(name="Ann", age=5)),
        (PersonDict, ANN),
        (Person.model_json_schema(), ANN),
        ({"type": "object", "properties": {"name": {"type": "string"}}}, ANN),
        ({"name": "Person", "description": "Somebody.", "parameters": Person.model_json_schema()}, ANN),
        ({**OldPerson.schema(), "name": "Person"}, ANN),
        ({"name": "Person", "schema": Person.model_json_schema(), "strict": True}, ANN),
    ],
    ids=["pydantic", "v1", "typeddict", "json schema", "untitled", "function", "named", "envelope"],
)


def chat(server: LocalServer, **fields: Any) -> ChatWorkersAI:
    return ChatWorkersAI(**connection(server), **fields)


@EVERY_DIALECT
@KINDS
def test_json_schema_is_the_default_and_asks_for_json_mode(
    face: Face, serve: Serve, schema: Any, expected: Any
) -> None:
    server = serve(lambda _: Answer(object=ANN))
    llm = chat(server).with_structured_output(schema)
    assert face.whole(llm, "hi") == expected
    assert face.pieces(llm, "hi") == [expected], "JSON Mode does not stream: the one result comes"
    for record in server.requests:
        assert record.body["response_format"]["type"] == "json_schema"
        assert record.body["response_format"]["json_schema"]["title"]
        assert "name" in record.body["response_format"]["json_schema"]["properties"]
        assert not record.body.get("stream")


@EVERY_DIALECT
@KINDS
def test_function_calling_forces_the_call(face: Face, serve: Serve, schema: Any, expected: Any) -> None:
    def call(request: Any) -> Answer:
        return Answer(tool_calls=(CalledTool(request.tools[0]["function"]["name"], ANN),))

    server = serve(call)
    llm = chat(server).with_structured_output(schema, method="function_calling")
    assert face.whole(llm, "hi") == expected
    assert face.pieces(llm, "hi")[-1] == expected
    body = server.requests[0].body
    assert body["tool_choice"]["function"]["name"] == body["tools"][0]["function"]["name"]


@pytest.mark.parametrize("include_raw", [False, True])
@pytest.mark.parametrize("method", ["json_schema", "function_calling", "json_mode"])
@pytest.mark.parametrize("source", TRIPS)
def test_every_typeddict_is_a_schema(serve: Serve, source: type, method: Any, include_raw: bool) -> None:
    trip = {"to": "Rome", "place": {"city": "Rome"}}

    def reply(request: Any) -> Answer:
        if method == "function_calling":
            return Answer(tool_calls=(CalledTool(request.tools[0]["function"]["name"], trip),))
        return Answer(object=trip)

    server = serve(reply)
    found = chat(server).with_structured_output(source, method=method, include_raw=include_raw).invoke("hi")
    assert (found["parsed"] if include_raw else found) == trip
    body = server.requests[0].body
    if method == "function_calling":
        assert body["tools"][0]["function"]["parameters"] == PARAMETERS
    elif method == "json_schema":
        assert body["response_format"]["json_schema"]["required"] == PARAMETERS["required"]
        assert body["response_format"]["json_schema"]["properties"] == PARAMETERS["properties"]


def test_tracing_gets_the_schema(serve: Serve) -> None:
    class Seen(BaseCallbackHandler):
        options: ClassVar[list[dict[str, Any]]] = []

        def on_chat_model_start(self, serialized: Any, messages: Any, **kwargs: Any) -> None:
            self.options.append(kwargs["options"])

    server = serve(lambda _: Answer(object={"to": "Rome", "place": {"city": "Rome"}}))
    for source in TRIPS:
        chat(server).with_structured_output(source).invoke("hi", config={"callbacks": [Seen()]})
        traced = Seen.options.pop()["ls_structured_output_format"]
        assert traced["kwargs"] == {"method": "json_schema", "strict": None}
        assert traced["schema"]["title"] == source.__name__
        assert sorted(traced["schema"]["required"]) == ["place", "to"]


@EVERY_DIALECT
def test_function_calling_streams_the_object_as_it_grows(face: Face, serve: Serve) -> None:
    start = {"id": "c1", "type": "function", "index": 0, "function": {"name": "Story"}}
    pieces = ['{"title": "A ', 'cat", "pages', '": [1', ", 2]}"]
    reply = openai_stream([start], *([{"index": 0, "function": {"arguments": piece}}] for piece in pieces))

    class Story(BaseModel):
        title: str
        pages: list[int] = []

    server = serve([reply, reply])
    as_dict = chat(server).with_structured_output(Story.model_json_schema(), method="function_calling")
    assert face.pieces(as_dict, "hi") == [
        {},
        {"title": "A "},
        {"title": "A cat"},
        {"title": "A cat", "pages": [1]},
        {"title": "A cat", "pages": [1, 2]},
    ]
    as_object = chat(server).with_structured_output(Story, method="function_calling")
    grown: list[Any] = face.pieces(as_object, "hi")
    assert grown == [
        Story(title="A "),
        Story(title="A cat"),
        Story(title="A cat", pages=[1]),
        Story(title="A cat", pages=[1, 2]),
    ]


@EVERY_DIALECT
@pytest.mark.parametrize(("schema", "expected"), [(Person, Person(**ANN)), (PersonDict, ANN), (None, ANN)])  # type: ignore[arg-type]
def test_json_mode_asks_for_any_object(face: Face, serve: Serve, schema: Any, expected: Any) -> None:
    server = serve(lambda _: Answer(object=ANN))
    llm = chat(server).with_structured_output(schema, method="json_mode")
    assert face.whole(llm, "hi") == expected
    assert face.pieces(llm, "hi") == [expected]
    assert server.requests[0].body["response_format"] == {"type": "json_object"}


def test_the_object_may_come_as_a_string_of_json(face: Face, serve: Serve) -> None:
    # Scripted as bytes: the local server always sends the object itself.
    envelope = {"result": {"response": json.dumps(ANN)}, "success": True, "errors": []}
    server = serve([RawReply(json.dumps(envelope).encode(), content_type="application/json")])
    answer: Any = face.whole(chat(server).with_structured_output(Person), "hi")
    assert answer == Person(name="Ann", age=5)


class Item(BaseModel):
    a: int
    b: int | None


class Nested(BaseModel):
    pair: tuple[Item, Item]
    one_or_many: Item | list[Item]
    by_name: dict[str, Item]


def test_a_null_is_put_back_wherever_it_is_missing(serve: Serve) -> None:
    given = {"pair": [{"a": 1}, {"a": 2}], "one_or_many": [{"a": 3}], "by_name": {"x": {"a": 4, "b": 5}}}
    answer = chat(serve([Answer(object=given)])).with_structured_output(Nested).invoke("hi")
    assert answer.pair[1] == Item(a=2, b=None)
    assert answer.one_or_many == [Item(a=3, b=None)]
    assert answer.by_name["x"].b == 5


@EVERY_DIALECT
def test_a_null_that_the_model_could_not_send_is_put_back(face: Face, serve: Serve) -> None:
    llm = chat(serve(lambda _: Answer(object={"name": "Ann"}))).with_structured_output(Person)
    answers: list[Any] = [face.whole(llm, "hi"), *face.pieces(llm, "hi")]
    assert answers == [Person(name="Ann", age=None)] * 2


def cut(request: Any) -> RawReply:
    result = {
        "response": '{"name": "An',
        "usage": {"prompt_tokens": 1, "completion_tokens": 4096, "total_tokens": 4097},
    }
    return RawReply(
        json.dumps({"result": result, "success": True, "errors": []}).encode(), content_type="application/json"
    )


@pytest.mark.parametrize(
    ("script", "method", "says", "raw"),
    [
        (
            Answer(object={"name": "5", "age": 1}),
            "json_schema",
            "(?s)no valid Person: .*a name is no number",
            '{"name": "5", "age": 1}',
        ),
        (Answer(object=[1]), "json_mode", "no valid Person", "[1]"),
        (cut, "json_schema", "cut off at max_tokens, before the Person was whole: give a larger one", '{"name": "An'),
        (
            Answer(tool_calls=(CalledTool("Person", {"name": "5", "age": 1}),)),
            "function_calling",
            "no valid Person",
            '{"name": "5", "age": 1}',
        ),
        ("I won't.", "function_calling", 'did not call Person, .* but wrote: "I won\'t."', "I won't."),
    ],
)
def test_what_is_not_valid_raises_with_the_raw_text(
    face: Face, serve: Serve, script: Any, method: Any, says: str, raw: str
) -> None:
    llm = chat(serve(script if callable(script) else lambda _: script)).with_structured_output(Person, method=method)
    for call in (face.whole, face.pieces):
        with pytest.raises(OutputParserException, match=says) as caught:
            call(llm, "hi")
        assert str(caught.value.llm_output).startswith(raw)


def test_broken_arguments_raise_with_the_raw_text(face: Face, serve: Serve) -> None:
    call = {"id": "c1", "type": "function", "index": 0, "function": {"name": "Person", "arguments": "{name"}}
    llm = chat(serve(lambda _: openai_stream([call]))).with_structured_output(Person, method="function_calling")
    with pytest.raises(OutputParserException, match="not JSON") as caught:
        face.pieces(llm, "hi")
    assert str(caught.value.llm_output).startswith("{name")


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_include_raw_tells_all_and_raises_nothing(
    face: Face, serve: Serve, method: Literal["json_schema", "function_calling"]
) -> None:
    def answer(given: Any) -> Answer:
        return (
            Answer(tool_calls=(CalledTool("Person", given),)) if method == "function_calling" else Answer(object=given)
        )

    server = serve([answer(ANN), answer({"name": 5})])
    llm = chat(server).with_structured_output(Person, method=method, include_raw=True)
    good: Any = face.whole(llm, "hi")
    assert (good["parsed"], good["parsing_error"]) == (Person(name="Ann", age=5), None)
    assert good["raw"].usage_metadata
    bad: Any = face.whole(llm, "hi")
    assert bad["parsed"] is None
    assert isinstance(bad["parsing_error"], OutputParserException)


def test_a_refusal_of_json_mode_is_an_error_of_its_own(face: Face, serve: Serve) -> None:
    llm = chat(serve(lambda _: Refusal(5024, "AiError: JSON Mode couldn't be met"))).with_structured_output(Person)
    for call in (face.whole, face.pieces):
        with pytest.raises(errors.JSONModeError):
            call(llm, "hi")


def test_strict_closes_the_objects(serve: Serve) -> None:
    server = serve(lambda _: Answer(object=ANN))
    chat(server).with_structured_output(Person, strict=True).invoke("hi")
    assert server.requests[0].body["response_format"]["json_schema"]["additionalProperties"] is False


def test_options_of_the_calls_can_be_given_along(serve: Serve) -> None:
    server = serve(lambda _: Answer(object=ANN))
    chat(server).with_structured_output(Person, temperature=0.1).invoke("hi")
    assert server.requests[0].body["temperature"] == 0.1


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"schema": Person, "method": "grammar"}, "method must be 'json_schema', 'function_calling' or 'json_mode'"),
        ({"schema": None}, "schema: method='json_schema' needs one"),
        ({"schema": Node}, r"tool 'Node'.children\[\]: the schema refers to itself"),
        ({"schema": {"type": "objekt", "title": "X"}}, "there is no type 'objekt'"),
        ({"schema": 5}, "schema must be a workersai.Tool, a dict, a Pydantic class"),
    ],
)
def test_a_bad_schema_is_refused_at_once(serve: Serve, given: Any, says: str) -> None:
    with pytest.raises(errors.BadRequestError, match=says):
        chat(serve("never")).with_structured_output(**given)


@EVERY_DIALECT
def test_response_format_on_a_call_is_json_mode(face: Face, serve: Serve) -> None:
    server = serve(lambda _: Answer(object=ANN))
    envelope = {
        "type": "json_schema",
        "json_schema": {"name": "Person", "schema": Person.model_json_schema(), "strict": True},
    }
    for form in (envelope, {"type": "json_object"}, Person):
        assert json.loads(face.whole(chat(server), "hi", response_format=form).text) == ANN
        assert [chunk.text for chunk in face.pieces(chat(server), "hi", response_format=form)] == [json.dumps(ANN), ""]
