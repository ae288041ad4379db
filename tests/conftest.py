"""Fixtures of all tests: no credentials, and servers on loopback."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncGenerator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import get_args

import pytest
from hypothesis import HealthCheck, settings

from tests.support import AsyncDriver, Driver, Lengths, Serve, ServeLengths, SyncDriver
from workersai.client import _POOLS
from workersai.local import LocalServer
from workersai.local.dialects import DialectName
from workersai.local.engine import Event, GenerationRequest
from workersai.local.smollm import SmolLM

# How fast the machine is decides nothing: an example may take as long as it takes, and so may making one.
settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")
# For ``make fuzz``; the tests of tests/fuzz take their share of it.
settings.register_profile("fuzz", max_examples=20_000, deadline=None, suppress_health_check=list(HealthCheck))

LIVE = os.environ.get("WORKERSAI_LIVE") == "1"
"""Whether LangChain's suite runs against the service itself: ``make test-live``."""
VARIABLES = ("CLOUDFLARE_ACCOUNT_ID", "CLOUDFLARE_API_TOKEN", "CLOUDFLARE_BASE_URL", "CF_ACCOUNT_ID", "CF_AI_API_TOKEN")

# What takes long, the longest first: begun last, it would keep one core waiting for the other.
LONGEST = (
    "[extraction]",
    "test_ray.py",
    "as_it_is_stored[",
    "unchanged_with_credentials[",
    "test_main_job.py",
    "test_window.py",
    "test_benchmarks.py",
    "test_load.py",
    "test_agents.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts what takes long at the beginning; all else keeps its order."""
    items.sort(
        key=lambda item: next((place for place, name in enumerate(LONGEST) if name in item.nodeid), len(LONGEST))
    )


@pytest.fixture(autouse=True, scope="session")
def _without_credentials() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in () if LIVE else VARIABLES:
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(autouse=True, scope="session")
def _strict_servers() -> Iterator[None]:
    """Local servers refuse what the published schemas don't list, unless a test says ``strict=False``."""
    defaults = LocalServer.__init__.__kwdefaults__
    assert defaults is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(defaults, "strict", value=True)
        yield


@contextmanager
def by_default(dialect: str) -> Iterator[None]:
    """Local servers speak that dialect, unless a test names another one."""
    defaults = LocalServer.__init__.__kwdefaults__
    assert defaults is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(defaults, "dialect", dialect)
        yield


@pytest.fixture(params=get_args(DialectName))
def every_dialect(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each test that uses it runs once with each dialect of the local server, whose name it gets."""
    dialect: str = request.param
    with by_default(dialect):
        yield dialect


@pytest.fixture(autouse=True, scope="session")
def _signals_as_at_a_terminal() -> None:
    """What a shell runs in the background ignores Ctrl-C, what nohup runs a hang-up, and what they start does too."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(autouse=True)
def _connections_of_its_own() -> Iterator[None]:
    """No test finds connections that one before it left open: what is forgotten without being closed stays open."""
    yield
    for pool in _POOLS.drop(lambda _: True):
        pool.transport.close()


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts a server that answers from a script, and closes it after the test."""
    with ExitStack() as stack:
        yield lambda script: stack.enter_context(LocalServer(script))


@pytest.fixture
def serve_lengths() -> Iterator[ServeLengths]:
    """Starts a server whose vectors begin with the length of the text, with faults or None."""
    with ExitStack() as stack:
        yield lambda faults: stack.enter_context(LocalServer("no text", embedder=Lengths(), faults=faults))


@pytest.fixture
def lengths(serve_lengths: ServeLengths) -> LocalServer:
    """The same, without faults."""
    return serve_lengths(None)


class Brief(SmolLM):
    """The small model, which can be set to answer in a few tokens, and with its likeliest ones."""

    most: int | None = None

    def generate(self, request: GenerationRequest) -> AsyncGenerator[Event, None]:
        if self.most is not None:
            # By chance, it would write a name that is longer than the page's max_tokens.
            request = replace(request, sampling=replace(request.sampling, temperature=0.0))
            if request.json_schema is None and not request.tools:
                request = replace(request, max_tokens=min(request.max_tokens, self.most))
        return super().generate(request)


@pytest.fixture(scope="session")
def smollm() -> Iterator[LocalServer]:
    """The local server with the real SmolLM2 behind it, for the whole session."""
    with LocalServer(Brief()) as server:
        yield server


@pytest.fixture
def brief_smollm(smollm: LocalServer) -> Iterator[LocalServer]:
    """The same, and its answers are short: for programs of which only whether they run is to be known."""
    assert isinstance(smollm.engine, Brief)
    smollm.engine.most = 8
    yield smollm
    smollm.engine.most = None


@pytest.fixture(params=[SyncDriver(), AsyncDriver()], ids=["sync", "async"])
def driver(request: pytest.FixtureRequest) -> Driver:
    """Each test that takes it runs once with either face."""
    given: Driver = request.param
    return given


@pytest.fixture(scope="session")
def minilm() -> Iterator[LocalServer]:
    """The local server with the real MiniLM behind it, for the whole session; it writes no text."""
    with LocalServer("no text") as server:
        yield server
