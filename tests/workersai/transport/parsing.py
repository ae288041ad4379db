"""What tests of the parser share: a reply is cut into pieces, and parsed."""

from collections.abc import Iterator
from itertools import cycle

from workersai._transport.http1 import ReplyParser


def pieces(data: bytes, sizes: list[int]) -> Iterator[bytes]:
    start = 0
    for size in cycle(sizes):
        if start >= len(data):
            return
        yield data[start : start + size]
        start += size


def parse(data: bytes, sizes: list[int]) -> tuple[ReplyParser, bytes]:
    parser, body = ReplyParser(), b""
    for piece in pieces(data, sizes):
        parser.feed(piece)
        body += parser.take_body()
    return parser, body
