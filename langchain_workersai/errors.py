"""Errors that are both ours and LangChain's, so that code which catches either goes on working.

LangChain asks its integrations for this (``langchain_core.exceptions.ModelError``). Each class means what the class
of its name in :mod:`workersai.errors` means.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any

from langchain_core import exceptions as langchain

from workersai import errors


class _Told(errors.WorkersAIError):
    is_retryable: bool

    def __init__(self, message: str, **facts: Any) -> None:
        super().__init__(message, **facts)
        # LangChain's word for it. Theirs says it of a kind of failure, ours of this one: a 429 can be past help.
        self.is_retryable = self.retryable


class AuthenticationError(_Told, errors.AuthenticationError, langchain.ModelAuthenticationError):
    """The token is missing, wrong or expired."""


class PermissionDeniedError(_Told, errors.PermissionDeniedError, langchain.ModelPermissionDeniedError):
    """This account or token may not do this, or a plan or credit is missing."""


class BadRequestError(_Told, errors.BadRequestError, langchain.ModelInvalidRequestError):
    """The request is not one that the service takes."""


class ModelNotFoundError(_Told, errors.ModelNotFoundError, langchain.ModelNotFoundError):
    """There is no model of that name for this task, or it was retired."""


class RateLimitError(_Told, errors.RateLimitError, langchain.ModelRateLimitError):
    """Too many requests, or no capacity for the model just now."""


class QuotaExceededError(_Told, errors.QuotaExceededError, langchain.ModelRateLimitError):
    """The daily free allocation or a gateway's spend limit is used up. LangChain files it by its status, 429."""


class RequestTooLargeError(_Told, errors.RequestTooLargeError, langchain.ModelInvalidRequestError):
    """The body of the request is larger than the service takes."""


class ContextWindowExceededError(_Told, errors.ContextWindowExceededError, langchain.ContextOverflowError):
    """Prompt and answer together don't fit the model's context window."""


class JSONModeError(_Told, errors.JSONModeError, langchain.ModelInvalidRequestError):
    """The model could not answer in the JSON that was asked for."""


class ReasoningOnlyError(_Told, errors.ReasoningOnlyError, langchain.ModelInvalidRequestError):
    """The model ran out of tokens while thinking, and an object or a tool call was asked for."""


class APITimeoutError(_Told, errors.APITimeoutError, langchain.ModelTimeoutError):
    """No answer within the timeout."""


class APIConnectionError(_Told, errors.APIConnectionError, langchain.ModelConnectionError):
    """The service could not be reached, or the connection was lost."""


class ServerError(_Told, errors.ServerError, langchain.ModelAPIError):
    """The service, or the edge in front of it, failed."""


class StreamInterruptedError(_Told, errors.StreamInterruptedError, langchain.ModelConnectionError):
    """A stream ended before the answer did."""


_BOTH: dict[type[errors.WorkersAIError], type[errors.WorkersAIError]] = {
    both.__bases__[1]: both
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
        ReasoningOnlyError,
        APITimeoutError,
        APIConnectionError,
        ServerError,
        StreamInterruptedError,
    )
}


def error_to_langchain(error: errors.WorkersAIError) -> errors.WorkersAIError:
    """The same error in the class that is LangChain's as well."""
    both = _BOTH.get(type(error))
    return error if both is None else both(error.message, **error.facts())


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
