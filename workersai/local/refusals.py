"""In which form a refusal is told: each of the doors of the service has one of its own."""

from __future__ import annotations

from typing import Any

from workersai.local.binding import BINDING, is_run
from workersai.local.openai import openai_error
from workersai.local.wire import REST, WireError

_TWIN = "/ai/v1/"


def error_at(path: str, error: WireError, *, event: bool = False) -> dict[str, Any]:
    """A refusal as the route at ``path`` tells it, in the body of a reply or in an event of a stream."""
    if _TWIN in path:
        return openai_error(error)
    manner = BINDING if is_run(path) and not event else REST
    return manner.error(error)
