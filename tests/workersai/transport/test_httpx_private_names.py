"""The private names of httpx and httpcore that ``http_client="httpx"`` uses: they are there, and it works without."""

import asyncio
import re
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import httpcore
import httpx
import pytest

from tests.raw_server import LONG, RawServer, call, completion, raw_server, reply
from workersai import AsyncClient
from workersai._transport import httpx_pool

ADVICE = "workersai/_transport/httpx_pool.py can't watch connections any more: adapt _watch_connections"


@dataclass
class Recorded:
    """A server, and the requests that it has received."""

    server: RawServer
    requests: list[bytes]


@pytest.fixture
def recorded() -> Iterator[Recorded]:
    requests: list[bytes] = []

    def answer(connected: socket.socket, request: bytes) -> None:
        requests.append(request)
        connected.sendall(reply(completion("ok")))

    with raw_server(answer) as running:
        yield Recorded(running, requests)


@pytest.fixture
def http() -> Iterator[httpx.AsyncClient]:
    """A client of httpx's own, with a proxy."""
    client = httpx.AsyncClient(proxy="http://127.0.0.1:9", trust_env=False)
    yield client
    asyncio.run(client.aclose())


def test_a_client_still_keeps_its_transport_as_transport(http: httpx.AsyncClient) -> None:
    assert isinstance(getattr(http, "_transport", None), httpx.AsyncHTTPTransport), f"httpx: no _transport. {ADVICE}"


def test_a_client_still_keeps_those_of_its_proxies_as_mounts(http: httpx.AsyncClient) -> None:
    mounts = getattr(http, "_mounts", None)
    assert isinstance(mounts, dict), f"httpx: no _mounts. {ADVICE}"
    assert [type(transport) for transport in mounts.values()] == [httpx.AsyncHTTPTransport], f"httpx: _mounts. {ADVICE}"


def test_a_transport_still_keeps_its_pool_as_pool(http: httpx.AsyncClient) -> None:
    for transport in (http._transport, *http._mounts.values()):
        pool = getattr(transport, "_pool", None)
        assert isinstance(pool, httpcore.AsyncConnectionPool), f"httpx: no _pool. {ADVICE}"


def test_a_pool_still_keeps_its_backend_as_network_backend(http: httpx.AsyncClient) -> None:
    for transport in (http._transport, *http._mounts.values()):
        backend = getattr(getattr(transport, "_pool", None), "_network_backend", None)
        assert isinstance(backend, httpcore.AsyncNetworkBackend), f"httpcore: no _network_backend. {ADVICE}"


def test_a_pool_still_connects_by_its_network_backend(recorded: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    connected: list[int] = []

    class Counting(httpx_pool._Backend):
        async def connect_tcp(
            self, host: str, port: int, *args: object, **options: object
        ) -> httpcore.AsyncNetworkStream:
            connected.append(port)
            return await super().connect_tcp(host, port, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(httpx_pool, "_Backend", Counting)
    assert call("httpx", recorded.server.account, "hi", deadline=LONG) == "ok"
    assert connected == [recorded.server.port], f"httpcore: _network_backend isn't used. {ADVICE}"


NAMES = [
    (httpx.AsyncClient, "_transport"),
    (httpx.AsyncClient, "_mounts"),
    (httpx.AsyncHTTPTransport, "_pool"),
    (httpcore.AsyncConnectionPool, "_network_backend"),
]


@pytest.mark.parametrize(("kind", "name"), NAMES, ids=[name for _, name in NAMES])
def test_httpx_s_own_connections_work_without_that_name(
    kind: type, name: str, recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hide(self: object, requested: str) -> object:
        """Hides the name from our module only, since httpx needs it as well."""
        if requested == name and sys._getframe(1).f_globals["__name__"] == httpx_pool.__name__:
            hidden.append(name)
            raise AttributeError(name)
        return object.__getattribute__(self, requested)

    hidden: list[str] = []
    monkeypatch.setattr(kind, "__getattribute__", hide)

    async def main() -> None:
        async with AsyncClient(**recorded.server.account, http_client="httpx") as client:
            for _ in range(3):
                assert (await client.run("hi", deadline=LONG)).text == "ok"

    asyncio.run(main())
    assert hidden, "the name was looked for"
    assert len(recorded.requests) == 3
    for request in recorded.requests:
        assert re.search(rb"(?i)^authorization: Bearer t\r$", request, re.MULTILINE), "the token itself is sent"
    assert len(recorded.server.connections) == 3, "a connection that isn't watched is not used again"


async def test_connections_that_are_watched_are_used_again(recorded: Recorded) -> None:
    async with AsyncClient(**recorded.server.account, http_client="httpx") as client:
        for _ in range(3):
            assert (await client.run("hi", deadline=LONG)).text == "ok"
    assert len(recorded.server.connections) == 1
