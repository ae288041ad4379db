"""Tunnels through real proxies: CONNECT, CONNECT over TLS, and SOCKS 5, for sync and async calls."""

import asyncio
import gc
import os
from collections.abc import Iterator

import pytest
import trustme

from tests.raw_server import LONG, Way, call
from tests.workersai.transport.proxy_servers import (
    HOST,
    Handler,
    Tunnels,
    account,
    listening,
    over_tls,
    service_behind_tls,
)
from workersai import AsyncClient, Client
from workersai.errors import APIConnectionError

pytestmark = pytest.mark.usefixtures("trusted", "proxyless", "nothing_leaks")

KINDS = ["http", "https", "socks5"]


@pytest.fixture
def tunnels(authority: trustme.CA) -> Iterator[Tunnels]:
    with service_behind_tls(authority) as running:
        yield running


@pytest.fixture(params=KINDS)
def scheme(
    request: pytest.FixtureRequest,
    authority: trustme.CA,
    tunnels: Tunnels,
    monkeypatch: pytest.MonkeyPatch,
    proxyless: None,  # first, since it unsets what is set here
) -> Iterator[str]:
    """A proxy of each kind, which the environment names."""
    handler: Handler = tunnels.socks if request.param == "socks5" else tunnels.connect
    if request.param == "https":
        handler = over_tls(authority, "127.0.0.1", handler)
    with listening(handler) as port:
        monkeypatch.setenv("HTTPS_PROXY", f"{request.param}://127.0.0.1:{port}")
        yield request.param


def with_password(monkeypatch: pytest.MonkeyPatch, pair: str) -> None:
    scheme, _, rest = os.environ["HTTPS_PROXY"].partition("://")
    monkeypatch.setenv("HTTPS_PROXY", f"{scheme}://{pair}@{rest}")


@pytest.mark.parametrize("way", ["sync", "async"])
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
@pytest.mark.usefixtures("scheme")
def test_a_call_goes_through_the_proxy(way: Way, tunnels: Tunnels, *, streamed: bool) -> None:
    assert call(way, account(), "hi", streamed=streamed, deadline=LONG) == "ok"
    assert tunnels.targets == [f"{HOST}:443"]
    assert tunnels.credentials == []


@pytest.mark.parametrize("way", ["sync", "async"])
@pytest.mark.usefixtures("scheme")
def test_the_proxy_is_sent_the_password_of_its_url(way: Way, tunnels: Tunnels, monkeypatch: pytest.MonkeyPatch) -> None:
    with_password(monkeypatch, "us%40er:p%3Aass%20w%C3%B6rd")
    assert call(way, account(8443), "hi", deadline=LONG) == "ok"
    assert tunnels.targets == [f"{HOST}:8443"]
    assert tunnels.credentials == ["us@er:p:ass wörd"]


@pytest.mark.usefixtures("scheme")
def test_a_tunnel_is_used_again(tunnels: Tunnels) -> None:
    with Client(**account()) as client:
        for _ in range(3):
            assert client.run("hi", deadline=LONG).text == "ok"
            assert "".join(delta.text for delta in client.stream("hi", deadline=LONG)) == "ok"
            gc.collect(0)
    assert len(tunnels.targets) == 1


@pytest.mark.usefixtures("scheme")
async def test_a_tunnel_of_a_loop_is_used_again(tunnels: Tunnels) -> None:
    async with AsyncClient(**account()) as client:
        for _ in range(3):
            assert (await client.run("hi", deadline=LONG)).text == "ok"
            assert "".join([delta.text async for delta in client.stream("hi", deadline=LONG)]) == "ok"
            gc.collect(0)
            await asyncio.sleep(0)
    assert len(tunnels.targets) == 1


@pytest.mark.parametrize("way", ["sync", "async"])
@pytest.mark.usefixtures("scheme")
def test_the_certificate_of_the_service_is_checked_behind_the_proxy(way: Way, tunnels: Tunnels) -> None:
    settings = account() | {"base_url": "https://another.test/v4"}
    with pytest.raises(APIConnectionError, match="CERTIFICATE_VERIFY_FAILED"):
        call(way, settings, "hi", deadline=LONG)
    assert tunnels.targets == ["another.test:443"]


@pytest.mark.parametrize("way", ["sync", "async"])
def test_the_certificate_of_the_proxy_is_checked(
    way: Way, authority: trustme.CA, tunnels: Tunnels, monkeypatch: pytest.MonkeyPatch
) -> None:
    with listening(over_tls(authority, "other.test", tunnels.connect)) as port:
        monkeypatch.setenv("HTTPS_PROXY", f"https://user:passw0rd@127.0.0.1:{port}")
        with pytest.raises(APIConnectionError, match="CERTIFICATE_VERIFY_FAILED"):
            call(way, account(), "hi", deadline=LONG)
    assert tunnels.targets == []


def test_httpx_s_own_connections_go_through_the_proxy_too(tunnels: Tunnels, monkeypatch: pytest.MonkeyPatch) -> None:
    with listening(tunnels.connect) as port:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
        assert call("httpx", account(), "hi", deadline=LONG) == "ok"
    assert tunnels.targets == [f"{HOST}:443"]
