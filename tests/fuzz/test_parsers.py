"""Fuzzing what reads the wire, and what others hand over: nothing but our own errors, and no text that wasn't sent.

``make fuzz`` runs it with many more examples.
"""

import contextlib
import copy
import datetime as dt
import json
import re
from collections.abc import Iterator
from typing import Any, Literal

import jsonschema
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from tests.workersai.protocol.test_stream import CALLS, NATIVE, OPENAI
from workersai.errors import BadRequestError, WorkersAIError
from workersai.protocol.leaks import LeakFilter
from workersai.protocol.reply import Asked, ReplyHead, completion_from_body, error_from_body
from workersai.protocol.schema import accepted_parameters, accepted_schema
from workersai.protocol.stream import StreamReader
from workersai.protocol.surrogates import repaired
from workersai.protocol.tools import offer_of
from workersai.protocol.values import Completion, Tool

HEAD = ReplyHead(status=200, headers={"cf-ray": "8c5-LOC"})
MODEL = "@cf/meta/llama-3.3-70b-instruct-fp8-fast"
NAMES = ("get_weather", "get_time")
TOOLS = [Tool(name, "It.", {"type": "object", "properties": {}}) for name in NAMES]
PLAIN, OFFERED = Asked(MODEL, 256), Asked(MODEL, 256, offer=offer_of(TOOLS, None), stop=("STOP",))

ERROR = b'data: {"response":"It is"}\n\ndata: {"errors":[{"code":3040,"message":"busy"}],"success":false}\n\n'
LEAKED = (
    b'data: {"response":"{\\"name\\": \\"get_weather\\", "}\n\ndata: {"response":"\\"parameters\\": {}} STOP it"}\n\n'
)
WHOLE = b'{"result":{"response":"It is","tool_calls":[],"usage":{"prompt_tokens":1}},"success":true,"errors":[]}'
STREAMS = [NATIVE, OPENAI, CALLS, ERROR, LEAKED, WHOLE]
BODIES = [
    WHOLE,
    b'{"result":{"response":{"a":[1,null]},"usage":{"completion_tokens":2.5}},"success":true}',
    b'{"result":{"response":null,"tool_calls":[{"name":"get_time","arguments":{"a":"b"}}]},"success":true}',
    b'{"result":{"tool_calls":[{"id":"x","type":"function","function":{"name":"get_time","arguments":"{}"}}]}}',
    b'{"result":{"choices":[{"message":{"content":"Hi"},"finish_reason":"stop"}],"usage":{}},"success":true}',
    b'{"result":null,"success":false,"errors":[{"code":5006,"message":"AiError: Bad input"}],"messages":[]}',
    b'{"error":{"message":"4006: you have used up ...","code":"internal_error"}}',
    b"<!DOCTYPE html><html><head><title>502: Bad gateway</title></head></html>",
]
ODD = [b"", b"\n", b"\r", b"\n\n", b"data:", b"data: [DONE]\n\n", b"\xff", b"\\ud83d", b"null", b"1e999", b'"', b"}"]
ODD.append(b"[" * 300)


@st.composite
def mutated(draw: st.DrawFn, valid: list[bytes]) -> bytes:
    """A valid text that was cut, spliced with another, or had bytes lost, doubled, changed or put in."""
    text = draw(st.sampled_from(valid))
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(text)))
        end = draw(st.integers(start, min(len(text), start + 40)))
        put_in = draw(
            st.one_of(
                st.sampled_from([b"", *ODD]),
                st.binary(max_size=6),
                st.just(text[start:end] * 2),
                st.sampled_from(valid).map(lambda other: other[len(other) // 3 : 2 * len(other) // 3]),
            )
        )
        text = text[:start] + put_in + text[end:]
    return text[: draw(st.integers(0, len(text)))] if draw(st.booleans()) else text


def pieces_of(data: st.DataObject, text: bytes) -> list[bytes]:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    return [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]


def read(asked: Asked, pieces: list[bytes]) -> tuple[str, Completion | None]:
    """The text that was handed over, and the whole answer or what an error kept of it."""
    reader = StreamReader(HEAD, asked)
    text = ""
    try:
        for piece in pieces:
            if reader.ended or reader.done:
                break
            text += "".join(delta.text for delta in reader.feed(piece))
        last = reader.close()
    except WorkersAIError as error:
        return text, error.partial
    text += "".join(delta.text for delta in last)
    return text, last[-1].completion


def sent(stream: bytes) -> str:
    """The text in a stream's events, by another reading of it than ours."""
    texts: list[str] = []
    for event in re.split(rb"(?:\r\n|\r|\n)(?:\r\n|\r|\n)+", stream):
        lines = re.split(rb"\r\n|\r|\n", event)
        data = b"\n".join(line[5:].removeprefix(b" ") for line in lines if line.startswith(b"data:"))
        with contextlib.suppress(ValueError, RecursionError):
            texts.append(said(json.loads(data)))
    return "".join(texts)


def said(payload: Any) -> str:
    if not isinstance(payload, dict):
        return ""
    choices = payload.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], dict):
        payload = choices[0].get("delta") or {}
    text = payload.get("response", payload.get("content")) if isinstance(payload, dict) else None
    return text if isinstance(text, str) else "" if text is None else json.dumps(text, ensure_ascii=False)


