"""Proxies that refuse, talk rubbish, close early or stall: each call ends, and says why."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import trustme

from tests.raw_server import LONG, Way, call
from tests.workersai.transport.proxy_servers import (
    ESTABLISHED,
    HOST,
    SOCKS_DONE,
    Handler,
    account,
    listening,
    over_tls,
    read_until,
    take,
)
from workersai.errors import APIConnectionError, APITimeoutError

pytestmark = pytest.mark.usefixtures("trusted", "proxyless", "nothing_leaks")

PASSWORD = "passw0rd"
PAIR = f"user:{PASSWORD}@"


@pytest.fixture(params=["sync", "async"])
def way(request: pytest.FixtureRequest) -> Way:
    chosen: Way = request.param
    return chosen


def http_proxy(reply: bytes) -> Handler:
    """Reads a request to CONNECT, replies, and closes."""

    def serve(client: socket.socket) -> None:
        read_until(client, b"\r\n\r\n")
        client.sendall(reply)

    return serve


def scripted(*replies: bytes) -> Handler:
    """Sends each reply to one message of the client's, and closes."""

    def serve(client: socket.socket) -> None:
        for reply in replies:
            client.recv(65_536)
            client.sendall(reply)

    return serve


def close_at_once(client: socket.socket) -> None:
    """Reads nothing, so that the client's bytes are answered with a reset."""


HTTP_FAILURES: dict[str, tuple[Handler, str]] = {
    "407": (http_proxy(b"HTTP/1.1 407 Who?\r\ncontent-length: 0\r\n\r\n"), "refused the connection: 407 Who?"),
    "407 with a page": (http_proxy(b"HTTP/1.1 407 Who?\r\ncontent-length: 6\r\n\r\n<html>"), "connection: 407 Who?"),
    "502": (http_proxy(b"HTTP/1.0 502 Bad\r\n\r\n" + b"x" * 3_000), "refused the connection: 502 Bad"),
    "a redirect": (http_proxy(b"HTTP/1.1 302 Found\r\nlocation: /login\r\n\r\n"), "connection: 302 Found"),
    "rubbish": (http_proxy(b"SSH-2.0-OpenSSH\r\n\r\n"), "isn't HTTP"),
    "bytes": (http_proxy(bytes(range(256))), "isn't HTTP"),
    "HTTP/2": (http_proxy(b"HTTP/2 200\r\n\r\n"), "isn't HTTP"),
    "more than its reply": (http_proxy(ESTABLISHED + b"HTTP/1.1 200 OK\r\n\r\n"), "more than its reply"),
    "half a reply": (http_proxy(ESTABLISHED[:-2]), "isn't HTTP"),
    "no reply": (http_proxy(b""), "isn't HTTP"),
    "an endless reply": (http_proxy(b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 50_000), ""),
    "closed at once": (close_at_once, ""),
    "closed after its reply": (http_proxy(ESTABLISHED), ""),
    "no TLS behind it": (scripted(ESTABLISHED, b"rubbish" * 10), ""),
}

