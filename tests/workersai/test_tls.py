"""TLS: certificates are checked, and a deadline holds there too."""

import contextlib
import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme

from tests.support import PATIENCE, Driver
from workersai import Client, pools
from workersai.errors import APIConnectionError, APITimeoutError, StreamInterruptedError

BODY = b'{"result":{"response":"hello"},"success":true}'
REPLY = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(BODY) + BODY


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """Signs the server's certificate; nobody trusts it by itself."""
    return trustme.CA()


@pytest.fixture
def trusted(authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The environment names the authority, as it would a company's own."""
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    pools._tls.cache_clear()
    yield
    pools._tls.cache_clear()


@contextlib.contextmanager
def serving(authority: trustme.CA, reply: Callable[[ssl.SSLSocket], None]) -> Iterator[dict[str, Any]]:
    """A server over TLS; gives the arguments that point a client at it."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)

    def serve() -> None:
        while True:
            try:
                plain, _ = listening.accept()
            except OSError:
                return  # it is over
            with contextlib.suppress(OSError), context.wrap_socket(plain, server_side=True) as connected:
                request = b""
                while not request.endswith(b"}"):  # unread bytes would make the close a reset
                    request += connected.recv(65_536) or b"}"
                reply(connected)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve)
        thread.start()
        port = listening.getsockname()[1]
        yield {
            "base_url": f"https://127.0.0.1:{port}",
            "account_id": "a",
            "api_token": "t",
            "max_retries": 0,
        }
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()


def answer(connected: ssl.SSLSocket) -> None:
    connected.sendall(REPLY)


def test_a_certificate_that_nobody_vouches_for_is_refused(driver: Driver, authority: trustme.CA) -> None:
    with serving(authority, answer) as server:
        for call in (driver.run, driver.stream):
            with pytest.raises(APIConnectionError, match="CERTIFICATE_VERIFY_FAILED"):
                call(server, "hi")


@pytest.mark.usefixtures("trusted")
def test_the_environment_can_name_an_authority(driver: Driver, authority: trustme.CA) -> None:
    with serving(authority, answer) as server:
        assert driver.run(server, "hi", deadline=PATIENCE).text == "hello"


@pytest.mark.usefixtures("trusted")
def test_a_name_that_is_not_the_certificates_is_refused(driver: Driver, authority: trustme.CA) -> None:
    with serving(authority, answer) as server:
        server["base_url"] = server["base_url"].replace("127.0.0.1", "localhost")
        with pytest.raises(APIConnectionError, match="CERTIFICATE_VERIFY_FAILED"):
            driver.run(server, "hi")


def test_whoever_passes_a_client_of_their_own_may_check_nothing(authority: trustme.CA) -> None:
    with serving(authority, answer) as server, httpx.Client(verify=False) as http:  # noqa: S501 - that is the test
        assert Client(**server, http_client=http).run("hi").text == "hello"


@pytest.mark.usefixtures("trusted")
def test_a_broken_record_is_a_broken_connection(driver: Driver, authority: trustme.CA) -> None:
    def break_off(connected: ssl.SSLSocket) -> None:
        connected.sendall(REPLY[:-10])
        os.write(connected.fileno(), b"\x17\x03\x03\x00\x20" + b"x" * 32)

    with serving(authority, break_off) as server:
        with pytest.raises(APIConnectionError):
            driver.run(server, "hi")
        with pytest.raises((StreamInterruptedError, APIConnectionError)):  # as the head was read by then, or not
            driver.stream(server, "hi")


@pytest.mark.usefixtures("trusted")
def test_a_deadline_is_kept_over_tls(driver: Driver, authority: trustme.CA) -> None:
    over = threading.Event()

    def dribble(connected: ssl.SSLSocket) -> None:
        for place in range(len(REPLY)):
            if over.wait(0.05):
                return
            connected.sendall(REPLY[place : place + 1])

    with serving(authority, dribble) as server:
        with pytest.raises(APITimeoutError, match=r"longer than its deadline of 0\.3 s"):
            driver.run(server, "hi", deadline=0.3)
        over.set()
