"""Who may ask the local server: programs that call it by its name, and no page of another origin."""

from __future__ import annotations

import socket
from typing import Any

import httpx
import pytest

from tests.support import Serve
from tests.workersai.local.asking import (
    MODEL,
    PROMPT,
    VERIFY,
    bearer,
    bound,
    error_of,
    origin_of,
    request_bytes,
    run,
)
from tests.workersai.local.asking import spoken as answer_to
from workersai.local import LocalServer
from workersai.local.door import HostNames

ROUTES = [
    ("POST", f"/client/v4/accounts/local-account/ai/run/{MODEL}"),
    ("POST", f"/client/v4/accounts/local-account/ai/run/{MODEL}?queueRequest=true"),
    ("POST", "/client/v4/accounts/local-account/ai/run/@cf/baai/bge-m3"),
    ("POST", "/client/v4/accounts/local-account/ai/v1/chat/completions"),
    ("POST", "/client/v4/accounts/local-account/ai/v1/embeddings"),
    ("GET", "/client/v4/accounts/local-account/ai/v1/models"),
    ("GET", "/client/v4/accounts/local-account/ai/models/search"),
    ("POST", "/run?version=3"),
    ("POST", "/ai-gateway/run?version=3"),
    ("GET", "/ai-api/models/search"),
    ("OPTIONS", f"/client/v4/accounts/local-account/ai/run/{MODEL}"),
    ("GET", "/"),
    ("POST", "/no/route"),
]


def ask(server: LocalServer, method: str, path: str, **headers: str) -> httpx.Response:
    url = origin_of(server) + path
    return httpx.request(method, url, headers={**bearer(server), **headers}, json=PROMPT, verify=VERIFY)


def code_of(response: httpx.Response) -> int:
    body: dict[str, Any] = response.json()
    errors = body.get("errors") or [body["error"]]
    return int(errors[0]["code"])


@pytest.mark.parametrize(("method", "path"), ROUTES)
@pytest.mark.parametrize("headers", [{"host": "evil.example:8787"}, {"origin": "http://evil.example"}])
def test_each_route_refuses_another_host_and_another_origin(
    echo: LocalServer, method: str, path: str, headers: dict[str, str]
) -> None:
    response = ask(echo, method, path, **headers)
    assert (response.status_code, code_of(response)) == (403, 10000)
    assert not [name for name in response.headers if name.startswith("access-control")]


@pytest.mark.parametrize("origin", ["null", "http://localhost:1", "https://evil.example", "file://", ""])
def test_a_page_of_another_origin_is_refused_with_the_right_token(echo: LocalServer, origin: str) -> None:
    status, code, message = error_of(run(echo, PROMPT, origin=origin))
    assert (status, code) == (403, 10000)
    assert message == (
        f"Authentication error: requests from web pages of another origin, {origin!r}, are refused. "
        "Call this server from a program, or through the page's own server."
    )


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "[::1]", "127.9.9.9", "LocalHost", "a.localhost"])
def test_a_page_of_its_own_may_ask_under_each_of_its_names(echo: LocalServer, name: str) -> None:
    host = f"{name}:{httpx.URL(echo.base_url).port}"
    assert run(echo, PROMPT, host=host, origin=f"http://{host}").status_code == 200
    assert run(echo, PROMPT, host=host).status_code == 200


def test_two_origins_are_not_one_of_its_own(echo: LocalServer) -> None:
    host = "localhost:1"
    headers = f"Content-Length: 15\r\nOrigin: http://{host}\r\nOrigin: http://evil.example\r\n"
    content = request_bytes(echo, b'{"prompt":"hi"}', headers=headers).replace(b"Host: localhost", b"Host: localhost:1")
    assert answer_to(echo, content).startswith(b"HTTP/1.1 403 ")


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "192.0.2.1",
        "[2001:db8::1]",
        "workers-binding.ai",
    ],
)
def test_a_server_on_loopback_has_no_name_of_another_machine(echo: LocalServer, host: str) -> None:
    status, code, message = error_of(run(echo, PROMPT, host=host))
    assert (status, code) == (403, 10000)
    assert f"the Host {host!r} is not a name of this server" in message
    assert "workersai serve --allowed-host NAME" in message


def test_a_server_for_other_machines_is_called_by_its_names_and_any_address() -> None:
    with LocalServer("ok", host="0.0.0.0", allowed_hosts=["models.internal"]) as server:  # noqa: S104
        own = [socket.gethostname(), "192.0.2.1", "[2001:db8::1]:8787", "models.internal:80", "localhost"]
        assert {run(server, PROMPT, host=host).status_code for host in own} == {200}
        assert error_of(run(server, PROMPT, host="evil.example"))[0] == 403
        assert run(server, PROMPT, host="192.0.2.1", authorization="Bearer no").status_code == 401


@pytest.mark.parametrize("name", ["http://a.example", "a.example:80", "", "a b", "*"])
def test_an_allowed_host_that_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="must be a host name, without a scheme and a port"):
        LocalServer("ok", allowed_hosts=[name])


@pytest.mark.parametrize("header", ["", "[", "[::1", "a b", "localhost:port", "localhost/x", "x@localhost"])
def test_what_is_no_host_is_no_name_of_a_server(header: str) -> None:
    assert not HostNames("127.0.0.1").include(header)


def test_the_clients_address_is_the_connections_whatever_a_header_says(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "*")
    server = serve("ok")
    for value in ("192.0.2.1", "127.0.0.1", "nonsense", "", "unix:"):
        assert bound(server, x_forwarded_for=value, x_forwarded_proto="https").status_code == 200, value
    assert len({record.connection for record in server.requests}) == len(server.requests)


@pytest.mark.parametrize(
    ("headers", "path", "status"),
    [
        ({"authorization": "Bearer no"}, None, 401),
        ({"origin": "http://evil.example"}, None, 403),
        ({"host": "evil.example"}, None, 403),
        ({}, "/client/v4/accounts/other/ai/v1/chat/completions", 403),
        ({}, "/no/route", 404),
    ],
)
def test_the_body_of_a_request_that_may_not_come_in_is_neither_parsed_nor_kept(
    serve: Serve, headers: dict[str, str], path: str | None, status: int
) -> None:
    server = serve("ok")
    nest = b"[" + b"[]," * 1_000_000 + b"[]]"  # which would take 60 MB once it is parsed
    url = origin_of(server) + (path or ROUTES[0][1])
    response = httpx.post(url, content=nest, headers={**bearer(server), **headers}, verify=VERIFY)
    assert response.status_code == status
    (record,) = server.requests
    assert (record.body, record.size) == (None, len(nest))
    assert record.kept_bytes < 2_000


def test_a_stranger_uses_up_no_fault() -> None:
    with LocalServer("ok", faults=["3040"]) as server:
        for headers in ({"authorization": "Bearer no"}, {"origin": "http://evil.example"}, {"host": "evil.example"}):
            assert error_of(run(server, PROMPT, **headers))[1] == 10000
        assert ask(server, "POST", "/no/route").status_code == 404
        assert error_of(run(server, PROMPT))[1] == 3040


def test_a_function_that_chooses_the_faults_always_finds_the_body() -> None:
    with LocalServer("ok", faults=lambda record: "3040" if "fail" in record.body["prompt"] else None) as server:
        assert run(server, PROMPT, authorization="Bearer no").status_code == 401
        assert run(server, PROMPT).status_code == 200
        assert error_of(run(server, {"prompt": "fail"}))[1] == 3040
