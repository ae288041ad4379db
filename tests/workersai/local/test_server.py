"""The local server as a thing to start and close, and what it remembers of its requests."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import httpx
import pytest
from typing_extensions import override

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
)
from workersai import Client
from workersai.local import Answer, Gate, LocalServer, ScriptedEngine
from workersai.local.engine import EngineError


class Counting(ScriptedEngine):
    """Counts how often it was started and closed, and fails to start if it is to."""

    def __init__(self, failure: BaseException | None = None) -> None:
        super().__init__("ok")
        self.calls: list[str] = []
        self._failure = failure

    @override
    async def start(self) -> None:
        self.calls.append("start")
        if self._failure:
            raise self._failure

    @override
    async def close(self) -> None:
        self.calls.append("close")


@pytest.fixture(autouse=True)
def no_thread_stays() -> Iterator[None]:
    """After each test there are no more threads of local servers than there were before."""
    before = set(threading.enumerate())
    yield
    assert {thread.name for thread in set(threading.enumerate()) - before if thread.name == "workersai-local"} == set()


def refuses(address: tuple[str, int]) -> bool:
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address)
    return True


def port_in_use() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


def test_the_system_chooses_a_port_for_each_server(serve: Serve) -> None:
    first, second = serve("first"), serve("second")
    assert first.base_url != second.base_url
    assert result_of(run(first, PROMPT))["response"] == "first"
    assert result_of(run(second, PROMPT))["response"] == "second"
    assert (len(first.requests), len(second.requests)) == (1, 1)


def test_the_base_url_is_known_once_the_server_is_started() -> None:
    server = LocalServer("ok")
    with pytest.raises(RuntimeError, match="no address until it is started"):
        _ = server.base_url
    with pytest.raises(RuntimeError, match="no address until it is started"):
        _ = server.environment
    with server:
        assert server.base_url.startswith("http://127.0.0.1:")
        assert server.base_url.endswith("/client/v4")


def test_the_environment_is_what_a_client_needs() -> None:
    with LocalServer("ok", api_token="mine", account_id="me") as server:
        assert server.environment == {
            "CLOUDFLARE_BASE_URL": server.base_url,
            "CLOUDFLARE_ACCOUNT_ID": "me",
            "CLOUDFLARE_API_TOKEN": "mine",
        }
        url = f"{server.base_url}/accounts/me/ai/run/{MODEL}"
        response = httpx.post(
            url, json=PROMPT, headers={"authorization": "Bearer mine"}, verify=VERIFY, timeout=PATIENCE
        )
        assert response.status_code == 200


def test_starting_and_closing_twice_is_starting_and_closing_once() -> None:
    engine = Counting()
    server = LocalServer(engine)
    with server:
        server.start()
        address = address_of(server)
        assert result_of(run(server, PROMPT))["response"] == "ok"
        server.close()
    server.close()
    assert refuses(address)
    assert engine.calls == ["start", "close"]


def test_a_server_that_was_never_started_can_be_closed() -> None:
    server = LocalServer("ok")
    server.close()
    with pytest.raises(RuntimeError, match="was closed; make a new one"):
        server.start()


def test_a_closed_server_is_not_started_again() -> None:
    with LocalServer("ok") as server:
        pass
    with pytest.raises(RuntimeError, match="was closed; make a new one"):
        server.start()


def test_a_server_can_be_closed_from_many_threads_at_once() -> None:
    with LocalServer("ok") as server:
        address = address_of(server)
        threads = [threading.Thread(target=server.close) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert refuses(address)


def test_its_port_can_be_taken_again_at_once() -> None:
    with LocalServer("first") as server:
        _, port = address_of(server)
        run(server, PROMPT)
    with LocalServer("second", port=port) as server:
        assert address_of(server)[1] == port
        assert result_of(run(server, PROMPT))["response"] == "second"


def test_a_port_in_use_is_an_os_error_and_leaves_nothing_behind() -> None:
    engine = Counting()
    with port_in_use() as taken:
        server = LocalServer(engine, port=taken.getsockname()[1])
        with pytest.raises(OSError, match="in use"):
            server.start()
    assert engine.calls == []
    with server:  # now that the port is free
        assert result_of(run(server, PROMPT))["response"] == "ok"


@pytest.mark.parametrize("failure", [EngineError("no weights"), ImportError("no library"), ValueError("a bug")])
def test_an_engine_that_fails_to_start_is_raised_where_the_server_was_started(failure: Exception) -> None:
    engine = Counting(failure)
    server = LocalServer(engine)
    with pytest.raises(type(failure), match=str(failure)) as caught:
        server.start()
    assert caught.value is failure
    assert engine.calls == ["start", "close"]
    assert refuses(address_of(server))
    with pytest.raises(RuntimeError, match="was closed"):
        server.start()


def test_a_server_with_two_engines_is_refused() -> None:
    with pytest.raises(ValueError, match="either engine or model_path"):
        LocalServer("ok", model_path="some.gguf")


@pytest.mark.parametrize(("host", "called"), [("localhost", "localhost"), ("0.0.0.0", "127.0.0.1")])  # noqa: S104
def test_a_host_by_another_name_is_reached_by_its_base_url(host: str, called: str) -> None:
    with LocalServer("ok", host=host) as server:
        assert httpx.URL(server.base_url).host == called
        assert result_of(run(server, PROMPT))["response"] == "ok"


@pytest.mark.parametrize("host", ["::1", "::"])
def test_ipv6_is_served_where_there_is_any(host: str) -> None:
    try:
        socket.create_server((host, 0), family=socket.AF_INET6).close()
    except OSError as error:
        pytest.skip(f"no IPv6 here: {error}")
    with LocalServer("ok", host=host) as server:
        assert server.base_url.startswith("http://[::1]:")
        assert result_of(run(server, PROMPT))["response"] == "ok"


def test_closing_cuts_off_what_is_under_way() -> None:
    gate = Gate()
    script = [Answer(pieces=["a", "b"], hold={1: gate}), Answer("late", hold={0: gate})]
    with ExitStack() as stack:
        server = stack.enter_context(LocalServer(script))
        client = stack.enter_context(httpx.Client(headers=bearer(server), verify=VERIFY, timeout=PATIENCE))
        streamed = stack.enter_context(client.stream("POST", run_url(server), json={**PROMPT, "stream": True}))
        lines = streamed.iter_lines()
        next(lines)
        address = address_of(server)
        server.close()
        with pytest.raises(httpx.RemoteProtocolError):
            list(lines)
        assert server.requests[0].wait() == "failed"
        assert refuses(address)


@pytest.mark.parametrize("sent", [b"", b"POST /", b"half a body"])
def test_closing_does_not_wait_for_a_client_that_says_nothing(sent: bytes) -> None:
    with LocalServer("ok") as server:
        content = request_bytes(server, b'{"pro', headers="Content-Length: 100\r\n") if b"body" in sent else sent
        with socket.create_connection(address_of(server), timeout=PATIENCE) as connection:
            connection.sendall(content)
            result_of(run(server, PROMPT))  # by now the server has seen the other connection
            server.close()
            assert ended(connection)


def ended(connection: socket.socket) -> bool:
    try:
        while connection.recv(65_536):
            pass
    except ConnectionResetError:
        pass
    return True


def test_a_request_is_recorded_as_it_was_sent(serve: Serve) -> None:
    server = serve("ok")
    url = run_url(server) + "?a=1&a=2&b=%C3%A9"
    httpx.post(url, json=PROMPT, headers={**bearer(server), "X-Mine": "1"}, verify=VERIFY, timeout=PATIENCE)
    (record,) = server.requests
    assert (record.method, record.path) == ("POST", httpx.URL(url).path)
    assert (record.query, record.body) == ({"a": "2", "b": "é"}, PROMPT)
    assert (record.headers["x-mine"], record.headers["authorization"]) == ("1", "***")
    assert record.wait() == "complete"
    assert repr(record).endswith(f"{MODEL}: complete>")
    assert server.api_token not in f"{record.headers}{record!r}"


def test_a_percent_encoded_path_is_recorded_decoded(serve: Serve) -> None:
    server = serve("ok")
    httpx.post(f"{server.base_url}/a%2Fb%3Fc%23d", verify=VERIFY, timeout=PATIENCE)
    assert server.requests[0].path == "/client/v4/a/b?c#d"


def test_refused_requests_are_recorded_too(serve: Serve) -> None:
    server = serve("ok")
    asks: list[Callable[[], httpx.Response]] = [
        lambda: httpx.get(server.base_url, verify=VERIFY, timeout=PATIENCE),
        lambda: httpx.post(run_url(server), json=PROMPT, verify=VERIFY, timeout=PATIENCE),
        lambda: run(server, b"broken"),
    ]
    assert [ask().status_code for ask in asks] == [404, 401, 400]
    assert [record.body for record in server.requests] == [None, None, None]
    assert [record.wait() for record in server.requests] == ["complete"] * 3


def test_a_request_that_has_not_ended_is_a_timeout_to_wait_for() -> None:
    gate = Gate()
    with LocalServer([Answer("late", hold={0: gate})]) as server:
        asking = threading.Thread(target=run, args=(server, PROMPT))
        asking.start()
        gate.wait_until_reached()
        (record,) = server.requests
        assert record.outcome == "open"
        with pytest.raises(TimeoutError, match="did not end within 0 seconds"):
            record.wait(timeout=0)
        gate.open()
        assert record.wait() == "complete"
        asking.join()


def test_the_last_thousand_requests_are_kept(serve: Serve) -> None:
    server = serve("ok")
    with httpx.Client(headers=bearer(server), verify=VERIFY, timeout=PATIENCE) as client:
        for number in range(1_003):
            client.post(run_url(server), json={"prompt": f"{number}"})
    assert [record.body["prompt"] for record in server.requests] == [f"{number}" for number in range(3, 1_003)]


def test_its_connection_points_a_client_at_it() -> None:
    with LocalServer("yes", account_id="mine", api_token="own-token") as server, Client(**server.connection) as client:
        assert client.run("hi").text == "yes"
