"""One class for each thing that a caller can act on.

Every error that leaves this package derives from :class:`WorkersAIError`. Its message says what happened and what to
do about it; its attributes are for programs. :mod:`workersai.error_table` maps the service's codes to these classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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
        partial: What a stream had delivered before it failed, or a reply that is no answer.
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
    """The token is valid, but the account or the token isn't allowed to do this, or a plan or credit is missing."""


class BadRequestError(WorkersAIError, ValueError):
    """The request is not one that the service takes. ``status_code`` is None where it was refused before sending."""


class ModelNotFoundError(WorkersAIError):
    """There is no model of that name for this task, or the model was retired."""


class RateLimitError(WorkersAIError):
    """Too many requests, or no capacity for the model just now: a later try may succeed."""

    default_retryable = True


class QuotaExceededError(WorkersAIError):
    """An allowance is used up, so retries fail until it is renewed.

    This is the account's daily free allocation, renewed at 00:00 UTC, or the spend limit of an AI Gateway, which can
    hold for hours.
    """


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


class ReasoningOnlyError(WorkersAIError):
    """The model ran out of tokens while thinking, and an object or a tool call was asked for.

    Raise ``max_tokens``, or lower the reasoning effort. ``partial`` is the reply, with its ``reasoning`` and ``usage``.
    """


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
