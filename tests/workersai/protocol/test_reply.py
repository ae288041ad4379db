"""Every reply of wire.md#whole-replies, and the error in each one that tells of a failure."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workersai import errors
from workersai.protocol.reply import Asked, ReplyHead, completion_from_body, error_from_body
from workersai.protocol.values import Completion, Usage

MODEL = "@cf/meta/llama-3.3-70b-instruct-fp8-fast"
ASKED = Asked(model=MODEL, max_tokens=256)
OK = ReplyHead(status=200, headers={"cf-ray": "8c5-LOC"})
USAGE = {"prompt_tokens": 42, "completion_tokens": 23, "total_tokens": 65}


def parse(payload: Any, asked: Asked = ASKED) -> Completion:
    return completion_from_body(json.dumps(payload).encode(), OK, asked)


def result(**fields: Any) -> dict[str, Any]:
    return {"result": fields, "success": True, "errors": [], "messages": []}


def test_a_native_reply_is_its_text_its_usage_and_an_inferred_finish() -> None:
    assert parse(result(response="text", tool_calls=[], usage=USAGE)) == Completion(
        text="text", usage=Usage(42, 23), finish_reason="stop", model=MODEL, request_id="8c5-LOC"
    )


def test_a_native_answer_of_max_tokens_was_cut_by_its_length() -> None:
    assert parse(result(response="x", usage=USAGE), Asked(MODEL, max_tokens=23)).finish_reason == "length"


def test_cached_tokens_are_read() -> None:
    usage = {**USAGE, "prompt_tokens_details": {"cached_tokens": 32}}
    assert parse(result(response="x", usage=usage)).usage == Usage(42, 23, cached_tokens=32)


def test_token_counts_may_be_fractional_numbers_or_missing() -> None:
    assert parse(result(response="x", usage={"prompt_tokens": 3.0})).usage == Usage(3, 0)
    assert parse(result(response="x", usage={"prompt_tokens": None, "completion_tokens": 2})).usage == Usage(0, 2)
    assert parse(result(response="x", usage={"prompt_tokens": float("inf"), "completion_tokens": 2})).usage is None
    assert parse(result(response="x", usage=None)).usage is None
    assert parse(result(response="x")).usage is None


@pytest.mark.parametrize(
    ("response", "text"),
    [
        (5, "5"),
        (True, "true"),
        (1.5, "1.5"),
        (None, ""),
        ({"città": ["Roma"]}, '{"città": ["Roma"]}'),
        ('{"a": 1}', '{"a": 1}'),
    ],
)
def test_response_may_be_of_any_json_type(response: Any, text: str) -> None:
    assert parse(result(response=response)).text == text


def test_a_native_call_has_parsed_arguments_and_an_id_made_here() -> None:
    wire = {"name": "get_weather", "arguments": {"location": "Paris"}}
    completion = parse(result(response=None, tool_calls=[wire, wire], usage=USAGE))
    first, second = completion.tool_calls
    assert (first.name, first.arguments) == ("get_weather", {"location": "Paris"})
    assert first.id
    assert first.id != second.id
    assert (completion.text, completion.finish_reason) == ("", "tool_calls")


def test_a_call_in_openai_shape_keeps_its_id() -> None:
    wire = {
        "id": "chatcmpl-tool-1",
        "type": "function",
        "function": {"name": "get_weather", "arguments": '{"location": "Tokyo"}'},
    }
    (call,) = parse(result(tool_calls=[wire])).tool_calls
    assert (call.id, call.arguments) == ("chatcmpl-tool-1", {"location": "Tokyo"})


@pytest.mark.parametrize("arguments", ["{'a': 1}", "[1]", '"x"', "{"])
def test_broken_arguments_make_an_invalid_call_that_keeps_them(arguments: str) -> None:
    (call,) = parse(result(tool_calls=[{"name": "f", "arguments": arguments}])).invalid_tool_calls
    assert (call.name, call.arguments) == ("f", arguments)
    assert call.error


@pytest.mark.parametrize("arguments", ["", "null", None, {}])
def test_a_call_without_arguments_has_none(arguments: Any) -> None:
    (call,) = parse(result(tool_calls=[{"name": "f", "arguments": arguments}])).tool_calls
    assert call.arguments == {}


def test_a_whole_reply_in_openai_shape_is_read() -> None:
    choice = {"message": {"role": "assistant", "content": "hi", "tool_calls": None}, "finish_reason": "length"}
    completion = parse(result(choices=[choice], usage=USAGE))
    assert (completion.text, completion.finish_reason, completion.usage) == ("hi", "length", Usage(42, 23))


def test_a_reply_without_its_envelope_is_read() -> None:
    assert parse({"response": "bare", "usage": USAGE}).text == "bare"


def test_the_text_ends_before_a_stop_string() -> None:
    completion = parse(result(response="one\nObservation: two"), Asked(MODEL, 256, stop=("\nObservation",)))
    assert (completion.text, completion.finish_reason) == ("one", "stop")


def test_a_failure_told_with_status_200_is_an_error() -> None:
    failure = {"result": None, "success": False, "errors": [{"code": 3040, "message": "Capacity"}], "messages": []}
    with pytest.raises(errors.RateLimitError) as caught:
        parse(failure)
    assert (caught.value.code, caught.value.status_code, caught.value.request_id) == (3040, 200, "8c5-LOC")


@pytest.mark.parametrize(
    "payload",
    [
        [],
        "text",
        5,
        None,
        {},
        {"result": {}},
        {"result": "x"},
        result(choices=[]),
        result(choices=5),
        result(tool_calls=5),
        result(tool_calls=True),
    ],
)
def test_a_reply_with_no_answer_in_it_is_an_error_that_says_so(payload: Any) -> None:
    with pytest.raises(errors.ServerError) as caught:
        parse(payload)
    assert (caught.value.status_code, caught.value.retryable) == (200, False)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "an empty body"),
        (b"<html><title>Just a moment...</title>" + b"<br>" * 9999, "HTML page titled 'Just a moment...'"),
        (b"upstream connect error\nreset", "not JSON: 'upstream connect error'"),
        (b"\xff\xfe", "not JSON"),
    ],
)
def test_a_reply_that_is_not_json_is_summed_up_in_a_line_and_keeps_the_status(body: bytes, says: str) -> None:
    with pytest.raises(errors.ServerError) as caught:
        completion_from_body(body, OK, ASKED)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 250
    assert caught.value.status_code == 200


# Name, code, HTTP, worth a retry: the table of wire.md#error-codes, row by row.
TABLE = [
    (errors.AuthenticationError, 10000, 401, False),
    (errors.AuthenticationError, 10000, 403, False),
    (errors.ModelNotFoundError, 5007, 400, False),
    (errors.BadRequestError, 7000, 400, False),
    (errors.BadRequestError, 7003, 404, False),
    (errors.BadRequestError, 5006, 400, False),
    (errors.BadRequestError, 5004, 400, False),
    (errors.JSONModeError, 5024, 400, False),
    (errors.BadRequestError, 3039, 400, False),
    (errors.BadRequestError, 3003, 400, False),
    (errors.ContextWindowExceededError, 5021, 413, False),
    (errors.ContextWindowExceededError, 3010, 400, False),
    (errors.PermissionDeniedError, 5018, 403, False),
    (errors.PermissionDeniedError, 3041, 403, False),
    (errors.PermissionDeniedError, 5016, 403, False),
    (errors.PermissionDeniedError, 3023, 403, False),
    (errors.BadRequestError, 5019, 405, False),
    (errors.BadRequestError, 5005, 405, False),
    (errors.ModelNotFoundError, 3042, 404, False),
    (errors.RequestTooLargeError, 3006, 413, False),
    (errors.APITimeoutError, 3007, 408, True),
    (errors.APITimeoutError, 3008, 408, True),
    (errors.QuotaExceededError, 3036, 429, False),
    (errors.QuotaExceededError, 4006, 429, False),
    (errors.RateLimitError, 3040, 429, True),
    (errors.ServerError, 5000, 500, True),
    (errors.ModelNotFoundError, 5028, 410, False),
    (errors.PermissionDeniedError, 5035, 403, False),
    (errors.BadRequestError, 5012, 422, False),
    (errors.BadRequestError, 8001, 400, False),
    (errors.BadRequestError, 8007, 400, False),
    (errors.BadRequestError, 3030, 400, False),
    (errors.APITimeoutError, 3046, 408, True),
    (errors.ServerError, 8005, 500, True),
    (errors.ServerError, 8008, 500, True),
    (errors.PermissionDeniedError, 2021, 402, False),
    (errors.QuotaExceededError, 2045, 429, False),
    (errors.RateLimitError, 2003, 429, True),
]


@pytest.mark.parametrize(("kind", "code", "status", "retryable"), TABLE)
def test_each_code_of_the_table_has_its_class(
    kind: type[errors.WorkersAIError], code: int, status: int, retryable: bool
) -> None:
    body = {"result": {}, "success": False, "errors": [{"code": code, "message": "AiError: words"}], "messages": []}
    error = error_from_body(json.dumps(body).encode(), ReplyHead(status, {"cf-ray": "r1"}))
    assert type(error) is kind
    assert (error.code, error.status_code, error.request_id, error.retryable) == (code, status, "r1", retryable)
    assert "AiError: words" in str(error)


@pytest.mark.parametrize(
    ("status", "kind", "retryable"),
    [
        (401, errors.AuthenticationError, False),
        (403, errors.PermissionDeniedError, False),
        (404, errors.BadRequestError, False),
        (408, errors.APITimeoutError, True),
        (413, errors.RequestTooLargeError, False),
        (418, errors.BadRequestError, False),
        (429, errors.RateLimitError, True),
        (301, errors.BadRequestError, False),
        *((status, errors.ServerError, True) for status in (500, 502, 504, 520, 521, 522, 523, 524)),
    ],
)
def test_without_a_code_the_status_names_the_class(
    status: int, kind: type[errors.WorkersAIError], retryable: bool
) -> None:
    error = error_from_body(b"<html><title>edge</title></html>", ReplyHead(status, {}))
    assert (type(error), error.retryable, error.code) == (kind, retryable, None)


@pytest.mark.parametrize(
    "words",
    [
        "The estimated number of input and maximum output tokens (35000) exceeded this model context window limit (2)",
        "This model's maximum context length is 24000 tokens. However, you requested 30000 tokens",
    ],
)
def test_an_overflow_is_known_by_its_words_whatever_its_code(words: str) -> None:
    body = json.dumps({"success": False, "errors": [{"code": 5006, "message": f"AiError: {words}"}]}).encode()
    assert type(error_from_body(body, ReplyHead(400, {}))) is errors.ContextWindowExceededError


def test_a_json_mode_failure_is_known_by_its_words() -> None:
    body = json.dumps({"errors": [{"code": 5006, "message": "AiError: JSON Mode couldn't be met"}]}).encode()
    assert type(error_from_body(body, ReplyHead(400, {}))) is errors.JSONModeError


def test_the_number_in_front_of_a_message_is_the_code() -> None:
    body = json.dumps(
        {"error": {"message": "4006: you have used up your daily free allocation", "code": "internal_error"}}
    )
    error = error_from_body(body.encode(), ReplyHead(429, {}))
    assert (type(error), error.code) == (errors.QuotaExceededError, 4006)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:30 GMT", "date": "Wed, 21 Oct 2026 07:28:00 GMT"}, 30.0),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT", "date": "Wed, 21 Oct 2026 07:28:30 GMT"}, 0.0),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "Mon, 01 Jan 99999999999999999999 00:00:00 GMT", "date": "x"}, None),
        ({"retry-after": "²"}, None),
        ({}, None),
    ],
)
def test_retry_after_is_read_in_seconds_and_as_a_date(headers: dict[str, str], seconds: float | None) -> None:
    assert error_from_body(b"{}", ReplyHead(503, headers)).retry_after == seconds


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({"errors": [{"code": "5007", "message": "x"}]}, errors.ModelNotFoundError),
        ({"errors": {"code": 5007, "message": "x"}}, errors.ModelNotFoundError),
        ({"errors": "x"}, errors.BadRequestError),
        ({"errors": [{"code": True, "message": "x"}]}, errors.BadRequestError),
    ],
)
def test_an_error_that_is_written_a_little_differently_is_read(body: Any, kind: type[errors.WorkersAIError]) -> None:
    assert type(error_from_body(json.dumps(body).encode(), ReplyHead(400, {}))) is kind


def test_a_very_long_message_is_cut_and_says_so() -> None:
    body = json.dumps({"errors": [{"code": 5006, "message": "x" * 5_000_000}]}).encode()
    message = str(error_from_body(body, ReplyHead(400, {})))
    assert len(message) < 2_200
    assert "(5,000,000 characters)" in message


WORDS = [
    "result",
    "response",
    "tool_calls",
    "usage",
    "choices",
    "message",
    "errors",
    "error",
    "function",
    "arguments",
    "name",
    "success",
    "code",
    "prompt_tokens",
    "prompt_tokens_details",
    "content",
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(WORDS),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(
    st.one_of(st.binary(max_size=60), JSON.map(lambda value: json.dumps(value).encode())),
    st.sampled_from([200, 400, 502]),
)
def test_whatever_a_reply_holds_it_is_a_completion_or_an_error_of_ours(body: bytes, status: int) -> None:
    head = ReplyHead(status, {})
    with contextlib.suppress(errors.WorkersAIError):
        completion_from_body(body, head, ASKED)
    assert isinstance(error_from_body(body, head), errors.WorkersAIError)
