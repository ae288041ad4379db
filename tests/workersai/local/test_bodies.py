"""Bodies that are hardly JSON, or JSON of any shape: each is answered or refused, and none breaks the server."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.workersai.local.asking import MESSAGES, MODEL, chat, error_of, post, run, run_url, twin_url
from workersai.local import LocalServer

NEST = 10_000
KEYS = ["prompt", "messages", "stream", "raw", "max_tokens", "temperature", "top_k", "seed", "response_format", "tools"]
KEYS += ["tool_choice", "functions", "lora", "options", "model", "n", "stop", "stream_options", "max_completion_tokens"]
KEYS += ["role", "content", "type", "json_schema", "function", "name", "parameters", "properties", "tool_calls"]
TEXTS = st.text(st.characters(exclude_categories=()), max_size=5)  # half surrogate pairs too
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | TEXTS | st.sampled_from(["user", "auto", "function"])
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS) | TEXTS, inner, max_size=4),
    max_leaves=12,
)
FIELDS = st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=4)
QUICK = settings(max_examples=150)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\x00\x01",
        b'{"prompt":"hi"} x',
        b"{'prompt':'hi'}",
        b'{"prompt":"hi","temperature":NaN}',
        b'{"prompt":"hi","temperature":-Infinity}',
        b'{"prompt":"\xff"}',
        b'{"prompt":"\xed\xa0\x80"}',
        b'\xef\xbb\xbf{"prompt":"hi"}',
        '{"prompt":"hi"}'.encode("utf-16"),
        b'{"prompt":"hi","max_tokens":' + b"9" * 5_000 + b"}",
        b"[" * NEST + b"]" * NEST,
        b'{"prompt":' + b"[" * NEST + b"]" * NEST + b"}",
    ],
    ids=lambda body: repr(body[:24]),
)
def test_what_is_not_json_in_utf_8_is_5006(echo: LocalServer, body: bytes) -> None:
    status, code, message = error_of(run(echo, body))
    assert (status, code) == (400, 5006)
    assert message.startswith("AiError: Bad input: Error: the body is ")


@pytest.mark.parametrize("body", [b"null", b"[]", b'"hi"', b"7"])
def test_what_is_no_object_is_5006(echo: LocalServer, body: bytes) -> None:
    assert error_of(run(echo, body)) == (400, 5006, "AiError: Bad input: Error: the body must be a JSON object")


@pytest.mark.parametrize("body", [b'{"prompt":"a \\ud83d b"}', b'{"prompt":"hi","\\ude00":1}'])
def test_half_of_a_surrogate_pair_is_refused(echo: LocalServer, body: bytes) -> None:
    status, code, message = error_of(run(echo, body))
    assert (status, code) == (400, 5006)
    assert "half of a surrogate pair" in message


def test_a_whole_surrogate_pair_is_one_character(echo: LocalServer) -> None:
    assert run(echo, b'{"prompt":"\\ud83d\\ude00"}').json()["result"]["response"] == "😀"


@pytest.mark.parametrize("depth", [99, 200, 900])
def test_a_deep_schema_is_taken_up_to_a_limit_that_is_told(echo: LocalServer, depth: int) -> None:
    # The body, response_format and the innermost value are the levels around and below the nest.
    levels = depth - 3
    nest = b'{"a":' * levels + b"1" + b"}" * levels
    response = run(echo, b'{"prompt":"{}","response_format":{"type":"json_schema","json_schema":' + nest + b"}}")
    if depth < 100:
        assert response.status_code == 200, response.text
    else:
        assert "nested deeper than 100 levels" in error_of(response)[2]


def test_of_a_field_that_is_there_twice_the_last_one_counts(echo: LocalServer) -> None:
    assert run(echo, b'{"prompt":"a","prompt":"b"}').json()["result"]["response"] == "b"


def test_an_integer_may_be_written_as_a_float(echo: LocalServer) -> None:
    assert run(echo, b'{"prompt":"hi","max_tokens":5.0,"seed":7.0,"top_k":1e1}').status_code == 200


@pytest.mark.parametrize("number", [b"1e300", b"1e999", b"-1e999", b"9" * 400])
def test_a_number_beyond_all_measure_is_refused_as_any_other(echo: LocalServer, number: bytes) -> None:
    assert run(echo, b'{"prompt":"hi","max_tokens":' + number + b"}").status_code in (400, 413)
    assert run(echo, b'{"prompt":"hi","temperature":' + number + b"}").status_code == 400


def test_a_body_of_more_than_10_mb_is_3006(echo: LocalServer) -> None:
    frame = len(b'{"prompt":""}')
    fits = b'{"prompt":"' + b"a" * (10_000_000 - frame) + b'"}'
    assert run(echo, fits).status_code == 200
    status, code, message = error_of(run(echo, fits + b" "))
    assert (status, code) == (413, 3006)
    assert "10000000 bytes at most" in message
    assert chat(echo, {"messages": [{"role": "user", "content": "a" * 10_000_000}]}).json()["error"]["code"] == 3006


def answered_or_refused(response_status: int, reply: Any) -> bool:
    return response_status == 200 or (400 <= response_status < 500 and isinstance(reply, dict))


@QUICK
@given(fields=FIELDS)
def test_a_body_of_any_fields_is_answered_or_refused(echo: LocalServer, fields: dict[str, Any]) -> None:
    for body in (fields, {**MESSAGES, **fields}, {"prompt": "hi", **fields}):
        response = run(echo, json.dumps(body).encode())
        if "text/event-stream" not in response.headers["content-type"]:
            assert answered_or_refused(response.status_code, response.json()), response.text


@QUICK
@given(fields=FIELDS, message=FIELDS)
def test_the_twin_answers_or_refuses_a_body_of_any_fields(
    echo: LocalServer, fields: dict[str, Any], message: dict[str, Any]
) -> None:
    told = {"role": "user", "content": "hi", **message}
    for body in (fields, {"model": MODEL, "messages": [told], **fields}, {"model": MODEL, **fields}):
        response = post(echo, twin_url(echo), json.dumps(body).encode())
        if "text/event-stream" not in response.headers["content-type"]:
            assert answered_or_refused(response.status_code, response.json()), response.text


@QUICK
@given(body=st.binary(max_size=50))
def test_a_body_of_any_bytes_is_refused(echo: LocalServer, body: bytes) -> None:
    assert post(echo, run_url(echo), body).status_code == 400
