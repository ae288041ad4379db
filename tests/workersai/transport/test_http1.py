"""HTTP/1.1 without I/O: what a reply says doesn't depend on how it is cut."""

import gc
import weakref
from dataclasses import dataclass

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.raw_server import chunked, reply
from tests.workersai.transport.parsing import parse, pieces
from workersai._transport.http1 import ReplyParser

OK = reply(b"ok")
OK_CHUNKED = chunked(b"ok")

TOKEN = st.text("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ", min_size=1, max_size=8)
VISIBLE = "".join(map(chr, (*range(0x21, 0x7F), *range(0x80, 0x100))))
VALUE = st.text(VISIBLE + " \t", max_size=12).map(lambda value: value.strip(" \t"))
HEADERS = st.lists(st.tuples(TOKEN.map(lambda name: f"x-{name}"), VALUE), max_size=5)
SPACE = st.sampled_from(["", " ", "\t", "  "])
SIZES = st.lists(st.integers(1, 40), min_size=1, max_size=5)
"""Sizes of the pieces that a reply is cut into, taken in turn."""


@dataclass
class Sent:
    """A reply as bytes, and what a client should see of it."""

    data: bytes
    status: int
    headers: dict[str, str]
    body: bytes
    ends_by_itself: bool


def lines(first: str, headers: list[tuple[str, str]], space: str) -> bytes:
    fields = [f"{name}:{space}{value}{'' if value.lower() == 'chunked' else space}" for name, value in headers]
    return "\r\n".join([first, *fields, "", ""]).encode("latin-1")


@st.composite
def chunks(draw: st.DrawFn, body: bytes) -> bytes:
    """The body in chunks of any size, with extensions, and trailers behind them."""
    data, rest = b"", body
    while rest:
        size = draw(st.integers(1, len(rest)))
        extension = draw(st.sampled_from(["", ";a", ";a=b", ';a="b c"', ";a=b;c=d"]))
        data += f"{draw(st.sampled_from(['', '00']))}{size:{draw(st.sampled_from('xX'))}}{extension}\r\n".encode()
        data, rest = data + rest[:size] + b"\r\n", rest[size:]
    return data + lines("0", draw(HEADERS), " ")


@st.composite
def replies(draw: st.DrawFn) -> Sent:
    """Any valid reply, with interim ones before it."""
    interim = b"".join(
        lines(f"HTTP/1.1 {draw(st.sampled_from([100, 102, 103, 199]))} Wait", draw(HEADERS), draw(SPACE))
        for _ in range(draw(st.integers(0, 2)))
    )
    status = draw(st.integers(200, 599).filter(lambda status: status not in (204, 304)))
    headers, body = draw(HEADERS), draw(st.binary(max_size=100))
    framing = draw(st.sampled_from(["length", "chunks", "end"]))
    if framing == "length":
        headers.insert(draw(st.integers(0, len(headers))), ("Content-Length", str(len(body))))
    elif framing == "chunks":
        headers.insert(
            draw(st.integers(0, len(headers))), ("Transfer-Encoding", draw(st.sampled_from(["chunked", "CHUNKED"])))
        )
    seen: dict[str, str] = {}
    for name, value in headers:
        seen[name.lower()] = f"{seen[name.lower()]}, {value}" if name.lower() in seen else value
    head = lines(f"HTTP/1.1 {status}{draw(st.sampled_from(['', ' ', ' Some reason']))}", headers, draw(SPACE))
    data = interim + head + (draw(chunks(body)) if framing == "chunks" else body)
    return Sent(data, status, seen, body, ends_by_itself=framing != "end")


COMPLETE = replies().filter(lambda sent: sent.ends_by_itself)
SHORT = Sent(OK, 200, {"content-length": "2", "content-type": "application/json"}, b"ok", ends_by_itself=True)


