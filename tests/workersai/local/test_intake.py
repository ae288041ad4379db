"""Requests that are large, slow, or never complete: what is kept of them, and when they are given up."""

from __future__ import annotations

import json
import socket
from contextlib import ExitStack

import httpx
import pytest

from tests.support import Serve
from tests.workersai.local.asking import (
    PROMPT,
    VERIFY,
    address_of,
    bearer,
    error_of,
    request_bytes,
    result_of,
    run,
    run_url,
)
from workersai.local import LocalServer
from workersai.local.intake import check_value_count
from workersai.local.protocol import most_connections
from workersai.local.wire import WireError

HEAD = b"POST /x HTTP/1.1\r\nHost: localhost\r\nX-Half: "


def connected(server: LocalServer) -> socket.socket:
    return socket.create_connection(address_of(server), timeout=60)


def rest_of(connection: socket.socket) -> bytes:
    """All that is still to come, until the server closes the connection."""
    answer = bytearray()
    try:
        while piece := connection.recv(65_536):
            answer += piece
    except ConnectionResetError:
        pass
    return bytes(answer)


def timeout_in(answer: bytes) -> str:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408 ")
    assert b"connection: close" in head.lower()
    (error,) = json.loads(body)["errors"]
    assert error["code"] == 3007
    return str(error["message"])


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workersai.local.protocol.HEAD_SECONDS", 1.0)
    monkeypatch.setattr("workersai.local.intake.READ_SECONDS", 1.0)


@pytest.mark.usefixtures("impatient")
def test_a_head_that_is_never_completed_has_a_time_limit(serve: Serve) -> None:
    server = serve("ok")
    with connected(server) as silent, connected(server) as half, connected(server) as second:
        half.sendall(HEAD)
        second.sendall(request_bytes(server, b'{"prompt":"hi"}').replace(b"Connection: close\r\n", b""))
        reply = b""
        while not reply.endswith(b'"messages":[]}'):
            reply += second.recv(65_536)
        assert reply.startswith(b"HTTP/1.1 200 ")
        second.sendall(HEAD)
        words = "AiError: Timeout: the head of the request was not complete after 1 seconds"
        assert timeout_in(rest_of(half)) == words
        assert timeout_in(rest_of(second)) == words
        assert rest_of(silent) == b""


@pytest.mark.usefixtures("impatient")
def test_a_head_that_comes_byte_by_byte_has_the_same_limit(serve: Serve) -> None:
    with connected(serve("ok")) as connection:
        connection.settimeout(0.05)
        answer = b""
        while not answer:  # a server that waits on would keep this going for good
            connection.sendall(b"G")
            try:
                answer = connection.recv(65_536)
            except TimeoutError:
                continue
        assert answer.startswith(b"HTTP/1.1 408 ")


@pytest.mark.usefixtures("impatient")
def test_the_limit_is_for_heads_and_not_for_a_connection_between_two_requests(serve: Serve) -> None:
    server = serve("ok")
    with httpx.Client(headers=bearer(server), verify=VERIFY) as client, connected(server) as half:
        ports = []
        client.post(run_url(server), json=PROMPT)
        half.sendall(HEAD)
        timeout_in(rest_of(half))  # by now, the limit has passed for the other, too
        client.post(run_url(server), json=PROMPT)
        ports = [record.connection for record in server.requests]
    assert ports[0] == ports[1]


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("token", ["local-token", "wrong"])
def test_a_body_that_never_comes_is_given_up(serve: Serve, token: str) -> None:
    server = serve("ok")
    content = request_bytes(server, b'{"pro', headers="Content-Length: 100\r\n").replace(b"local-token", token.encode())
    with connected(server) as connection:
        connection.sendall(content)
        assert "the body stopped at byte 5" in timeout_in(rest_of(connection))
    (record,) = server.requests
    assert (record.body, record.size, record.wait()) == (None, 5, "complete")


