"""One class for each thing that a caller can act on, and the table of the service's codes behind them.

Every error that leaves this package derives from :class:`WorkersAIError`. Its message says what happened and what to
do about it; its attributes are for programs. Codes, statuses and retries follow the service's table
(wire.md#error-codes).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from typing_extensions import override

if TYPE_CHECKING:
    from workersai.protocol.values import Completion


class WorkersAIError(Exception):
    """Something went wrong with a call, or on the way to it.

    Args:
        message: What happened, and what to do.
        status_code: The HTTP status of the reply; None where there was no reply.
        code: The service's own number for the failure (``5006``); None where it sent none.
        request_id: The ``cf-ray`` of the reply, which Cloudflare's support asks for.
        retryable: Whether the same request may succeed if it is sent again; by default what the class says.
        retry_after: Seconds that the service asked to wait before the next try.
        partial: What a stream had delivered before it failed.
    """

    default_retryable = False
    never_sent = False
    """Whether no connection stood, so that nothing was sent and nothing can be billed."""

    def __init__(
        self,
        message: str,
        *,
        status_code: int | None = None,
        code: int | None = None,
        request_id: str | None = None,
        retryable: bool | None = None,
        retry_after: float | None = None,
        partial: Completion | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status_code = status_code
        self.code = code
        self.request_id = request_id
        self.retryable = self.default_retryable if retryable is None else retryable
        self.retry_after = retry_after
        self.partial = partial

    def __str__(self) -> str:
        """The message, then the status, the code and the request id where there are any."""
        facts = [
            f"{label} {value}"
            for label, value in (
                ("HTTP", self.status_code),
                ("code", self.code),
                ("request", self.request_id),
            )
            if value is not None
        ]
        return f"{self.message} ({', '.join(facts)})" if facts else self.message

    def reword(self, message: str) -> None:
        """Gives the error another message."""
        self.message = message
        self.args = (message,)

    def facts(self) -> dict[str, Any]:
        """The keyword arguments that make the same error again, in this class or another."""
        return {
            "status_code": self.status_code,
            "code": self.code,
            "request_id": self.request_id,
            "retryable": self.retryable,
            "retry_after": self.retry_after,
            "partial": self.partial,
        }

    def __reduce__(self) -> tuple[Any, ...]:
        # An exception is pickled by its positional arguments alone, which would lose every fact.
        return _rebuild, (type(self), self.message, self.facts())


def _rebuild(cls: type[WorkersAIError], message: str, facts: dict[str, Any]) -> WorkersAIError:
    return cls(message, **facts)


class ConfigurationError(WorkersAIError):
    """A setting is missing or can't be right: the account, the token, the base URL (and nothing was sent), the gateway.

    It is no ``ValueError``: Pydantic would wrap that, in the frameworks' models, and show it with their fields.
    """


class JournalError(WorkersAIError):
    """The journal of a batch job can't be used: it is another job's, in use, damaged, or can't be written."""


class AuthenticationError(WorkersAIError):
    """The token is missing, wrong or expired."""


class PermissionDeniedError(WorkersAIError):
    """The token is known, but this account or token may not do this."""


class BadRequestError(WorkersAIError, ValueError):
    """The request is not one that the service takes. ``status_code`` is None where it was refused before sending."""


class ModelNotFoundError(WorkersAIError):
    """There is no model of that name for this task."""


class RateLimitError(WorkersAIError):
    """Too many requests, or no capacity for the model just now: a later try may succeed."""

    default_retryable = True


class QuotaExceededError(WorkersAIError):
    """The account's daily free allocation is used up: no retry helps before the next day (UTC)."""


class RequestTooLargeError(WorkersAIError):
    """The body of the request is larger than the service takes."""


class ContextWindowExceededError(WorkersAIError):
    """Prompt and answer together don't fit the model's context window.

    Where it was found out before sending, ``prompt_tokens``, ``max_tokens`` (the room for the answer) and
    ``context_window`` say by how much; where the service refused, they are None.
    """

    def __init__(
        self,
        message: str,
        *,
        prompt_tokens: int | None = None,
        max_tokens: int | None = None,
        context_window: int | None = None,
        **facts: Any,
    ) -> None:
        super().__init__(message, **facts)
        self.prompt_tokens = prompt_tokens
        self.max_tokens = max_tokens
        self.context_window = context_window

    @override
    def facts(self) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in ("prompt_tokens", "max_tokens", "context_window")}
        return {**super().facts(), **own}


class BudgetExceededError(WorkersAIError):
    """The call could have passed the budget of a :class:`~workersai.CostTracker`. Nothing was sent."""


class JSONModeError(WorkersAIError):
    """The model could not answer in the JSON that was asked for. Another sample may: the caller decides."""


class APITimeoutError(WorkersAIError):
    """No answer within the timeout, here or at the service."""

    default_retryable = True


class APIConnectionError(WorkersAIError):
    """The service could not be reached, or the connection was lost."""

    default_retryable = True


class ServerError(WorkersAIError):
    """The service or Cloudflare failed, or sent a reply that can't be parsed or is too large."""

    default_retryable = True


class StreamInterruptedError(WorkersAIError):
    """A stream ended before the answer did. ``partial`` holds what had arrived."""

    default_retryable = True


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

_LONGEST_WORDS = 2_000  # of the service's own in a message

