"""The result of a check: a row of the table, an object of ``--json``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from workersai.errors import (
    APIConnectionError,
    AuthenticationError,
    ModelNotFoundError,
    PermissionDeniedError,
    QuotaExceededError,
    RateLimitError,
    WorkersAIError,
)

Status = Literal["ok", "warn", "fail", "skip"]
Blocks = Literal["", "model", "all"]

_MODEL_CODES = (5007, 5016, 5018, 5028, 5035, 3041, 3042)
"""Refusals of one model (wire.md#error-codes), which say nothing about another model."""

RUN_PERMISSION = (
    'Edit the token at https://dash.cloudflare.com/profile/api-tokens: it needs the permissions "Workers AI: Read" and '
    '"Workers AI: Edit" for this account.'
)


@dataclass(frozen=True)
class Finding:
    """What a check found.

    Attributes:
        name: The check.
        status: ``ok``; ``warn``: works, but differs from what is expected; ``fail``: doesn't work; ``skip``: not run.
        summary: What was seen.
        advice: What to do next; empty if there is nothing to do.
        shape: The shape of the reply, if it has one.
        expected_shape: The shape that the reply should have; None if any known one will do.
        prompt_tokens: As the reply counts them; None without usage.
        completion_tokens: The same.
        seconds: How long the check took.
        details: Further facts, for programs.
        blocks: Which later checks can't succeed: those of the same model, or all.
    """

    name: str
    status: Status
    summary: str
    advice: str = ""
    shape: str | None = None
    expected_shape: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    seconds: float | None = None
    details: dict[str, Any] = field(default_factory=dict)
    blocks: Blocks = ""

    def with_seconds(self, seconds: float) -> Finding:
        """The same, with the time that the check took."""
        return replace(self, seconds=round(seconds, 3))


@dataclass(frozen=True)
class Check:
    """Some rows that are found together.

    Attributes:
        names: The rows, in their order.
        model: The model that is called; empty for a check of the account.
        run: Finds the rows.

    ``run`` raises :class:`WorkersAIError` for a failure of its first row that is left.
    """

    names: tuple[str, ...]
    model: str
    run: Callable[[], list[Finding]]


def finding_from_error(name: str, error: WorkersAIError) -> Finding:
    """The row for a check whose request failed: what happened, what to do, and what it blocks."""
    message, _, _ = str(error).partition("\n")
    status: Status = "fail"
    advice, blocks = "", _blocked_by(error)
    if error.code == 3040:  # noqa: PLR2004 - out of capacity
        status, advice = "warn", "Run the check again later: the model had no capacity just now."
    elif isinstance(error, RateLimitError):
        status, advice = "warn", "Wait a minute, then run the check again."
    elif isinstance(error, QuotaExceededError):
        advice = "Run the check again after 00:00 UTC."
    elif error.code == 10000 or (isinstance(error, AuthenticationError) and error.code is None):  # noqa: PLR2004
        advice = RUN_PERMISSION
    facts = {"error": type(error).__name__, "code": error.code, "status_code": error.status_code}
    return Finding(name, status, message, advice, details=facts, blocks=blocks)


def skipped(name: str, reason: str) -> Finding:
    """The row of a check that was not run."""
    return Finding(name, "skip", reason)


def _blocked_by(error: WorkersAIError) -> Blocks:
    if error.code in _MODEL_CODES or isinstance(error, ModelNotFoundError):
        return "model"
    if isinstance(error, QuotaExceededError | AuthenticationError | PermissionDeniedError):
        return "all"
    if isinstance(error, APIConnectionError) and error.never_sent:
        return "all"
    return ""
