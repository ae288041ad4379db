"""The errors that stop a whole job."""

from __future__ import annotations

from workersai.errors import (
    AuthenticationError,
    BudgetExceededError,
    ConfigurationError,
    ModelNotFoundError,
    PermissionDeniedError,
    QuotaExceededError,
    WorkersAIError,
)

FATAL = (
    AuthenticationError,
    PermissionDeniedError,
    QuotaExceededError,
    ModelNotFoundError,
    ConfigurationError,
    BudgetExceededError,
)
"""What no other row of the job would escape: the job stops, and can go on later."""


def is_fatal(error: WorkersAIError) -> bool:
    """Whether an error is of the job, and not of one row of it; a network that is not there is no row's fault."""
    return isinstance(error, FATAL) or error.never_sent
