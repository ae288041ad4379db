"""Servers that many tests share. The tests of this folder read native bodies, unless they name another dialect."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conftest import by_default
from workersai.local import LocalServer, SmolLM


@pytest.fixture(autouse=True, scope="module")
def _native_by_default() -> Iterator[None]:
    with by_default("native"):
        yield


@pytest.fixture(scope="session")
def echo() -> Iterator[LocalServer]:
    """A server that says back what it was told last, for tests that look at single requests only."""
    script = lambda request: request.prompt or request.messages[-1].content  # noqa: E731
    with LocalServer(script, dialect="native") as server:
        yield server


@pytest.fixture(scope="session")
def smollm() -> Iterator[LocalServer]:
    """A local server with the real SmolLM2 behind it, for the whole session."""
    with LocalServer(SmolLM(), dialect="native") as server:
        yield server