SOCKS_FAILURES: dict[str, tuple[Handler, str]] = {
    "another version": (scripted(b"\x04\x00"), "isn't SOCKS 5"),
    "HTTP": (scripted(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "isn't SOCKS 5"),
    "no way to authenticate": (scripted(b"\x05\xff"), "accepts no authentication"),
    "refused by rules": (
        scripted(b"\x05\x00", b"\x05\x02\x00\x01" + bytes(6)),
        r"refused the connection \(code 2\)",
    ),
    "another version then": (scripted(b"\x05\x00", b"\x01\x00\x00\x01" + bytes(6)), "isn't SOCKS 5"),
    "more than its reply": (scripted(b"\x05\x00", SOCKS_DONE + b"x"), "more than its reply"),
    "half a greeting": (scripted(b"\x05"), "closed the connection"),
    "half a reply": (scripted(b"\x05\x00", SOCKS_DONE[:-1]), "closed the connection"),
    "no reply": (scripted(b"\x05\x00", b""), "closed the connection"),
    "closed at once": (close_at_once, ""),
    "closed after its reply": (scripted(b"\x05\x00", SOCKS_DONE), ""),
}


def check_failure(way: Way, words: str, *, streamed: bool = False) -> None:
    with pytest.raises(APIConnectionError, match=words or None) as caught:
        call(way, account(), "hi", streamed=streamed, deadline=LONG)
    assert f"Could not connect to {HOST}:443" in str(caught.value)
    assert PASSWORD not in str(caught.value)
    assert caught.value.never_sent, "nothing can be billed"


@pytest.mark.parametrize(("handler", "words"), HTTP_FAILURES.values(), ids=HTTP_FAILURES)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_fails_is_an_error_that_says_why(
    way: Way, scheme: str, handler: Handler, words: str, authority: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    with listening(over_tls(authority, "127.0.0.1", handler) if scheme == "https" else handler) as port:
        monkeypatch.setenv("HTTPS_PROXY", f"{scheme}://{PAIR}127.0.0.1:{port}")
        check_failure(way, words)


@pytest.mark.parametrize(("handler", "words"), SOCKS_FAILURES.values(), ids=SOCKS_FAILURES)
@pytest.mark.parametrize("pair", ["", PAIR], ids=["", "password"])
def test_a_socks_proxy_that_fails_is_an_error_that_says_why(
    way: Way, pair: str, handler: Handler, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with listening(handler) as port:
        monkeypatch.setenv("ALL_PROXY", f"socks5://{pair}127.0.0.1:{port}")
        check_failure(way, words, streamed=True)


def test_a_socks_proxy_that_refuses_the_password_is_an_error(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    with listening(scripted(b"\x05\x02", b"\x01\x01")) as port:
        monkeypatch.setenv("ALL_PROXY", f"socks5://{PAIR}127.0.0.1:{port}")
        check_failure(way, "refused the user name or the password")


def test_a_socks_proxy_that_wants_a_password_gets_none_if_there_is_none(
    way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    with listening(scripted(b"\x05\x02", b"\x01\x00", SOCKS_DONE)) as port:
        monkeypatch.setenv("ALL_PROXY", f"socks5://127.0.0.1:{port}")
        check_failure(way, "accepts no authentication that is configured")


def test_a_proxy_that_can_t_be_reached_is_an_error(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    for scheme in ("http", "https", "socks5"):
        monkeypatch.setenv("HTTPS_PROXY", f"{scheme}://127.0.0.1:{port}")
        check_failure(way, "")


def stall(*said: bytes, over: threading.Event) -> Handler:
    """Sends each to one message of the client's, and then nothing any more."""

    def serve(client: socket.socket) -> None:
        for data in said:
            client.recv(65_536)
            client.sendall(data)
        over.wait(LONG)

    return serve


def dribble(data: bytes, over: threading.Event) -> Handler:
    """Sends a byte every now and then, so that no single wait is long."""

    def serve(client: socket.socket) -> None:
        take(client, 1)
        for place in range(len(data)):
            if over.wait(0.05):
                return
            client.sendall(data[place : place + 1])

    return serve


STALLS: dict[str, tuple[str, tuple[bytes, ...]]] = {
    "no reply": ("http", ()),
    "half a reply": ("http", (ESTABLISHED[:-2],)),
    "no TLS behind the reply": ("http", (ESTABLISHED,)),
    "no TLS of its own": ("https", ()),
    "no greeting": ("socks5", ()),
    "half a greeting": ("socks5", (b"\x05",)),
    "no SOCKS reply": ("socks5", (b"\x05\x00",)),
    "no TLS behind SOCKS": ("socks5", (b"\x05\x00", SOCKS_DONE)),
}


@contextlib.contextmanager
def stalling(handler: Callable[[threading.Event], Handler]) -> Iterator[int]:
    over = threading.Event()
    with listening(handler(over)) as port:
        try:
            yield port
        finally:
            over.set()


def check_deadline(way: Way) -> None:
    begun = time.monotonic()
    with pytest.raises(APITimeoutError, match=r"longer than its deadline of 0\.3 s"):
        call(way, account(), "hi", deadline=0.3)
    assert time.monotonic() - begun < LONG / 2, "it is ended by its deadline"


@pytest.mark.parametrize(("scheme", "said"), STALLS.values(), ids=STALLS)
def test_a_proxy_that_stalls_is_ended_by_the_deadline(
    way: Way, scheme: str, said: tuple[bytes, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    with stalling(lambda over: stall(*said, over=over)) as port:
        monkeypatch.setenv("HTTPS_PROXY", f"{scheme}://127.0.0.1:{port}")
        check_deadline(way)


@pytest.mark.parametrize("said", [(), (ESTABLISHED[:-2],), (ESTABLISHED,)], ids=["no reply", "half a reply", "no TLS"])
def test_a_proxy_over_tls_that_stalls_is_ended_by_the_deadline(
    way: Way, said: tuple[bytes, ...], authority: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    with stalling(lambda over: over_tls(authority, "127.0.0.1", stall(*said, over=over))) as port:
        monkeypatch.setenv("HTTPS_PROXY", f"https://127.0.0.1:{port}")
        check_deadline(way)


@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
def test_a_proxy_that_dribbles_is_ended_by_the_deadline(
    way: Way, authority: trustme.CA, monkeypatch: pytest.MonkeyPatch, *, tls: bool
) -> None:
    def new_handler(over: threading.Event) -> Handler:
        handler = dribble(ESTABLISHED[:-2] + b"a: b\r\n" * 400, over)
        return over_tls(authority, "127.0.0.1", handler) if tls else handler

    with stalling(new_handler) as port:
        monkeypatch.setenv("HTTPS_PROXY", f"{'https' if tls else 'http'}://127.0.0.1:{port}")
        check_deadline(way)
