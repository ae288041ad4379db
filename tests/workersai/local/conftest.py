"""Servers that many tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from workersai.local import LocalServer


@pytest.fixture(scope="session")
def echo() -> Iterator[LocalServer]:
    """A server that says back what it was told last, for tests that look at single requests only."""
    with LocalServer(lambda request: request.prompt or request.messages[-1].content, dialect="native") as server:
        yield server