# With ``make fuzz``, 100,000 byte streams over the two tests of them.
MANY = settings(max_examples=settings.default.max_examples * 5 // 2 if settings.default else 100)


@MANY
@given(mutated(STREAMS), st.data())
def test_a_stream_gives_only_text_that_was_sent(stream: bytes, data: st.DataObject) -> None:
    text, completion = read(PLAIN, pieces_of(data, stream))
    whole = completion.text if completion else ""
    assert whole.startswith(text), "what was handed over is the beginning of what there is"
    if stream.lstrip(b"\xef\xbb\xbf \n\r\t").startswith((b"data:", b":")):
        assert repaired(sent(stream)).replace("\ufffd", "").startswith(whole.replace("\ufffd", ""))
    whole.encode()


@MANY
@given(mutated(STREAMS), st.data())
def test_where_a_stream_is_cut_makes_no_difference(stream: bytes, data: st.DataObject) -> None:
    for asked in (PLAIN, OFFERED):
        _, one = read(asked, [stream])
        _, other = read(asked, pieces_of(data, stream))
        assert shape(one) == shape(other)


def shape(completion: Completion | None) -> Any:
    if completion is None:
        return None
    calls = [(call.name, call.arguments) for call in completion.tool_calls]
    broken = [(call.name, call.arguments) for call in completion.invalid_tool_calls]
    return completion.text, calls, broken, completion.usage, completion.finish_reason


@given(mutated(BODIES))
def test_a_whole_reply_is_an_answer_or_our_error(body: bytes) -> None:
    for asked in (PLAIN, OFFERED):
        try:
            text = completion_from_body(body, HEAD, asked).text
        except WorkersAIError as error:
            assert str(error)  # noqa: PT017
        else:
            assert all(word in repaired(json.dumps(json.loads(body), ensure_ascii=False)) for word in words(text))
    told = error_from_body(body, ReplyHead(status=502, headers={}))
    assert isinstance(told, WorkersAIError)
    assert len(str(told)) < 3_000


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text)


ODD_ARGUMENTS: list[dict[str, Any]] = [
    {},
    {"a": 'x"}; {['},
    {"é": ["\\", None]},
    {"a": {"b": [1.5, True]}},
    {"name": "rm_rf"},
]
ARGUMENTS = st.sampled_from(ODD_ARGUMENTS) | st.text(max_size=6).map(lambda text: {"city": text})
Written = tuple[str, list[dict[str, Any]]]
STRANGERS = ("rm_rf", "get_weather2", "get_")


@st.composite
def calls(draw: st.DrawFn, names: tuple[str, ...] = NAMES) -> dict[str, Any]:
    """A call as a model may write it (wire.md#text-tool-calls)."""
    name, arguments = draw(st.sampled_from(names)), draw(ARGUMENTS)
    form = draw(st.sampled_from(["parameters", "arguments", "function"]))
    if form == "function":
        return {"type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}
    call = {"name": name, form: arguments}
    return {"type": "function", **call} if draw(st.booleans()) else call


@st.composite
def written(draw: st.DrawFn, names: tuple[str, ...] = NAMES) -> Written:
    """Calls written out as text, in a list or one after the other, and the calls."""
    some = draw(st.lists(calls(names), min_size=1, max_size=3))
    if draw(st.booleans()):
        text = json.dumps(some, indent=draw(st.sampled_from([None, 1])))
    else:
        text = draw(st.sampled_from([";", "; ", "\n"])).join(json.dumps(call) for call in some)
    return draw(st.sampled_from(["", "<|python_tag|>", " \n"])) + text, some


def found_in(pieces: list[str]) -> tuple[str, list[tuple[str, Any]]]:
    """The text that is shown, and the calls that are found: their names and arguments."""
    leaks = LeakFilter(frozenset(NAMES))
    shown = "".join(map(leaks.feed, pieces)) + leaks.flush()
    return shown, [shape_of_call(call) for call in leaks.take(as_text=False)[1]]


def shape_of_call(call: dict[str, Any]) -> tuple[str, Any]:
    function = call.get("function", call)
    arguments = function.get("parameters", function.get("arguments"))
    if isinstance(arguments, str):
        with contextlib.suppress(ValueError):  # broken ones make an invalid call
            arguments = json.loads(arguments)
    return function["name"], arguments


def text_pieces(data: st.DataObject, text: str) -> list[str]:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    return [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]


@given(written(), st.data())
def test_each_call_that_a_model_wrote_is_found(wrote: Written, data: st.DataObject) -> None:
    text, some = wrote
    assert found_in(text_pieces(data, text)) == ("", [shape_of_call(call) for call in some])


@given(written(STRANGERS), st.data())
def test_a_call_of_no_offered_tool_is_text(wrote: Written, data: st.DataObject) -> None:
    text, _ = wrote
    assert found_in(text_pieces(data, text)) == (text, [])


@given(written((*NAMES, *STRANGERS)), st.data())
def test_of_a_broken_text_no_other_call_is_made(wrote: Written, data: st.DataObject) -> None:
    text, _ = wrote
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(start, min(len(text), start + 20)))
        text = (
            text[:start] + data.draw(st.sampled_from(["", *'{}[]"\\;,: n', "<|python_tag|>", "get_time"])) + text[end:]
        )
    shown, made = found_in(text_pieces(data, text))
    assert (shown, made) == found_in([text]), "where it is cut makes no difference"
    for name, arguments in made:
        assert name in NAMES
        assert name in text
        for word in words(json.dumps(arguments, ensure_ascii=False)):
            assert word in text or word in json.dumps(text) or "\\u" in text
    if not made:
        assert shown.replace("<|python_tag|>", "") == text.replace("<|python_tag|>", "")


