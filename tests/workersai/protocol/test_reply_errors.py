"""Failures as the service, its gateway and its OpenAI-compatible route report them (wire.md#error-codes)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from workersai import errors
from workersai.protocol.reply_errors import ReplyHead, error_from_body, error_of
from workersai.retired import SUCCESSORS


def service(code: int, message: str) -> dict[str, Any]:
    return {"errors": [{"message": message, "code": code}], "success": False, "result": {}, "messages": []}


def gateway(code: int, message: str, status: int) -> dict[str, Any]:
    return {
        "success": False,
        "result": [],
        "messages": [],
        "error": [{"code": code, "message": message}],
        "name": "AiGatewayError",
        "httpCode": status,
        "internalCode": code,
        "message": message,
    }


def read(body: dict[str, Any], status: int) -> errors.WorkersAIError:
    return error_from_body(json.dumps(body).encode(), ReplyHead(status, {}))


VLLM = (
    'AiError: AiError: {"error":{"message":"This model\'s maximum context length is 24000 tokens. However, you '
    'requested 2048 output tokens and your prompt contains at least 21953 input tokens.","code":400}} (uuid)'
)
VALIDATION = 'AiError: AiError: {"error":{"type":"invalid_request","message":"Request body failed validation"}} (uuid)'

# Body, HTTP status, class, worth a retry, and words of the advice.
FAILURES = [
    (service(5035, "AiError: Upgrade to use this model"), 403, errors.PermissionDeniedError, False, "Workers Paid"),
    (
        service(
            5028, "AiError: Model has been deprecated: @cf/meta/llama-3-8b-instruct was deprecated on 2026-05-30..."
        ),
        410,
        errors.ModelNotFoundError,
        False,
        "Use @cf/meta/llama-3.1-8b-instruct-fast instead",
    ),
    (
        service(5028, "AiError: Gone: @cf/a/b"),
        410,
        errors.ModelNotFoundError,
        False,
        "such as @cf/zai-org/glm-4.7-flash",
    ),
    (
        service(5018, "AiError: Ai: This account is not allowed to access @cf/google/gemma-3-12b-it..."),
        403,
        errors.PermissionDeniedError,
        False,
        "Use @cf/google/gemma-4-26b-a4b-it instead",
    ),
    (service(5018, "AiError: Ai: Not allowed"), 403, errors.PermissionDeniedError, False, "Ask Cloudflare about"),
    (service(8007, VLLM), 400, errors.ContextWindowExceededError, False, "Shorten the prompt"),
    (service(8007, VLLM), 500, errors.ContextWindowExceededError, False, "Shorten the prompt"),
    (service(8007, "AiError: no"), 400, errors.BadRequestError, False, "Correct what it names"),
    (service(8007, "AiError: no"), 502, errors.ServerError, True, "try again"),
    (service(3046, "AiError: AiError: Request timeout (uuid)"), 408, errors.APITimeoutError, True, "fewer tokens"),
    (
        service(3030, "AiError: AiError: Sequence too long: 9003 > 8192 (uuid)"),
        400,
        errors.BadRequestError,
        False,
        "split",
    ),
    (
        service(3030, "AiError: AiError: Max context reached 80030 tokens but model supports only 60000 (uuid)"),
        400,
        errors.BadRequestError,
        False,
        "send fewer at once",
    ),
    (service(5012, VALIDATION), 422, errors.BadRequestError, False, "published schema"),
    (service(8001, "AiError: AiError: Invalid input (uuid)"), 400, errors.BadRequestError, False, "tool_choice"),
    (service(8005, "AiError: AiError: Internal server error (uuid)"), 500, errors.ServerError, True, "SVG"),
    (service(8005, "AiError: AiError: Internal server error (uuid)"), 200, errors.ServerError, True, "SVG"),
    (
        service(5006, "AiError: Ai: This model does not support request queuing (uuid)"),
        400,
        errors.BadRequestError,
        False,
        "single calls",
    ),
    (gateway(2021, "Insufficient balance; add money", 402), 402, errors.PermissionDeniedError, False, "Add credit"),
    (gateway(2045, "Spend limit reached", 429), 429, errors.QuotaExceededError, False, "hold for hours"),
    (gateway(2003, "Rate limited", 429), 429, errors.RateLimitError, True, "slow down"),
    (gateway(7003, "Model not found: anthropic/claude-haiku-5", 404), 404, errors.ModelNotFoundError, False, "name"),
    (
        gateway(7003, "Model execution failed (User Input Error): Required value missing: max_tokens", 400),
        400,
        errors.BadRequestError,
        False,
        "Correct what it names",
    ),
    (gateway(7003, "Model execution failed", 502), 502, errors.ServerError, True, "try again"),
    (service(7003, "Could not route to /x"), 404, errors.BadRequestError, False, "base URL"),
    (
        {"error": {"code": "invalid_prompt", "message": "AiError: AiError: 'NoneType' object (uuid)"}},
        400,
        errors.BadRequestError,
        False,
        "Correct the request",
    ),
    # Without a code, as on the OpenAI-compatible route: the words say it.
    (
        {"error": {"message": "AiError: used up your daily free allocation"}},
        429,
        errors.QuotaExceededError,
        False,
        "day",
    ),
    ({"error": {"message": "Your spending limit is reached"}}, 429, errors.QuotaExceededError, False, "for hours"),
    ({"error": {"message": "Insufficient credits"}}, 400, errors.PermissionDeniedError, False, "Add credit"),
    ({"error": {"message": "Model @cf/a/b was deprecated"}}, 400, errors.ModelNotFoundError, False, "was retired"),
    (
        {"error": {"message": "The model requires the Workers Paid plan"}},
        403,
        errors.PermissionDeniedError,
        False,
        "Paid",
    ),
    ({"error": {"message": "Capacity temporarily exceeded"}}, 200, errors.RateLimitError, True, "no capacity"),
    (
        {"error": {"message": "The prompt exceeds the model's context"}},
        400,
        errors.ContextWindowExceededError,
        False,
        "",
    ),
]


@pytest.mark.parametrize(("body", "status", "kind", "retryable", "advice"), FAILURES)
def test_each_failure_has_its_class_and_an_advice_to_act_on(
    body: dict[str, Any], status: int, kind: type[errors.WorkersAIError], retryable: bool, advice: str
) -> None:
    error = read(body, status)
    assert (type(error), error.retryable, error.status_code) == (kind, retryable, status)
    assert advice in error.message
    assert "AiError: AiError:" not in error.message


@pytest.mark.parametrize(("code", "kind"), [(5019, errors.BadRequestError), (3040, errors.RateLimitError)])
def test_a_known_code_stands_whatever_the_words(code: int, kind: type[errors.WorkersAIError]) -> None:
    assert type(read(service(code, "Deprecated SDK: this model is deprecated; insufficient balance"), 405)) is kind


@pytest.mark.parametrize("model", SUCCESSORS)
def test_each_retired_model_names_its_successor(model: str) -> None:
    error = read(service(5028, f"AiError: {model} was deprecated on 2026-05-30..."), 410)
    assert f"Use {SUCCESSORS[model]} instead." in error.message
    assert SUCCESSORS[model] not in SUCCESSORS


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (VALIDATION, "AiError: Request body failed validation (uuid)."),
        ('{"errors": [{"message": "a"}, {"message": "b"}]}', "a."),
        ('x {"detail": [{"loc": ["body"], "msg": "field required"}]}', "x field required."),
        ('{"error": "AiError: {\\"message\\": \\"deep\\"}"}', "AiError: deep."),
        ('AiError: {"type": "invalid"}', 'AiError: {"type": "invalid"}.'),
        ("AiError: {not json}", "AiError: {not json}."),
        ('AiError: {"message": 5} {"error": 6}', 'AiError: {"message": 5} {"error": 6}.'),
        ({"error": {"message": "an object"}}, "an object."),
    ],
)
def test_the_json_around_a_message_is_taken_off(given: Any, shown: str) -> None:
    body = {"success": False, "errors": [{"code": 5006, "message": given}]}
    assert read(body, 400).message == f"{shown} Correct what it names."


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": "AiError: AiError: 5007: none", "code": "x"}},
        {"error": {"message": 'AiError: {"error": {"message": "none", "code": 5007}}'}},
        {"error": {"message": {"error": {"message": "none", "code": 5007}}}},
        {"success": False, "error": [], "internalCode": 5007, "message": "none", "httpCode": 404},
        {"success": False, "error": [{"message": "none"}], "internalCode": 5007},
    ],
)
def test_the_code_is_found_where_it_is(body: dict[str, Any]) -> None:
    error = read(body, 400)
    assert (type(error), error.code) == (errors.ModelNotFoundError, 5007)


def test_the_gateways_body_names_the_status_of_a_failure_in_a_200() -> None:
    error = error_of(gateway(9999, "unknown", 429), ReplyHead(200, {"cf-ray": "r"}))
    assert error is not None
    assert (type(error), error.status_code, error.request_id) == (errors.RateLimitError, 429, "r")
    kept = error_of(gateway(9999, "unknown", 200), ReplyHead(502, {}))
    assert kept is not None
    assert kept.status_code == 502


@given(st.text(), st.sampled_from(["", "AiError: ", "AiError: AiError: "]))
def test_a_message_of_plain_words_stays_whole(words: str, prefix: str) -> None:
    assume("{" not in words and "AiError:" not in words)
    error = read({"errors": [{"code": 5006, "message": f"{prefix}x{words}x"}]}, 418)
    assert f"x{words}x" in error.message
    assert error.message.count("AiError:") == (1 if prefix else 0)


@given(
    st.recursive(
        st.text() | st.integers() | st.none(),
        lambda each: st.lists(each) | st.dictionaries(st.sampled_from(["error", "message", "detail", "code"]), each),
    )
)
def test_whatever_json_a_message_nests_it_is_an_error_of_ours(value: Any) -> None:
    assert isinstance(read({"errors": [{"message": f"AiError: {json.dumps(value)}"}]}, 400), errors.WorkersAIError)
    assert isinstance(read({"errors": [{"message": value, "code": value}]}, 400), errors.WorkersAIError)