# The table of wire.md#error-codes, by the service's code.
_BY_CODE: dict[int, _Row] = {
    10000: _Row(AuthenticationError, _CREDENTIALS),
    5007: _Row(ModelNotFoundError, "Check the model's name; it begins with @cf/ or @hf/."),
    7000: _Row(BadRequestError, "Check the base URL and the account id."),
    7003: _Row(BadRequestError, "Check the base URL and the account id."),
    5006: _Row(BadRequestError, "Correct what it names."),
    5004: _Row(BadRequestError, "Check the messages and the options."),
    5024: _Row(JSONModeError, "Ask again, simplify the schema, or use function calling."),
    3039: _Row(BadRequestError, "Check the name given as lora, and that the finetune's files are uploaded."),
    3003: _Row(BadRequestError, "Check that the input is whole."),
    5021: _Row(ContextWindowExceededError, _WINDOW),
    3010: _Row(ContextWindowExceededError, _WINDOW),
    5018: _Row(PermissionDeniedError, _ACCOUNT),
    3041: _Row(PermissionDeniedError, _ACCOUNT),
    5016: _Row(PermissionDeniedError, "Accept the model's agreement once in the Cloudflare dashboard."),
    3023: _Row(PermissionDeniedError, "The account is blocked: ask Cloudflare's support."),
    5019: _Row(BadRequestError, "Update this package."),
    5005: _Row(BadRequestError, "Leave lora out, or choose a model that takes one."),
    3042: _Row(ModelNotFoundError, "Check the model's name; it begins with @cf/ or @hf/."),
    3006: _Row(RequestTooLargeError, "Send less in one request."),
    3007: _Row(APITimeoutError, "Try again, or ask for fewer tokens."),
    3008: _Row(APITimeoutError, "Try again, or ask for fewer tokens."),
    3036: _Row(QuotaExceededError, _TOMORROW),
    4006: _Row(QuotaExceededError, _TOMORROW),
    3040: _Row(RateLimitError, "The model has no capacity just now: try again in a moment."),
    # AI Gateway's own (its pages on guardrails and rate limits; 2001 as seen by its users).
    2001: _Row(ConfigurationError, "There is no such gateway: check its id, or create it (AI > AI Gateway)."),
    2003: _Row(RateLimitError, "This is the limit set for the gateway: slow down, or raise it there."),
    2016: _Row(BadRequestError, "A guardrail of the gateway blocked the prompt."),
    2017: _Row(BadRequestError, "A guardrail of the gateway blocked the answer."),
}

# For a code that the table doesn't know, and for replies without one.
_BY_STATUS: dict[int, _Row] = {
    401: _Row(AuthenticationError, _CREDENTIALS),
    403: _Row(PermissionDeniedError, _CREDENTIALS),
    404: _Row(BadRequestError, "Check the base URL, the account id and the model's name."),
    408: _Row(APITimeoutError, "Try again, or ask for fewer tokens."),
    413: _Row(RequestTooLargeError, "Send less in one request."),
    429: _Row(RateLimitError, "Too many requests: slow down, or try again in a moment."),
}

# An overflow and a JSON Mode failure are told by their words, since code and status vary (wire.md#error-codes).
_BY_WORDS: tuple[tuple[re.Pattern[str], _Row], ...] = (
    (re.compile(r"context window limit|maximum context length is", re.IGNORECASE), _BY_CODE[5021]),
    (re.compile(r"JSON Mode couldn't be met", re.IGNORECASE), _BY_CODE[5024]),
)

_SERVER = _Row(ServerError, "The service failed: try again in a moment.")
_REDIRECT = _Row(BadRequestError, "A redirect is not followed, since it would take the token elsewhere.")
_UNNAMED = _Row(BadRequestError, "Correct the request, or ask Cloudflare's support, which knows it by its request id.")
# A failure told in a 200, or in a stream, with no code that we know: the request may be fine, the service was not.
_UNEXPLAINED = _Row(
    ServerError, "If it comes again, ask Cloudflare's support, which knows it by its request id.", retryable=False
)


def error_for(message: str, *, status_code: int | None, code: int | None, **facts: Any) -> WorkersAIError:
    """The error for a failure that the service told: its words, status and code -> one class, with advice.

    Args:
        message: The service's own words.
        status_code: The HTTP status they came with.
        code: The service's own number, if it sent one.
        **facts: Further arguments of :class:`WorkersAIError`.
    """
    row = _row_for(message, status_code, code)
    advice = f" {row.advice}" if row.advice else ""
    if len(message) > _LONGEST_WORDS:
        message = f"{message[:_LONGEST_WORDS]} ... ({len(message):,} characters)"
    sentence = message if message.endswith((".", "!", "?")) else f"{message}."
    facts.setdefault("retryable", row.retryable)
    return row.error(f"{sentence}{advice}", status_code=status_code, code=code, **facts)


def _row_for(message: str, status_code: int | None, code: int | None) -> _Row:
    for words, row in _BY_WORDS:
        if words.search(message):
            return row
    if code in _BY_CODE:
        return _BY_CODE[code]
    status = status_code or 0
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    if status >= 500:  # noqa: PLR2004 - HTTP's server errors
        return _SERVER
    if status >= 400:  # noqa: PLR2004 - HTTP's client errors
        return _UNNAMED
    return _REDIRECT if status >= 300 else _UNEXPLAINED  # noqa: PLR2004 - HTTP's redirects