@given(st.lists(st.text(max_size=5), max_size=20))
def test_where_no_tool_is_offered_a_text_is_what_it_is(pieces: list[str]) -> None:
    leaks = LeakFilter(frozenset())
    assert "".join(map(leaks.feed, pieces)) + leaks.flush() == "".join(pieces)
    assert leaks.take(as_text=False) == ("", [])


KEYWORDS = ["type", "properties", "required", "items", "anyOf", "oneOf", "allOf", "$ref", "$defs", "enum", "const"]
KEYWORDS += ["additionalProperties", "description", "title", "default", "format", "prefixItems", "minItems", "not"]
scalars: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.text(max_size=4),
    st.floats(allow_nan=False),
    st.sampled_from(["object", "string", "array", "null", "integer", "#/$defs/a", "#", "#/$defs/b"]),
)


def nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from([*KEYWORDS, "a", "b"]), inner, max_size=5),
    )


class Inner(BaseModel):
    """Something inside."""

    at: dt.date | None = None
    kind: Literal["a", "b"] = Field("a", description="Which.")


class Outer(BaseModel):
    """All that Pydantic prints of the usual fields."""

    name: str = Field(max_length=9, pattern="^a")
    count: int | None = Field(None, ge=0, description="How many.")
    inner: Inner
    some: list[Inner] = []
    either: Inner | int | list[str] = 1
    pair: tuple[int, str] = (1, "")
    free: dict[str, float] = {}


VALID = [
    Outer.model_json_schema(),
    {"type": "object", "properties": {"a": {"anyOf": [{"type": "integer"}, {"type": "null"}]}}, "required": ["a"]},
    {"type": "object", "properties": {"a": {"allOf": [{"type": "string"}, {"minLength": 1}]}, "b": {"enum": [1, "x"]}}},
    {"$defs": {"a": {"type": "object", "properties": {"b": {"$ref": "#/$defs/a"}}}}, "$ref": "#/$defs/a"},
]


@st.composite
def mutated_schema(draw: st.DrawFn) -> dict[str, Any]:
    """A schema that is meant well, with a few places changed, lost or doubled."""
    schema: dict[str, Any] = copy.deepcopy(draw(st.sampled_from(VALID)))
    for _ in range(draw(st.integers(0, 3))):
        places = list(places_of(schema))
        if not places:
            break
        inside, at = draw(st.sampled_from(places))
        do = draw(st.sampled_from(["change", "lose", "swap"]))
        if do == "change":
            inside[at] = draw(st.recursive(scalars, nested, max_leaves=4))
        elif do == "lose":
            del inside[at]
        else:
            other, there = draw(st.sampled_from(places))
            if there in other if isinstance(other, dict) else there < len(other):
                inside[at] = copy.deepcopy(other[there])
    return schema


def places_of(value: Any) -> Iterator[tuple[Any, Any]]:
    for at, inner in list(value.items()) if isinstance(value, dict) else list(enumerate(value)):
        yield value, at
        if isinstance(inner, dict | list):
            yield from places_of(inner)


ANY_SCHEMA = st.dictionaries(st.sampled_from(KEYWORDS), st.recursive(scalars, nested, max_leaves=12), max_size=6)


@example({"type": "array", "minItems": -1})
@given(ANY_SCHEMA | mutated_schema() | mutated_schema())
def test_any_schema_is_rewritten_or_refused(schema: dict[str, Any]) -> None:
    for rewrite in (accepted_parameters, accepted_schema):
        try:
            accepted = rewrite(schema, "tool").schema
        except BadRequestError as error:
            assert "tool" in str(error)  # noqa: PT017
        else:
            json.dumps(accepted, allow_nan=False)
            jsonschema.Draft202012Validator.check_schema(accepted)
