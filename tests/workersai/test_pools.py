"""Connections: shared, given back, and closed with whoever uses them last."""

import asyncio
import contextlib
import gzip
import os
import pickle
import socket
import ssl
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any, Literal

import httpx
import pytest

from langchain_workersai import ChatWorkersAI
from llamaindex_workersai import WorkersAI
from tests.support import PATIENCE, Driver, Serve, connection
from workersai import AsyncClient, Client, Delta, pools
from workersai.errors import ConfigurationError, ModelNotFoundError
from workersai.local import Answer

ONE = httpx.Limits(max_connections=1)


def test_clients_and_models_share_the_connections_of_a_process(serve: Serve) -> None:
    server = serve(lambda _: "ok")
    account = connection(server)
    with Client(**account) as first, Client(**account) as second:
        for call in (first.run, second.run, ChatWorkersAI(**account).invoke, WorkersAI(**account).complete):
            call("hi")
    assert len({record.connection for record in server.requests}) == 1


def test_clients_and_models_share_the_connections_of_an_event_loop(serve: Serve) -> None:
    server = serve(lambda _: "ok")
    account = connection(server)

    async def main() -> None:
        async with AsyncClient(**account) as first, AsyncClient(**account) as second:
            llm = WorkersAI(**account)
            for call in (first.run, second.run, ChatWorkersAI(**account).ainvoke, llm.acomplete):
                await call("hi")

    asyncio.run(main())
    assert len({record.connection for record in server.requests}) == 1


def test_they_are_closed_with_the_last_client_that_is_closed(serve: Serve) -> None:
    server = serve(lambda _: "ok")
    first, second = Client(**connection(server)), Client(**connection(server))
    for client in (first, second):
        client.run("hi")
    first.close()
    second.run("hi")
    second.close()
    with Client(**connection(server)) as third:
        third.run("hi")
    connections = [record.connection for record in server.requests]
    assert connections[0] == connections[1] == connections[2] != connections[3]
    with pytest.raises(RuntimeError, match="was closed"):
        first.run("hi")


def test_those_of_a_loop_are_closed_with_the_last_client_that_is_closed(serve: Serve) -> None:
    server = serve(lambda _: "ok")

    async def main() -> None:
        first, second = AsyncClient(**connection(server)), AsyncClient(**connection(server))
        for client in (first, second):
            await client.run("hi")
        await first.aclose()
        await second.run("hi")
        await second.aclose()
        async with AsyncClient(**connection(server)) as third:
            await third.run("hi")

    asyncio.run(main())
    connections = [record.connection for record in server.requests]
    assert connections[0] == connections[1] == connections[2] != connections[3]


def test_a_client_that_is_forgotten_leaves_its_connection_to_the_next(serve: Serve) -> None:
    server = serve(lambda _: "ok")
    for _ in range(3):
        ChatWorkersAI(**connection(server)).invoke("hi")
    assert len({record.connection for record in server.requests}) == 1


def test_another_proxy_means_other_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Client(account_id="a", api_token="t").settings
    before = pools.settings_key(settings)
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    assert pools.settings_key(settings) != before


def test_a_word_chooses_httpx_s_own_connections(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    server = serve(lambda _: "ok")
    monkeypatch.setenv("CLOUDFLARE_API_TOKEN", server.api_token)

    async def kind(word: Literal["httpx"] | None) -> str:
        client = pickle.loads(pickle.dumps(AsyncClient(**connection(server), http_client=word)))  # noqa: S301 - ours
        assert (await client.run("hi")).text == "ok"
        pool = await client._pool()
        return type(pool.transport).__name__

    assert asyncio.run(kind("httpx")) == "AsyncHttpxTransport"
    assert asyncio.run(kind(None)) == "AsyncPool"


def test_the_word_goes_for_models_too(serve: Serve) -> None:
    account = connection(serve(lambda _: "ok"))
    for model in (ChatWorkersAI(**account, http_async_client="httpx"), WorkersAI(**account, http_async_client="httpx")):
        assert model._async_client._given_http_client == "httpx"
    assert asyncio.run(ChatWorkersAI(**account, http_async_client="httpx").ainvoke("hi")).content == "ok"


def test_another_word_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"must be an httpx\.AsyncClient or the word 'httpx', not str"):
        AsyncClient(account_id="a", api_token="t", http_client="aiohttp")  # type: ignore[arg-type]


