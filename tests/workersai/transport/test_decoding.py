"""The body of a reply: the same bytes however it is cut and compressed, in bounded steps, up to a limit."""

import contextlib
import gzip
import tracemalloc
import zlib
from collections.abc import Callable

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.workersai.transport.parsing import pieces
from workersai._transport.decoding import BodyDecoder
from workersai.errors import ServerError

STEP = 65_536
RECEIVED_AT_ONCE = 65_536  # bytes: what a sync connection reads in one go
PLENTY = 1 << 40
MEBIBYTE = 1 << 20


def deflate(content: bytes, window: int, level: int = 6) -> bytes:
    compressor = zlib.compressobj(level, zlib.DEFLATED, window)
    return compressor.compress(content) + compressor.flush()


def members(content: bytes) -> bytes:
    """A gzip file of several members, one of which is empty."""
    third = len(content) // 3
    return gzip.compress(content[:third]) + gzip.compress(b"") + gzip.compress(content[third:])


ENCODERS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "none": ("", bytes),
    "identity": ("identity", bytes),
    "gzip": ("gzip", gzip.compress),
    "x-gzip": ("X-GZip ", gzip.compress),
    "gzip, several members": ("gzip", members),
    "gzip, stored": ("gzip", lambda content: gzip.compress(content, 0)),
    "zlib": ("deflate", zlib.compress),
    "zlib, small window": ("deflate", lambda content: deflate(content, 9)),
    "zlib, stored": ("deflate", lambda content: zlib.compress(content, 0)),
    "raw deflate": ("deflate", lambda content: deflate(content, -15)),
    "raw deflate, stored": ("deflate", lambda content: deflate(content, -15, 0)),
}
COMPRESSED = {name: way for name, way in ENCODERS.items() if way[0] not in ("", "identity")}
WAYS = st.sampled_from(sorted(ENCODERS))
COMPRESSED_WAYS = st.sampled_from(sorted(COMPRESSED))
SIZES = st.lists(st.one_of(st.integers(1, 50), st.integers(1, RECEIVED_AT_ONCE)), min_size=1, max_size=4)
CONTENTS = st.one_of(
    st.binary(max_size=300),
    # Beyond one step, and compressible.
    st.builds(lambda part, times: part * times, st.binary(min_size=1, max_size=20), st.integers(1, 20_000)),
)


def decode(encoding: str, body: bytes, sizes: list[int], max_bytes: int = PLENTY) -> list[bytes]:
    """The decoded chunks of a body, as a driver takes them."""
    decoder, decoded = BodyDecoder(encoding, max_bytes), []
    for piece in pieces(body, sizes):
        step = decoder.feed(piece)
        while step:
            decoded.append(step)
            step = decoder.take() if encoding else b""
    decoder.check_end()
    return decoded


@given(WAYS, CONTENTS, SIZES)
def test_a_body_is_the_same_however_it_is_cut_and_compressed(way: str, content: bytes, sizes: list[int]) -> None:
    encoding, encode = ENCODERS[way]
    steps = decode(encoding, encode(content), sizes)
    assert b"".join(steps) == content
    assert max(map(len, steps), default=0) <= STEP


@given(WAYS, CONTENTS, SIZES)
def test_the_limit_is_exact(way: str, content: bytes, sizes: list[int]) -> None:
    encoding, encode = ENCODERS[way]
    body = encode(content)
    assert b"".join(decode(encoding, body, sizes, max_bytes=len(content))) == content
    if content:
        with pytest.raises(ServerError, match=rf"larger than max_reply_bytes \({len(content) - 1:,} bytes") as caught:
            decode(encoding, body, sizes, max_bytes=len(content) - 1)
        assert not caught.value.retryable


