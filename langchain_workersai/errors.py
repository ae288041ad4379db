"""Errors that are both ours and LangChain's, so that code which catches either goes on working.

LangChain asks its integrations for this (``langchain_core.exceptions.ModelError``). Each class means what the class
of its name in :mod:`workersai.errors` means.
"""

from __future__ import annotations

from types import TracebackType

from langchain_core import exceptions as langchain

from workersai import errors


class AuthenticationError(errors.AuthenticationError, langchain.ModelAuthenticationError):
    """The token is missing, wrong or expired."""


class PermissionDeniedError(errors.PermissionDeniedError, langchain.ModelPermissionDeniedError):
    """This account or token may not do this."""


class BadRequestError(errors.BadRequestError, langchain.ModelInvalidRequestError):
    """The request is not one that the service takes."""


class ModelNotFoundError(errors.ModelNotFoundError, langchain.ModelNotFoundError):
    """There is no model of that name for this task."""


class RateLimitError(errors.RateLimitError, langchain.ModelRateLimitError):
    """Too many requests, or no capacity for the model just now."""


class QuotaExceededError(errors.QuotaExceededError, langchain.ModelRateLimitError):
    """The account's daily free allocation is used up. LangChain files it by its status, 429."""


class RequestTooLargeError(errors.RequestTooLargeError, langchain.ModelInvalidRequestError):
    """The body of the request is larger than the service takes."""


class ContextWindowExceededError(errors.ContextWindowExceededError, langchain.ContextOverflowError):
    """Prompt and answer together don't fit the model's context window."""


class JSONModeError(errors.JSONModeError, langchain.ModelInvalidRequestError):
    """The model could not answer in the JSON that was asked for."""


class APITimeoutError(errors.APITimeoutError, langchain.ModelTimeoutError):
    """No answer within the timeout."""


class APIConnectionError(errors.APIConnectionError, langchain.ModelConnectionError):
    """The service could not be reached, or the connection was lost."""


class ServerError(errors.ServerError, langchain.ModelAPIError):
    """The service, or the edge in front of it, failed."""


class StreamInterruptedError(errors.StreamInterruptedError, langchain.ModelConnectionError):
    """A stream ended before the answer did."""


_BOTH: dict[type[errors.WorkersAIError], type[errors.WorkersAIError]] = {
    both.__bases__[0]: both
    for both in (
        AuthenticationError,
        PermissionDeniedError,
        BadRequestError,
        ModelNotFoundError,
        RateLimitError,
        QuotaExceededError,
        RequestTooLargeError,
        ContextWindowExceededError,
        JSONModeError,
        APITimeoutError,
        APIConnectionError,
        ServerError,
        StreamInterruptedError,
    )
}


def error_to_langchain(error: errors.WorkersAIError) -> errors.WorkersAIError:
    """The same error in the class that is LangChain's as well."""
    both = _BOTH.get(type(error))
    if both is None:
        return error
    same = both(error.message, **error.facts())
    # Theirs says it of a kind of failure, ours of this one: a 429 can be one that no retry helps.
    same.is_retryable = error.retryable  # type: ignore[attr-defined]
    return same


class langchain_errors:  # noqa: N801 - read as a statement: with langchain_errors()
    """A context in which our errors become LangChain's as well."""

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, errors.WorkersAIError):
            both = error_to_langchain(error)
            if both is not error:
                raise both.with_traceback(trace) from error.__cause__
