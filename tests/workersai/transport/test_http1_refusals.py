"""Replies whose meaning or end isn't certain are refused, and what comes before and between their bytes is bounded."""

import httpx
import pytest

from tests.raw_server import chunked
from tests.workersai.transport.parsing import parse, pieces
from workersai._transport.http1 import MAX_HEAD_BYTES, ReplyParser

RECEIVED_AT_ONCE = 262_144  # bytes: what asyncio reads from a socket in one go

REFUSED = {
    "another protocol": b"HTTP/1.1 101 Other\r\nconnection: upgrade\r\nupgrade: other\r\n\r\n",
    "another protocol, unnamed": b"HTTP/1.1 101 Other\r\n\r\n",
    "another encoding": b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n",
    "two encodings": b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n",
    "two encodings in two headers": b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n",
    "chunked twice": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n",
    "identity": b"HTTP/1.1 200 OK\r\ntransfer-encoding: identity\r\n\r\n",
    "an encoding with a tab behind it": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\t\r\n\r\n0\r\n\r\n",
    "length, then chunks": b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n",
    "chunks, then length": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 2\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nok",
    "a list of lengths": b"HTTP/1.1 200 OK\r\ncontent-length: 2, 2\r\n\r\nok",
    "a negative length": b"HTTP/1.1 200 OK\r\ncontent-length: -2\r\n\r\nok",
    "a signed length": b"HTTP/1.1 200 OK\r\ncontent-length: +2\r\n\r\nok",
    "an endless length": b"HTTP/1.1 200 OK\r\ncontent-length: %s\r\n\r\nok" % (b"9" * 30),
    "a chunk of no size": chunked(end=False) + b"zz\r\n",
    "an endless chunk": chunked(end=False) + b"f" * 20 + b"\r\n",
    "a longer chunk than announced": chunked(end=False) + b"2\r\nokk\r\n",
    "a folded header": b"HTTP/1.1 200 OK\r\na: b\r\n c\r\n\r\n",
    "a space before the colon": b"HTTP/1.1 200 OK\r\ntransfer-encoding : chunked\r\n\r\n",
    "bare line feeds": b"HTTP/1.1 200 OK\ncontent-length: 2\n\nok",
    "a zero byte": b"HTTP/1.1 200 OK\r\na: \0\r\n\r\n",
    "no status": b"HTTP/1.1 OK\r\n\r\n",
    "a status too low": b"HTTP/1.1 000 OK\r\ncontent-length: 0\r\n\r\n",
    "a status too high": b"HTTP/1.1 1000 OK\r\n\r\n",
    "HTTP/0.9": b"HTTP/0.9 200 OK\r\ncontent-length: 0\r\n\r\n",
    "HTTP/2": b"HTTP/2.0 200 OK\r\ncontent-length: 0\r\n\r\n",
    "SSH": b"SSH-2.0-OpenSSH_9.6\r\n",
    "a page": b"<html></html>",
    "a request": b"GET / HTTP/1.1\r\n\r\n",
    "TLS": b"\x15\x03\x01\x00\x02\x02\x46",
}


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED)
def test_what_has_no_certain_meaning_is_refused(data: bytes) -> None:
    for size in (1, len(data)):
        with pytest.raises(httpx.RemoteProtocolError):
            parse(data, [size])


def feed(parser: ReplyParser, data: bytes, size: int, *, most: int) -> None:
    """Feeds a reply that is to be refused before so many bytes of it."""
    fed = 0
    for piece in pieces(data, [size]):
        parser.feed(piece)
        fed += len(piece)
        assert fed <= most, "a reply without an end is refused too late"


@pytest.mark.parametrize("size", [1_000, 65_536, RECEIVED_AT_ONCE])
@pytest.mark.parametrize(
    "endless",
    [
        b"HTTP/1.1 200 OK\r\n" + b"a: " + b"b" * 1_000_000,
        b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 100_000,
        b"HTTP/1.1 200 " + b"O" * 1_000_000,
        b"HTTP/1.1 100 Wait\r\n\r\n" * 20_000,
        b"HTTP/1.1 200 OK\r\na: " + b"b" * MAX_HEAD_BYTES + b"\r\ncontent-length: 2\r\n\r\nok",
    ],
    ids=["one header", "headers", "reason", "interim replies", "whole reply"],
)
def test_a_head_is_bounded(endless: bytes, size: int) -> None:
    parser = ReplyParser()
    with pytest.raises(httpx.RemoteProtocolError, match="head of the reply is longer than 131,072 bytes"):
        feed(parser, endless, size, most=MAX_HEAD_BYTES + 2 * size)
    assert not parser.is_reusable


@pytest.mark.parametrize("size", [1_000, 65_536, RECEIVED_AT_ONCE])
def test_a_head_of_just_the_bound_is_read(size: int) -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\na: %s\r\n\r\n"
    parser, body = parse(head % (b"b" * (MAX_HEAD_BYTES - len(head) + 2)) + b"ok", [size])
    assert (body, parser.is_reusable) == (b"ok", True)


@pytest.mark.parametrize("size", [7, 65_536, RECEIVED_AT_ONCE])
@pytest.mark.parametrize("end", [True, False])
def test_a_body_in_chunks_of_a_byte_is_read(size: int, *, end: bool) -> None:
    parser, body = parse(chunked(*[b"x"] * 45_000, end=end), [size])
    assert body == b"x" * 45_000
    assert parser.is_complete is end


@pytest.mark.parametrize(
    "framing",
    [(b"1;" + b"a" * 1_000 + b"\r\nx\r\n") * 3_000, b"0\r\n" + b"a: b\r\n" * 500_000],
    ids=["extensions", "trailers"],
)
def test_the_framing_of_a_body_is_bounded(framing: bytes) -> None:
    parser = ReplyParser()
    parser.feed(chunked(end=False))
    with pytest.raises(httpx.RemoteProtocolError, match="chunk headers are far larger than the body"):
        feed(parser, framing, 65_536, most=2_000_000)
