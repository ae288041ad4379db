"""Connecting: the first address that accepts is used, and nothing is waited for longer than it may take."""

import asyncio
import contextlib
import errno
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.raw_server import LONG, RawServer, Way, call, completion, raw_server, reply
from workersai import AsyncClient
from workersai.errors import APIConnectionError, APITimeoutError

pytestmark = pytest.mark.usefixtures("proxyless", "nothing_leaks")

NAME = "localhost"  # the one name that may be called without TLS; these tests say what it resolves to
Resolve = Callable[..., list[Any]]


@pytest.fixture(params=["sync", "async"])
def way(request: pytest.FixtureRequest) -> Way:
    chosen: Way = request.param
    return chosen


@pytest.fixture
def server() -> Iterator[RawServer]:
    with raw_server(lambda connected, _: connected.sendall(reply(completion("ok")))) as running:
        yield running


@pytest.fixture
def refusing() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port: int = closed.getsockname()[1]
    return port


@pytest.fixture
def silent() -> Iterator[int]:
    """A port whose connections are never established, since its queue is full."""
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(socket.socket())
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        for _ in range(16):
            waiting = stack.enter_context(socket.socket())
            waiting.settimeout(0.2)
            try:
                waiting.connect(listening.getsockname())
            except TimeoutError:
                yield listening.getsockname()[1]
                return
        pytest.skip("this system's queues don't fill up")


def address(port: int, host: str = "127.0.0.1", family: int = socket.AF_INET) -> tuple[Any, ...]:
    where = (host, port) if family == socket.AF_INET else (host, port, 0, 0)
    return family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", where


def resolve_to(monkeypatch: pytest.MonkeyPatch, *addresses: tuple[Any, ...]) -> None:
    """Has the name resolve to these addresses."""
    patch(monkeypatch, lambda: list(addresses))


