"""The service's codes, statuses and words -> one error class each, with advice.

The rows are those of wire.md#error-codes.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from workersai.errors import (
    APITimeoutError,
    AuthenticationError,
    BadRequestError,
    ConfigurationError,
    ContextWindowExceededError,
    JSONModeError,
    ModelNotFoundError,
    PermissionDeniedError,
    QuotaExceededError,
    RateLimitError,
    RequestTooLargeError,
    ServerError,
    WorkersAIError,
)
from workersai.retired import retirement_advice


class _Row(NamedTuple):
    error: type[WorkersAIError]
    advice: str
    retryable: bool | None = None


_CREDENTIALS = (
    "Check CLOUDFLARE_API_TOKEN and CLOUDFLARE_ACCOUNT_ID: the token needs the Workers AI permission for that account "
    "(dash.cloudflare.com/profile/api-tokens)."
)
_WINDOW = "Shorten the prompt, or ask for fewer tokens with max_tokens."
_TOMORROW = "Wait for the next day (UTC), or move the account to the Workers Paid plan."
_ACCOUNT = "Ask Cloudflare about the account's access to this model."
_NAME = "Check the model's name; it begins with @cf/ or @hf/."
_PAID = (
    "Move the account to the Workers Paid plan (dash.cloudflare.com/?to=/:account/workers/plans), or use a model that "
    "the free plan includes."
)
_CREDIT = (
    "Add credit to AI Gateway in the Cloudflare dashboard (AI > AI Gateway), or store your own provider key there."
)
_SPEND_LIMIT = (
    "The gateway's spend limit can hold for hours, so this call is not retried. Raise the limit in the gateway's "
    "settings, or wait until its period ends."
)
_SLOW = "Retry, or request fewer tokens."
_CORRECT = "Correct what it names."
_GATEWAY_RATE = "This is the limit set for the gateway: slow down, or raise it there."

_LONGEST_WORDS = 2_000  # characters of the service's own message that are shown

_BY_CODE: dict[int, _Row] = {
    10000: _Row(AuthenticationError, _CREDENTIALS),
    5007: _Row(ModelNotFoundError, _NAME),
    5028: _Row(ModelNotFoundError, ""),
    7000: _Row(BadRequestError, "Check the base URL and the account id."),
    7003: _Row(BadRequestError, "Check the base URL and the account id."),
    5006: _Row(BadRequestError, _CORRECT),
    5004: _Row(BadRequestError, "Check the messages and the options."),
    5012: _Row(BadRequestError, "The model doesn't accept this request. Compare it with the model's published schema."),
    8001: _Row(
        BadRequestError,
        "Check tool_choice ('auto', 'none', 'required' or a tool's name), the tools' descriptions and the messages.",
    ),
    8007: _Row(BadRequestError, "The model's server refused the request. Correct what it names."),
    3030: _Row(BadRequestError, "The model refused the request. Correct what it names."),
    5024: _Row(JSONModeError, "Ask again, simplify the schema, or use function calling."),
    3039: _Row(BadRequestError, "Check the name given as lora, and that the finetune's files are uploaded."),
    3003: _Row(BadRequestError, "Check that the input is whole."),
    5021: _Row(ContextWindowExceededError, _WINDOW),
    3010: _Row(ContextWindowExceededError, _WINDOW),
    5018: _Row(PermissionDeniedError, _ACCOUNT),
    3041: _Row(PermissionDeniedError, _ACCOUNT),
    5035: _Row(PermissionDeniedError, _PAID),
    5016: _Row(PermissionDeniedError, "Accept the model's agreement once in the Cloudflare dashboard."),
    3023: _Row(PermissionDeniedError, "The account is blocked: ask Cloudflare's support."),
    5019: _Row(BadRequestError, "Update this package."),
    5005: _Row(BadRequestError, "Leave lora out, or choose a model that takes one."),
    3042: _Row(ModelNotFoundError, _NAME),
    3006: _Row(RequestTooLargeError, "Send less in one request."),
    3007: _Row(APITimeoutError, _SLOW),
    3008: _Row(APITimeoutError, _SLOW),
    3046: _Row(APITimeoutError, _SLOW),
    3036: _Row(QuotaExceededError, _TOMORROW),
    4006: _Row(QuotaExceededError, _TOMORROW),
    3040: _Row(RateLimitError, "The model has no capacity just now: try again in a moment."),
    8005: _Row(ServerError, "Retry in a moment. If the request has an SVG image, send it as PNG or JPEG."),
    8008: _Row(ServerError, "The service failed: try again in a moment."),
    # AI Gateway's own (its pages on guardrails and rate limits; 2001 as seen by its users).
    2001: _Row(ConfigurationError, "There is no such gateway: check its id, or create it (AI > AI Gateway)."),
    2003: _Row(RateLimitError, _GATEWAY_RATE),
    2016: _Row(BadRequestError, "A guardrail of the gateway blocked the prompt."),
    2017: _Row(BadRequestError, "A guardrail of the gateway blocked the answer."),
    2021: _Row(PermissionDeniedError, _CREDIT),
    2045: _Row(QuotaExceededError, _SPEND_LIMIT),
}

_MODEL_SERVER = frozenset({3030, 5012, 7003, 8001, 8007})
"""Codes for what another server behind the service refused. With a 5xx status, that server failed instead."""

# For a code that the table doesn't know, and for replies without one.
_BY_STATUS: dict[int, _Row] = {
    401: _Row(AuthenticationError, _CREDENTIALS),
    402: _Row(PermissionDeniedError, _CREDIT),
    403: _Row(PermissionDeniedError, _CREDENTIALS),
    404: _Row(BadRequestError, "Check the base URL, the account id and the model's name."),
    408: _Row(APITimeoutError, _SLOW),
    410: _BY_CODE[5028],
    413: _Row(RequestTooLargeError, "Send less in one request."),
    429: _Row(RateLimitError, "Too many requests: slow down, or try again in a moment."),
}

Words = tuple[tuple[re.Pattern[str], _Row], ...]


def _words(*rows: tuple[str, _Row]) -> Words:
    return tuple((re.compile(words, re.IGNORECASE), row) for words, row in rows)


# The code and the status of these failures vary, so that only the words are reliable (wire.md#error-codes).
_OVERFLOW = (
    r"context window limit|maximum context length|maximum model length|context_length_exceeded"
    r"|(exceed\w*|longer than|larger than|too long for) (the |this |its )?(model'?s? |maximum )*context"
)
_BY_WORDS = _words(
    (_OVERFLOW, _BY_CODE[5021]),
    (
        r"Sequence too long",
        _Row(BadRequestError, "The text is longer than the model reads: split it into smaller ones."),
    ),
    (
        r"Max context reached",
        _Row(BadRequestError, "All texts of one request together are too long: send fewer at once."),
    ),
    (r"JSON Mode couldn't be met", _BY_CODE[5024]),
    (
        r"does(n't| not) support (request )?queu",
        _Row(BadRequestError, "This model has no Async Batch API: make single calls, or choose another model."),
    ),
)

# Codes of which the words say which of two failures it is.
_BY_CODE_AND_WORDS: dict[int, Words] = {
    7003: _words(
        (r"model not found|no such model", _Row(ModelNotFoundError, "Check the model's name.")),
        (r"user input error|execution failed", _Row(BadRequestError, _CORRECT)),
    ),
}

# For replies without a code of the table, such as the OpenAI-compatible route's.
_BY_WORDS_ALONE = _words(
    (r"daily free allocation", _BY_CODE[4006]),
    (r"spend(ing)? limit", _BY_CODE[2045]),
    (r"insufficient (balance|credits?|funds)", _BY_CODE[2021]),
    (r"capacity temporarily exceeded|out of capacity", _BY_CODE[3040]),
    (r"requires? .{0,30}\bpaid\b.{0,10}\bplan", _BY_CODE[5035]),
    (r"(\bmodel|@[ch]f/\S+) .{0,60}\bdeprecated\b", _BY_CODE[5028]),
    (r"model not found|no such model", _BY_CODE[5007]),
    (r"account is not allowed to (access|use)", _BY_CODE[5018]),
)

_SERVER = _Row(ServerError, "The service failed: try again in a moment.")
_REDIRECT = _Row(BadRequestError, "A redirect is not followed, since it would take the token elsewhere.")
_UNNAMED = _Row(BadRequestError, "Correct the request, or ask Cloudflare's support, which knows it by its request id.")
# A failure reported in a 200, or in a stream, with no code that we know: the request may be fine, the service was not.
_UNEXPLAINED = _Row(
    ServerError, "If it comes again, ask Cloudflare's support, which knows it by its request id.", retryable=False
)


def error_for(message: str, *, status_code: int | None, code: int | None, **facts: Any) -> WorkersAIError:
    """Returns the error for a failure that the service reported, with its message followed by advice.

    Args:
        message: The service's own words.
        status_code: The HTTP status they came with.
        code: The service's own number, if it sent one.
        **facts: Further arguments of :class:`~workersai.errors.WorkersAIError`.
    """
    row = _row_for(message, status_code, code)
    advice = retirement_advice(message, is_retired=row is _BY_CODE[5028]) if _may_be_retired(row) else None
    if len(message) > _LONGEST_WORDS:
        message = f"{message[:_LONGEST_WORDS]} ... ({len(message):,} characters)"
    sentence = message if message.endswith((".", "!", "?")) else f"{message}."
    facts.setdefault("retryable", row.retryable)
    return row.error(f"{sentence} {advice or row.advice}", status_code=status_code, code=code, **facts)


def _may_be_retired(row: _Row) -> bool:
    """Whether a retired model can be the reason: 5018 was seen for one, too."""
    return row.error is ModelNotFoundError or row.advice == _ACCOUNT


def _row_for(message: str, status_code: int | None, code: int | None) -> _Row:
    status = status_code or 0
    row = _match(_BY_WORDS, message)
    if row is None and code is not None:
        row = _row_of_code(code, message, status)
    return row or _match(_BY_WORDS_ALONE, message) or _row_of_status(status)


def _match(words: Words, message: str) -> _Row | None:
    return next((row for pattern, row in words if pattern.search(message)), None)


def _row_of_code(code: int, message: str, status: int) -> _Row | None:
    if code in _MODEL_SERVER and status >= 500:  # noqa: PLR2004 - HTTP's server errors
        return _SERVER
    return _match(_BY_CODE_AND_WORDS.get(code, ()), message) or _BY_CODE.get(code)


def _row_of_status(status: int) -> _Row:
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    if status >= 500:  # noqa: PLR2004 - HTTP's server errors
        return _SERVER
    if status >= 400:  # noqa: PLR2004 - HTTP's client errors
        return _UNNAMED
    return _REDIRECT if status >= 300 else _UNEXPLAINED  # noqa: PLR2004 - HTTP's redirects
