"""A reply takes only so much memory: its body, one event of a stream, and what a few compressed bytes become."""

import gzip
import json
import socket
import threading
import zlib
from functools import cache
from typing import Any

import pytest
from pydantic import ValidationError

from langchain_workersai import ChatWorkersAI
from llamaindex_workersai import WorkersAI
from tests.raw_server import LONG, WAYS, Handler, Way, call, chunk, chunked, completion, events, raw_server, reply
from workersai import Client
from workersai.errors import BadRequestError, ServerError
from workersai.protocol.sse import MAX_EVENT_BYTES


def answering(data: bytes) -> Handler:
    def handle(connected: socket.socket, request: bytes) -> None:
        connected.sendall(data)

    return handle


@pytest.mark.parametrize("way", WAYS)
def test_a_reply_of_just_the_bound_is_read_and_one_byte_more_is_not(way: Way) -> None:
    body = completion("x" * 10_000)
    with raw_server(answering(reply(body))) as server:
        assert call(way, server.account, "hi", max_reply_bytes=len(body)) == "x" * 10_000
        with pytest.raises(ServerError, match=rf"larger than max_reply_bytes \({len(body) - 1:,} bytes") as caught:
            call(way, server.account, "hi", max_reply_bytes=len(body) - 1)
    assert not caught.value.retryable
    assert caught.value.status_code == 200


@pytest.mark.parametrize("way", WAYS)
def test_the_error_of_a_stream_over_the_bound_has_what_was_received(way: Way) -> None:
    read = threading.Event()

    def handle(connected: socket.socket, request: bytes) -> None:
        connected.sendall(chunked(events("one ", done=False), end=False))
        assert read.wait(LONG)
        connected.sendall(chunk(events("x" * 5_000)) + b"0\r\n\r\n")

    with raw_server(handle) as server, pytest.raises(ServerError, match="larger than max_reply_bytes") as caught:
        call(way, server.account, "hi", streamed=True, max_reply_bytes=1_000, on_text=read.set)
    assert caught.value.partial is not None
    assert caught.value.partial.text == "one "


@cache
def compressed(begun: bytes, encoding: str) -> bytes:
    """200 MB of zeros behind that, in about a megabyte."""
    plain = begun + bytes(200_000_000)
    return gzip.compress(plain, 1) if encoding == "gzip" else zlib.compress(plain, 1)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
def test_a_few_compressed_bytes_do_not_become_gigabytes(encoding: str, streamed: bool, way: Way) -> None:
    """A megabyte here, of what would be a gigabyte: the rest of it is never decompressed."""
    begun = b'data: {"response":"' if streamed else b'{"result":{"response":"'
    with (
        raw_server(answering(reply(compressed(begun, encoding), f"content-encoding: {encoding}"))) as server,
        pytest.raises(ServerError, match=r"max_reply_bytes|more than 4,194,304 bytes"),
    ):
        call(way, server.account, "hi", streamed=streamed)


@pytest.mark.parametrize("way", WAYS)
def test_a_compression_that_was_not_requested_is_refused(way: Way) -> None:
    with (
        raw_server(answering(reply(b"\x28\xb5\x2f\xfd", "content-encoding: zstd"))) as server,
        pytest.raises(ServerError, match="content-encoding 'zstd', expected gzip, deflate or none"),
    ):
        call(way, server.account, "hi")


@pytest.mark.parametrize("way", WAYS)
def test_one_event_of_a_stream_is_bounded(way: Way) -> None:
    endless = b'data: {"response":"' + b"x" * (MAX_EVENT_BYTES + 1)
    with (
        raw_server(answering(chunked(events("one ", done=False), endless, end=False))) as server,
        pytest.raises(ServerError, match="an event of more than 4,194,304 bytes") as caught,
    ):
        call(way, server.account, "hi", streamed=True)
    assert caught.value.partial is not None
    assert caught.value.partial.text == "one "


def test_a_long_event_within_the_bound_is_read() -> None:
    text = "x" * 2_000_000
    with raw_server(answering(chunked(events(text)))) as server:
        assert call("sync", server.account, "hi", streamed=True) == text


def test_models_take_the_bound_as_a_field() -> None:
    body = completion("x" * 10_000)
    with raw_server(answering(reply(body))) as server:
        chat = ChatWorkersAI(**server.account, max_reply_bytes=1_000)
        with pytest.raises(ServerError, match="larger than max_reply_bytes"):
            chat.invoke("hi")
        llm = WorkersAI(**server.account, max_reply_bytes=1_000)
        with pytest.raises(ServerError, match="larger than max_reply_bytes"):
            llm.complete("hi")


@pytest.mark.parametrize("wrong", [0, -1, "x", 1.5])
def test_a_bound_that_can_not_be_right_is_refused(wrong: Any) -> None:
    with Client(account_id="a", api_token="t") as client, pytest.raises(BadRequestError, match="max_reply_bytes"):
        client.run("hi", max_reply_bytes=wrong)
    with pytest.raises(ValidationError, match="max_reply_bytes"):
        ChatWorkersAI(account_id="a", api_token="t", max_reply_bytes=wrong)


def test_the_default_is_64_mebibytes() -> None:
    body = json.dumps({"result": {"response": "x" * 70_000_000}, "success": True}).encode()
    with (
        raw_server(answering(reply(body))) as server,
        pytest.raises(ServerError, match=r"67,108,864 bytes, or 64 MiB"),
    ):
        call("sync", server.account, "hi")
