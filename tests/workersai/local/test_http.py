"""HTTP as it is seldom written: exact bytes over a socket, whole answers back."""

import socket

import httpx
import pytest

from tests.support import Serve
from tests.workersai.local.asking import (
    MODEL,
    PATIENCE,
    PROMPT,
    VERIFY,
    address_of,
    bearer,
    request_bytes,
    result_of,
    run,
    run_url,
    spoken,
)
from workersai.local import LocalServer

BODY = b'{"prompt":"hi"}'


def status_of(answer: bytes) -> int:
    version, status, *_ = answer.split(b" ")
    assert version == b"HTTP/1.1"
    return int(status)


def test_a_chunked_body_is_put_together(echo: LocalServer) -> None:
    chunked = b'5\r\n{"pro\r\na\r\nmpt":"hi"}\r\n0\r\n\r\n'
    answer = spoken(echo, request_bytes(echo, chunked, headers="Transfer-Encoding: chunked\r\n"))
    assert status_of(answer) == 200
    assert b'"response":"hi"' in answer


def test_a_body_of_broken_chunks_is_400(echo: LocalServer) -> None:
    assert status_of(spoken(echo, request_bytes(echo, b"zz\r\n{", headers="Transfer-Encoding: chunked\r\n"))) == 400


def test_a_request_without_a_length_has_no_body(echo: LocalServer) -> None:
    answer = spoken(echo, request_bytes(echo, b"", headers="X-Nothing: 1\r\n"))
    assert status_of(answer) == 400
    assert b"the body is not valid JSON" in answer


def test_a_request_in_single_bytes_is_read_to_its_end(echo: LocalServer) -> None:
    with socket.create_connection(address_of(echo), timeout=PATIENCE) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in request_bytes(echo, BODY):
            connection.sendall(bytes([byte]))
        assert status_of(connection.recv(65_536)) == 200


def test_a_client_that_leaves_in_the_middle_of_its_request_leaves_nothing_behind(serve: Serve) -> None:
    server = serve("ok")
    assert spoken(server, request_bytes(server, b'{"pr', headers="Content-Length: 100\r\n"), half_close=True) == b""
    assert result_of(run(server, PROMPT))
    assert [record.body for record in server.requests] == [PROMPT]


def test_two_requests_in_one_go_get_two_answers(echo: LocalServer) -> None:
    last = request_bytes(echo, b'{"prompt":"two"}')
    first = request_bytes(echo, b'{"prompt":"one"}').replace(b"Connection: close\r\n", b"")
    answer = spoken(echo, first + last)
    assert answer.count(b"HTTP/1.1 200") == 2
    assert answer.index(b'"one"') < answer.index(b'"two"')


def test_one_connection_serves_many_requests(echo: LocalServer) -> None:
    with httpx.Client(headers=bearer(echo), verify=VERIFY, timeout=PATIENCE) as client:
        answers = [client.post(run_url(echo), json={"prompt": f"{number}"}) for number in range(20)]
    assert [result_of(answer)["response"] for answer in answers] == [f"{number}" for number in range(20)]


def test_http_1_0_is_served(echo: LocalServer) -> None:
    assert status_of(spoken(echo, request_bytes(echo, BODY).replace(b"HTTP/1.1", b"HTTP/1.0"))) == 200


def test_a_client_that_waits_for_leave_to_send_its_body_gets_it(echo: LocalServer) -> None:
    headers = f"Expect: 100-continue\r\nContent-Length: {len(BODY)}\r\n"
    answer = spoken(echo, request_bytes(echo, BODY, headers=headers))
    assert answer.startswith(b"HTTP/1.1 100 ")
    assert b"HTTP/1.1 200 OK" in answer


@pytest.mark.parametrize(
    "content", [b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", b"hello\r\n\r\n", b"GET /\xff HTTP/1.1\r\n\r\n"]
)
def test_what_is_no_http_is_400(echo: LocalServer, content: bytes) -> None:
    assert status_of(spoken(echo, content)) == 400


@pytest.mark.parametrize("host", ["[", "a b:c/d", "evil.example:99999", "\xe9", ""])
def test_a_host_that_is_no_name_of_the_server_is_refused(echo: LocalServer, host: str) -> None:
    content = request_bytes(echo, BODY).replace(b"Host: localhost", b"Host: " + host.encode("latin-1"))
    answer = spoken(echo, content)
    assert status_of(answer) == 403
    assert b"is not a name of this server" in answer


@pytest.mark.parametrize(
    "headers", ["X-Odd: \xe9\xff\r\n", f"X-Long: {'a' * 50_000}\r\n", "Upgrade: h2c\r\n", "Content-Encoding: gzip\r\n"]
)
def test_odd_headers_do_no_harm(echo: LocalServer, headers: str) -> None:
    assert (
        status_of(spoken(echo, request_bytes(echo, BODY, headers=f"Content-Length: {len(BODY)}\r\n{headers}"))) == 200
    )


@pytest.mark.parametrize(
    "path", ["//[evil/x", "/%5B%FF%00%3Fa%23", "*", "/client/v4", "/" + "x" * 50_000, "http://x/y"]
)
def test_an_odd_path_is_no_route(echo: LocalServer, path: str) -> None:
    answer = spoken(echo, request_bytes(echo, BODY, path=path))
    assert status_of(answer) == 404
    assert b'"code":7003' in answer


@pytest.mark.parametrize("query", ["?a=%FF&%ED%A0%80=1", "?a=1&a=2&&=", "?queueRequest=false", "?" + "x" * 10_000])
def test_an_odd_query_does_no_harm(echo: LocalServer, query: str) -> None:
    assert status_of(spoken(echo, request_bytes(echo, BODY, path=httpx.URL(run_url(echo)).path + query))) == 200


def test_an_odd_model_name_is_5007(echo: LocalServer) -> None:
    path = httpx.URL(run_url(echo)).path
    for odd in ("%FF%00%3F", "/../../x", "%20"):
        answer = spoken(echo, request_bytes(echo, BODY, path=path + odd))
        assert status_of(answer) == 400
        assert b'"code":5007' in answer


def test_the_reply_to_head_has_no_body(echo: LocalServer) -> None:
    answer = spoken(echo, request_bytes(echo, b"", method="HEAD"))
    assert status_of(answer) == 404
    assert answer.endswith(b"\r\n\r\n")


def test_the_scheme_of_the_authorization_is_read_in_any_case(echo: LocalServer) -> None:
    content = request_bytes(echo, BODY).replace(b"Bearer local-token", b"bEaReR   local-token  ")
    assert status_of(spoken(echo, content)) == 200


def test_a_path_outside_the_api_never_reaches_a_model(echo: LocalServer) -> None:
    for prefix in ("", "/client/v4/x", "/client/v5"):
        path = f"{prefix}/accounts/{echo.account_id}/ai/run/{MODEL}"
        assert status_of(spoken(echo, request_bytes(echo, BODY, path=path))) == 404