@given(COMPRESSED_WAYS, CONTENTS.filter(bool), SIZES, st.data())
def test_a_compressed_body_that_is_cut_off_is_never_taken_for_a_shorter_one(
    way: str, content: bytes, sizes: list[int], data: st.DataObject
) -> None:
    encoding, encode = ENCODERS[way]
    body = encode(content)
    cut = data.draw(st.integers(1, len(body) - 1))
    if way == "gzip, several members" and cut in _ends_of_members(body):
        return  # which is a gzip file by itself; the framing of the reply says that it isn't all
    with pytest.raises(httpx.DecodingError):
        decode(encoding, body[:cut], sizes)


def _ends_of_members(body: bytes) -> set[int]:
    ends, rest = set(), body
    while rest:
        decompressor = zlib.decompressobj(31)
        decompressor.decompress(rest)
        rest = decompressor.unused_data
        ends.add(len(body) - len(rest))
    return ends


@given(st.sampled_from(["gzip", "deflate"]), st.binary(min_size=1, max_size=200), SIZES)
def test_any_bytes_decode_or_raise_a_decoding_error(encoding: str, body: bytes, sizes: list[int]) -> None:
    with contextlib.suppress(httpx.DecodingError):
        decode(encoding, body, sizes)


@pytest.mark.parametrize(("encoding", "encode"), COMPRESSED.values(), ids=COMPRESSED)
@pytest.mark.parametrize("rest", [b"x", b"\0" * 20, b"<html>"])
@pytest.mark.parametrize("together", [True, False])
def test_bytes_behind_a_compressed_body_are_no_part_of_it(
    encoding: str, encode: Callable[[bytes], bytes], rest: bytes, *, together: bool
) -> None:
    body = encode(b"hello")
    with pytest.raises(httpx.DecodingError):
        decode(encoding, body + rest, [len(body) + (len(rest) if together else 0)])


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_checksum_that_is_wrong_is_noticed(encoding: str) -> None:
    body = bytearray(gzip.compress(b"hello") if encoding == "gzip" else zlib.compress(b"hello"))
    body[-5 if encoding == "gzip" else -1] ^= 1
    with pytest.raises(httpx.DecodingError, match="incorrect data check"):
        decode(encoding, bytes(body), [3])


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_no_body_at_all_is_an_empty_one(encoding: str) -> None:
    assert decode(encoding, b"", [1]) == []


@pytest.mark.parametrize("encoding", ["br", "zstd", "compress", "gzip, gzip", "gzip;q=1", "x" * 500])
def test_an_encoding_that_was_not_requested_is_refused(encoding: str) -> None:
    with pytest.raises(ServerError, match="compressed in a way that was not requested: content-encoding") as caught:
        BodyDecoder(encoding, PLENTY)
    assert not caught.value.retryable
    assert len(str(caught.value)) < 300


def bomb(encoding: str) -> bytes:
    """A megabyte that would decode to a gigabyte: the same compressed blocks of zeros over and over."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = compressor.compress(bytes(MEBIBYTE)) + compressor.flush(zlib.Z_FULL_FLUSH)
    head = b"\x1f\x8b\x08\0\0\0\0\0\0\xff" if encoding == "gzip" else b"\x78\x9c"
    return head + block * 1_024


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
@pytest.mark.parametrize("size", [1_460, RECEIVED_AT_ONCE, 4 * RECEIVED_AT_ONCE, 2 * MEBIBYTE])
def test_a_bomb_stays_small_and_stops_at_the_limit(encoding: str, size: int) -> None:
    body, decoded, limit = bomb(encoding), 0, 32 * MEBIBYTE
    assert MEBIBYTE < len(body) < 1.2 * MEBIBYTE
    decoder = BodyDecoder(encoding, limit)
    tracemalloc.start()
    try:
        with pytest.raises(ServerError, match="max_reply_bytes"):  # noqa: PT012 - it may come in either line
            for piece in pieces(body, [size]):
                step = decoder.feed(piece)
                while step:
                    decoded += len(step)
                    step = decoder.take()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert decoded <= limit
    assert decoded > limit - STEP
    assert peak < 4 * STEP + 3 * min(size, len(body))