@given(replies(), SIZES)
def test_a_reply_is_the_same_however_it_is_cut(sent: Sent, sizes: list[int]) -> None:
    for cut in (sizes, [1], [len(sent.data)]):
        parser, body = parse(sent.data, cut)
        assert (parser.status, parser.headers, body) == (sent.status, sent.headers, sent.body)
        assert parser.is_complete == parser.is_reusable == sent.ends_by_itself
        parser.feed_end()
        assert parser.is_complete


@given(COMPLETE, SIZES, st.binary(min_size=1, max_size=60))
@example(SHORT, [1_000], b"\r\n")
@example(SHORT, [1_000], b"\n")
@example(SHORT, [1_000], OK)
@example(
    SHORT,
    [1_000],
    b"HTTP/1.1 101 Other\r\nconnection: upgrade\r\nupgrade: other\r\n\r\n",
)
def test_a_connection_with_bytes_behind_the_reply_is_not_used_again(sent: Sent, sizes: list[int], rest: bytes) -> None:
    for cut in (sizes, [1], [len(sent.data + rest)]):
        parser, body = parse(sent.data + rest, cut)
        assert (parser.status, parser.headers, body) == (sent.status, sent.headers, sent.body), "the reply is intact"
        assert parser.is_complete
        assert not parser.is_reusable


@given(st.lists(COMPLETE, min_size=2, max_size=4), SIZES)
def test_a_parser_reads_one_reply_after_the_other(several: list[Sent], sizes: list[int]) -> None:
    parser = ReplyParser()
    for sent in several:
        parser.start()
        for piece in pieces(sent.data, sizes):
            parser.feed(piece)
        assert (parser.status, parser.headers, parser.take_body()) == (sent.status, sent.headers, sent.body)
        assert parser.is_reusable


@given(COMPLETE, st.data())
def test_a_reply_that_is_broken_off_is_never_complete(sent: Sent, data: st.DataObject) -> None:
    parser, body = parse(sent.data[: data.draw(st.integers(0, len(sent.data) - 1))], [7])
    assert not parser.is_complete
    assert sent.body.startswith(body)
    with pytest.raises(httpx.RemoteProtocolError, match="the server closed the connection"):
        parser.feed_end()


@given(st.binary(max_size=300), SIZES)
def test_any_bytes_are_a_reply_or_a_protocol_error(data: bytes, sizes: list[int]) -> None:
    try:
        parser, _ = parse(data, sizes)
        parser.feed_end()
    except httpx.RemoteProtocolError:
        return
    assert parser.is_complete


@pytest.mark.parametrize("status", [204, 304])
def test_a_status_without_a_body_ends_with_its_head(status: int) -> None:
    parser, body = parse(b"HTTP/1.1 %d None\r\n\r\n" % status, [1_000])
    assert (parser.status, body, parser.is_reusable) == (status, b"", True)


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\nconnection: close", b"HTTP/1.0 200 OK"])
def test_a_connection_that_the_server_will_close_is_not_used_again(head: bytes) -> None:
    parser, body = parse(head + b"\r\ncontent-length: 2\r\n\r\nok", [1_000])
    assert (body, parser.is_complete, parser.is_reusable) == (b"ok", True, False)


class Interruption(BaseException):
    """What a signal handler of the program may raise, as Ctrl-C's does."""


def test_what_a_signal_handler_raises_in_the_parser_is_not_taken_for_a_broken_reply() -> None:
    class Interrupted(ReplyParser):
        def on_body(self, chunk: bytes) -> None:
            raise Interruption

    with pytest.raises(Interruption):
        Interrupted().feed(OK)


@pytest.mark.parametrize("received", [b"", OK[:-1], OK, OK_CHUNKED[:-3], b"rubbish"])
def test_a_discarded_parser_needs_no_garbage_collector(received: bytes) -> None:
    gc.collect()
    gc.disable()
    try:
        parser = ReplyParser()
        gone = weakref.ref(parser)
        try:
            parser.feed(received) if received else None
        except httpx.RemoteProtocolError as error:
            del error
        parser.discard()
        parser.feed(b"late")  # as a transport may that is being closed
        assert not parser.is_reusable
        del parser
        assert gone() is None, "a cycle holds it"
    finally:
        gc.enable()