def patch(monkeypatch: pytest.MonkeyPatch, resolve: Callable[[], list[Any]]) -> None:
    original = socket.getaddrinfo

    def getaddrinfo(host: str, *arguments: Any, **options: Any) -> list[Any]:
        return resolve() if host == NAME else original(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


def named(server: RawServer) -> dict[str, Any]:
    """The arguments that point a client at the server by its name."""
    return server.account | {"base_url": f"http://{NAME}:{server.port}"}


def test_the_next_address_is_tried_when_one_refuses(
    way: Way, server: RawServer, refusing: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve_to(monkeypatch, address(refusing), address(refusing), address(server.port), address(refusing))
    assert call(way, named(server), "hi", deadline=LONG) == "ok"
    assert len(server.connections) == 1


def test_the_next_address_is_tried_when_one_doesn_t_answer(
    way: Way, server: RawServer, silent: int, refusing: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve_to(monkeypatch, address(silent), address(refusing), address(silent), address(server.port))
    assert call(way, named(server), "hi", deadline=LONG) == "ok"
    assert call(way, named(server), "hi", streamed=False, deadline=LONG) == "ok"


def test_an_address_of_a_family_that_this_machine_lacks_is_passed_over(
    way: Way, server: RawServer, refusing: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    unknown = (-1, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("127.0.0.1", 1))
    for first in (unknown, address(refusing, "::1", socket.AF_INET6)):  # which is refused, or not known either
        resolve_to(monkeypatch, first, address(server.port))
        assert call(way, named(server), "hi", deadline=LONG) == "ok"


def test_it_is_an_error_when_all_refuse(
    way: Way, server: RawServer, refusing: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve_to(monkeypatch, address(refusing), address(refusing))
    with pytest.raises(
        APIConnectionError, match=rf"Could not connect to {NAME}.*\[Errno {errno.ECONNREFUSED}\]"
    ) as caught:
        call(way, named(server), "hi", deadline=LONG)
    assert caught.value.never_sent
    assert caught.value.retryable


def test_it_is_an_error_when_there_is_no_address(way: Way, server: RawServer, monkeypatch: pytest.MonkeyPatch) -> None:
    resolve_to(monkeypatch)
    with pytest.raises(APIConnectionError, match="the host has no address"):
        call(way, named(server), "hi", deadline=LONG)


def test_addresses_that_never_answer_end_with_the_deadline(
    way: Way, server: RawServer, silent: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve_to(monkeypatch, *[address(silent)] * 50)
    with pytest.raises(APITimeoutError, match=r"deadline of 0\.5 s") as caught:
        call(way, named(server), "hi", deadline=0.5)
    assert caught.value.never_sent


def test_addresses_that_never_answer_end_with_the_timeout(
    way: Way, server: RawServer, silent: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve_to(monkeypatch, address(silent), address(silent))
    with pytest.raises(APIConnectionError, match=f"Could not connect to {NAME}.*ConnectTimeout") as caught:
        call(way, named(server), "hi", timeout=0.5)
    assert caught.value.never_sent


def test_a_host_that_can_t_be_found_is_an_error(way: Way, server: RawServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> list[Any]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    patch(monkeypatch, fail)
    with pytest.raises(
        APIConnectionError, match=r"Could not connect to localhost.*Name or service not known"
    ) as caught:
        call(way, named(server), "hi", deadline=LONG)
    assert caught.value.never_sent


def test_a_host_that_can_t_be_encoded_is_an_error(way: Way, server: RawServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> list[Any]:
        return "a..b".encode("idna")  # type: ignore[return-value]  # it raises UnicodeError, as getaddrinfo does

    patch(monkeypatch, fail)
    with pytest.raises(APIConnectionError, match="Could not connect to localhost"):
        call(way, named(server), "hi", deadline=LONG)


def test_a_resolver_that_takes_its_time_is_ended_by_the_deadline(
    way: Way, server: RawServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    over, done = threading.Event(), threading.Event()

    def wait() -> list[Any]:
        over.wait(LONG)
        done.set()
        return [address(server.port)]

    patch(monkeypatch, wait)
    try:
        with pytest.raises(APITimeoutError, match=r"deadline of 0\.3 s") as caught:
            call(way, named(server), "hi", deadline=0.3)  # its loop is closed when the resolver answers
    finally:
        over.set()
    assert caught.value.never_sent
    assert done.wait(LONG), "the look-up ends in its own time"
    assert server.connections == []


async def test_a_resolver_that_takes_its_time_holds_up_no_other_call(
    server: RawServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    over = threading.Event()

    def wait() -> list[Any]:
        over.wait(LONG)
        return [address(server.port)]

    patch(monkeypatch, wait)
    async with AsyncClient(**named(server)) as slow, AsyncClient(**server.account) as direct:
        calls = [asyncio.ensure_future(slow.run("hi", deadline=LONG)) for _ in range(40)]  # more than a thread pool has
        await asyncio.sleep(0)
        assert (await direct.run("hi", deadline=LONG)).text == "ok"
        assert not any(task.done() for task in calls)
        over.set()
        assert {completed.text for completed in await asyncio.gather(*calls)} == {"ok"}


async def test_a_call_that_is_cancelled_while_it_connects_leaves_nothing(
    server: RawServer, silent: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve_to(monkeypatch, address(silent), address(silent))
    async with AsyncClient(**named(server)) as client:
        for wait in (0.0, 0.05, 0.4):
            task = asyncio.ensure_future(client.run("hi", deadline=LONG))
            await asyncio.sleep(wait)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        resolve_to(monkeypatch, address(server.port))
        assert (await client.run("hi", deadline=LONG)).text == "ok"


def test_an_ipv6_literal_is_reached_without_a_look_up(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    heads: list[bytes] = []

    def serve() -> None:
        with contextlib.suppress(OSError), listening.accept()[0] as connected:
            heads.append(connected.recv(65_536))
            connected.sendall(reply(completion("ok")))
            connected.recv(1)

    try:
        listening = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("this machine has no IPv6")
    with listening:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        port = listening.getsockname()[1]
        looked_up: list[object] = []
        monkeypatch.setattr(socket, "getaddrinfo", lambda *names: looked_up.append(names))
        account = {"base_url": f"http://[::1]:{port}", "account_id": "a", "api_token": "t", "max_retries": 0}
        assert call(way, account, "hi", deadline=LONG) == "ok"
        thread.join(LONG)
    assert looked_up == []
    assert b"\r\nhost: [::1]:%d\r\n" % port in heads[0]