def test_a_body_that_comes_too_slowly_is_given_up(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workersai.local.intake.BODY_SECONDS", 1.0)
    server = serve("ok")
    with connected(server) as connection:
        connection.settimeout(0.05)
        connection.sendall(request_bytes(server, b"", headers="Content-Length: 10000000\r\n"))
        answer = b""
        while not answer:
            connection.sendall(b" ")
            try:
                answer = connection.recv(65_536)
            except TimeoutError:
                continue
        assert answer.startswith(b"HTTP/1.1 408 ")


def test_a_refused_body_is_read_only_so_far(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workersai.local.intake._MOST_DROPPED", 100_000)
    server = serve("ok")
    with connected(server) as connection:
        connection.sendall(request_bytes(server, b" " * 200_000, headers="Content-Length: 1000000000\r\n"))
        answer = rest_of(connection)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 413 ")  # the reset of the connection may come first
    assert server.requests[0].size < 1_000_000


def test_connections_that_wait_make_room_for_others(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workersai.local.protocol.most_connections", lambda: 16)
    server = serve("ok")
    with ExitStack() as stack:
        waiting = [stack.enter_context(connected(server)) for _ in range(60)]
        for connection in waiting:
            connection.sendall(HEAD)
        assert result_of(run(server, PROMPT))["response"] == "ok"
        assert [rest_of(connection) for connection in waiting[:40]] == [b""] * 40  # the oldest


def test_the_files_of_the_process_bound_the_connections() -> None:
    resource = pytest.importorskip("resource")
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert soft < 0 or 16 <= most_connections() <= max(16, soft // 2)


def test_a_body_that_is_refused_for_what_it_says_is_kept_up_to_a_mebibyte(serve: Serve) -> None:
    server = serve("ok")
    for size in (10, 2**20):
        body = {"prompt": "a" * size, "temperature": 9}
        assert error_of(run(server, body))[1] == 5006
        record = server.requests[-1]
        assert record.size == len(json.dumps(body))
        assert record.body == (body if size == 10 else None)
    assert server.requests[-1].kept_bytes < 2_000


@pytest.mark.parametrize("count", [10, 1_000])
def test_the_log_keeps_so_many_bytes_and_always_the_newest(count: int) -> None:
    text = "a" * 1_000
    with LocalServer(lambda _: "ok", log_bytes=50_000) as server:
        with httpx.Client(headers=bearer(server), verify=VERIFY) as client:
            for number in range(count):
                client.post(run_url(server), json={"prompt": f"{number} {text}"})
        kept = [record.body["prompt"].split()[0] for record in server.requests]
        assert kept == [str(number) for number in range(count - len(kept), count)]
        assert sum(record.kept_bytes for record in server.requests) <= 50_000
        assert len(kept) == min(count, 50_000 // server.requests[-1].kept_bytes)
        run(server, {"prompt": "b" * 60_000})
        assert [record.body["prompt"][0] for record in server.requests] == ["b"]


@pytest.mark.parametrize(
    ("content", "fits"),
    [
        (b'{"a":[' + b"[]," * 900_000 + b"[]]}", True),
        (b'{"a":[' + b"[]," * 1_100_000 + b"[]]}", False),
        (b'{"a":"' + b"[]," * 3_000_000 + b'"}', True),
        (b'{"a":"' + b'\\",' * 3_000_000 + b'"}', True),
        (b"{" + b'"a":1,' * 1_100_000 + b'"a":1}', False),
    ],
)
def test_a_body_has_so_many_values_and_texts_count_as_one(content: bytes, fits: bool) -> None:
    if fits:
        check_value_count(content)
    else:
        with pytest.raises(WireError) as caught:
            check_value_count(content)
        assert (caught.value.status, caught.value.code) == (413, 3006)


def test_too_many_values_are_refused_before_they_are_parsed(serve: Serve) -> None:
    server = serve("ok")
    status, code, message = error_of(run(server, b'{"prompt":"hi","a":[' + b"[]," * 1_100_000 + b"[]]}"))
    assert (status, code) == (413, 3006)
    assert "2000000 values at most" in message
    assert server.requests[0].body is None