@pytest.mark.parametrize("pool", ["own", "httpx", "default"])
@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("warm", [True, False])
def test_a_task_that_is_cancelled_at_any_moment_gives_its_connection_back(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, pool: str, *, streamed: bool, warm: bool
) -> None:
    if pool != "default" and tuple(map(int, version("anyio").split(".")[:2])) < (4, 16):
        pytest.skip("anyio before 4.16 leaves a connection open when a task is cancelled while it connects")
    server = serve(lambda _: Answer(pieces=["It ", "is ", "sunny."]))
    monkeypatch.setattr(pools, "LIMITS", ONE)  # so that a lost one is missed

    async def call(client: AsyncClient) -> None:
        if streamed:
            async with contextlib.aclosing(client.stream("hi")) as stream:
                async for _ in stream:
                    pass
        else:
            await client.run("hi")

    async def main() -> None:
        tls = ssl.create_default_context()  # once: it takes longer than a call
        for moment in range(40):
            async with httpx.AsyncClient(limits=ONE, timeout=PATIENCE, verify=tls) as http:
                given: dict[str, Any] = {"http_client": http if pool == "own" else "httpx" if pool == "httpx" else None}
                async with AsyncClient(**connection(server), **given) as client:
                    if warm:
                        await client.run("hi")
                    task = asyncio.create_task(call(client))
                    for _ in range(moment):
                        await asyncio.sleep(0.0002 if moment % 2 else 0)
                    task.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await task
                    assert (await client.run("hi", deadline=PATIENCE)).text == "It is sunny."

    asyncio.run(main())


@pytest.mark.parametrize(
    "end", ["", "loop.close()", "loop = asyncio.new_event_loop(); loop.run_until_complete(client.run('hi'))"]
)
def test_a_loop_that_ends_without_a_word_leaves_no_complaint(serve: Serve, end: str) -> None:
    script = f"""
        import asyncio, sys
        from workersai import AsyncClient
        client = AsyncClient(account_id=sys.argv[2], api_token=sys.argv[3], base_url=sys.argv[1])
        loop = asyncio.new_event_loop()
        print(loop.run_until_complete(client.run("hi")).text)
        {end}
    """
    server = serve(lambda _: "ok")
    command = [sys.executable, "-c", textwrap.dedent(script), server.base_url, server.account_id, server.api_token]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
    assert (done.stdout, done.stderr) == ("ok\n", "")


def test_a_long_body_arrives_whole(driver: Driver, serve: Serve) -> None:
    server = serve(lambda _: "ok")
    prompt = os.urandom(300_000).hex()
    with pytest.raises(ModelNotFoundError):  # one whose window is not known
        driver.run(connection(server), prompt, model="@cf/a/model")
    assert server.requests[0].body["messages"][0]["content"] == prompt


@contextlib.contextmanager
def answering(head: bytes, body: bytes, received: list[bytes]) -> Iterator[dict[str, Any]]:
    """A server that answers one call with just these bytes; gives the arguments that point a client at it."""

    def serve() -> None:
        with listening.accept()[0] as connected:
            received.append(connected.recv(65_536))
            told = b"HTTP/1.1 200 OK\r\n" + head + b"connection: close\r\ncontent-length: %d\r\n\r\n" % len(body)
            connected.sendall(told + body)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = threading.Thread(target=serve)
        server.start()
        yield {"base_url": f"http://127.0.0.1:{listening.getsockname()[1]}", "account_id": "a", "api_token": "t"}
        server.join()


WHOLE = b'{"result":{"response":"ok"},"success":true}'
EVENTS = b'data: {"response":"ok"}\n\ndata: [DONE]\n\n'


def test_a_request_is_one_packet(driver: Driver) -> None:
    """A head of its own would wake the server for nothing."""
    received: list[bytes] = []
    with answering(b"", WHOLE, received) as settings:
        assert driver.run(settings, "hi").text == "ok"
    assert received[0].endswith(b'{"messages":[{"role":"user","content":"hi"}],"max_tokens":4096}')


@pytest.mark.parametrize("streamed", [True, False])
def test_a_body_that_comes_compressed_is_read(driver: Driver, *, streamed: bool) -> None:
    received: list[bytes] = []
    with answering(b"content-encoding: gzip\r\n", gzip.compress(EVENTS if streamed else WHOLE), received) as settings:
        text = driver.stream(settings, "hi")[0].text if streamed else driver.run(settings, "hi").text
    assert text == "ok"
    assert b"gzip" in received[0]


def test_a_long_header_is_read(driver: Driver) -> None:
    with answering(b"content-security-policy: " + b"x" * 50_000 + b"\r\n", WHOLE, []) as settings:
        assert driver.run(settings, "hi").text == "ok"


def test_a_piece_of_text_is_a_delta_like_any_other() -> None:
    piece = Delta.of_text("a")
    assert piece == Delta(text="a")
    assert hash(piece) == hash(Delta(text="a"))
    assert repr(piece) == repr(Delta(text="a"))
    assert pickle.loads(pickle.dumps(piece)) == piece  # noqa: S301 - ours
