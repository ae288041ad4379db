"""A client that is closed while its calls are under way: each of them ends at once, and says why."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import httpx
import pytest

from workersai import AsyncClient, Client, pools
from workersai.errors import APIConnectionError, StreamInterruptedError, WorkersAIError

PIECE = b'data: {"response":"hi"}\n\n'
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
BEGINNINGS = {
    "nothing": b"",
    "chunked": HEAD + b"transfer-encoding: chunked\r\n\r\n%x\r\n%s\r\n" % (len(PIECE), PIECE),
    "with a length": HEAD + b"content-length: 1000\r\n\r\n" + PIECE,
}
AGES = 60  # seconds, which no test waits for


@dataclass
class Stuck:
    """A server that begins its answers, and never ends them."""

    settings: dict[str, Any]
    asked: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    async def has_been_asked(self) -> None:
        """Returns once a request has come, and the beginning of its answer has gone."""
        assert await asyncio.to_thread(self.asked.acquire, timeout=AGES)


@contextlib.contextmanager
def stuck_after(beginning: bytes) -> Iterator[Stuck]:
    listening = socket.create_server(("127.0.0.1", 0))
    address = f"http://127.0.0.1:{listening.getsockname()[1]}"
    server = Stuck({"base_url": address, "account_id": "a", "api_token": "t", "timeout": AGES})

    def answer(connected: socket.socket) -> None:
        with contextlib.suppress(OSError), connected:  # which the client breaks off
            if connected.recv(65_536):
                connected.sendall(beginning)
                server.asked.release()
            while connected.recv(65_536):  # until the client closes its end
                pass

    def serve() -> None:
        with contextlib.suppress(OSError), listening:
            while True:
                threading.Thread(target=answer, args=[listening.accept()[0]], daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield server
    finally:
        listening.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("beginning", BEGINNINGS)
@pytest.mark.parametrize("word", ["httpx", None])
def test_a_run_ends_when_its_async_client_is_closed(beginning: str, word: Literal["httpx"] | None) -> None:
    async def main(server: Stuck) -> WorkersAIError:
        client = AsyncClient(**server.settings, http_client=word)
        call = asyncio.ensure_future(client.run("hi"))
        await server.has_been_asked()
        await client.aclose()
        with pytest.raises(APIConnectionError, match="The client was closed before this call had ended") as error:
            await asyncio.wait_for(call, AGES / 2)
        return error.value

    with stuck_after(BEGINNINGS[beginning]) as server:
        assert not asyncio.run(main(server)).retryable


@pytest.mark.parametrize("beginning", ["chunked", "with a length"])
@pytest.mark.parametrize("word", ["httpx", None])
def test_a_stream_ends_when_its_async_client_is_closed(beginning: str, word: Literal["httpx"] | None) -> None:
    async def main(server: Stuck) -> WorkersAIError:
        client = AsyncClient(**server.settings, http_client=word)
        stream = client.stream("hi")
        assert (await anext(stream)).text == "hi"
        await client.aclose()
        with pytest.raises(StreamInterruptedError) as error:
            await asyncio.wait_for(anext(stream), AGES / 2)
        return error.value

    with stuck_after(BEGINNINGS[beginning]) as server:
        error = asyncio.run(main(server))
    assert error.partial is not None
    assert error.partial.text == "hi"
    assert "The client was closed" in str(error.__cause__)


@pytest.mark.parametrize("beginning", BEGINNINGS)
def test_a_run_ends_when_another_thread_closes_its_client(beginning: str) -> None:
    errors: list[WorkersAIError] = []

    def call(client: Client) -> None:
        try:
            client.run("hi")
        except WorkersAIError as error:
            errors.append(error)

    with stuck_after(BEGINNINGS[beginning]) as server:
        client = Client(**server.settings)
        caller = threading.Thread(target=call, args=[client], daemon=True)
        caller.start()
        assert server.asked.acquire(timeout=AGES)
        client.close()
        caller.join(AGES / 2)
    assert [type(error) for error in errors] == [APIConnectionError]
    assert "The client was closed" in str(errors[0])


def test_calls_that_wait_for_a_connection_end_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "LIMITS", httpx.Limits(max_connections=1))

    async def main(server: Stuck) -> list[Any]:
        client = AsyncClient(**server.settings)
        calls = [asyncio.ensure_future(client.run("hi")) for _ in range(3)]
        await server.has_been_asked()
        await client.aclose()
        return list(await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), AGES / 2))

    with stuck_after(b"") as server:
        ended = asyncio.run(main(server))
    assert [type(error) for error in ended] == [APIConnectionError] * 3


def test_a_task_that_was_cancelled_is_cancelled() -> None:
    async def main(server: Stuck) -> None:
        client = AsyncClient(**server.settings)
        call = asyncio.ensure_future(client.run("hi"))
        await server.has_been_asked()
        call.cancel()
        await client.aclose()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(call, AGES / 2)

    with stuck_after(b"") as server:
        asyncio.run(main(server))


def test_a_call_that_waits_for_its_retry_ends_without_it() -> None:
    """It would open connections that nobody closes."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"
    client = Client(base_url=address, account_id="a", api_token="t", on_retry=lambda _: client.close())
    with pytest.raises(APIConnectionError, match="The client was closed"):
        client.run("hi")
