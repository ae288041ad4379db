"""The body of a reply: decompressed in bounded steps, and bounded as a whole.

A few kilobytes of a compressed body can become gigabytes. So no step makes more than 64 KiB, the deadline is checked
between two steps, and the number of decoded bytes is limited.
"""

from __future__ import annotations

import zlib
from collections import deque
from typing import Any, NoReturn, Protocol

import httpx

from workersai.errors import ServerError

_STEP = 65_536  # bytes decoded at once
_GZIP_WINDOW = 31  # zlib's parameter for a gzip header and trailer
_RAW_DEFLATE_WINDOW = -15
_MEBIBYTE = 1_048_576


class _Decompressor(Protocol):
    unconsumed_tail: bytes
    unused_data: bytes
    eof: bool

    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class BodyDecoder:
    """Turns the chunks of a body, as they were received, into bytes of the reply.

    Args:
        encoding: The reply's ``content-encoding``: none, gzip or deflate, which are all that requests accept.
        max_bytes: The most decoded bytes of the whole body.

    Raises:
        ServerError: The encoding is another one.
    """

    def __init__(self, encoding: str, max_bytes: int) -> None:
        self._encoding = encoding.strip().lower()
        if self._encoding not in ("", "identity", "gzip", "x-gzip", "deflate"):
            raise ServerError(
                f"The reply is compressed in a way that was not requested: content-encoding {encoding[:40]!r}, "
                "expected gzip, deflate or none. A proxy may have changed it.",
                retryable=False,
            )
        self._is_plain = self._encoding in ("", "identity")
        self._max_bytes = self._left = max_bytes
        self._received = 0  # bytes of a compressed body
        self._decompressor: _Decompressor | None = None
        self._input: deque[bytes] = deque()

    def feed(self, chunk: bytes) -> bytes:
        """Takes a chunk of the body as it was received; returns the first decoded bytes, see :meth:`take`."""
        if self._is_plain:
            self._count(len(chunk))
            return chunk
        self._received += len(chunk)
        if self._received > self._max_bytes + _STEP:  # what decodes to nothing, like empty members, has no end either
            self._fail()
        self._input.append(chunk)
        return self.take()

    def take(self) -> bytes:
        """The next decoded bytes; empty if more of the body is needed.

        Raises:
            ServerError: The body is larger than the limit.
            httpx.DecodingError: It can't be decompressed.
        """
        while self._input:
            decoded = self._decompress(self._input.popleft())
            if decoded:
                self._count(len(decoded))
                return decoded
        return b""

    def check_end(self) -> None:
        """Checks that a compressed body was not cut off.

        Raises:
            httpx.DecodingError: It was.
        """
        if self._decompressor is not None and not self._decompressor.eof:
            raise httpx.DecodingError("the compressed body ends too early")

    def _count(self, decoded: int) -> None:
        self._left -= decoded
        if self._left < 0:
            self._fail()

    def _fail(self) -> NoReturn:
        raise ServerError(
            f"The reply is larger than max_reply_bytes ({_readable(self._max_bytes)}, decoded), so the rest was not "
            "read. Request less, or raise max_reply_bytes.",
            retryable=False,
        )

    def _decompress(self, data: bytes) -> bytes:
        if self._decompressor is not None and self._decompressor.eof:
            if self._encoding == "deflate":
                raise httpx.DecodingError("bytes follow the end of the compressed body")
            self._decompressor = None  # a gzip body may have several members
        if self._decompressor is None:
            self._decompressor = self._new_decompressor(data)
        try:
            decoded = self._decompressor.decompress(data, _STEP)
        except zlib.error as error:
            raise httpx.DecodingError(str(error)) from error
        ended = self._decompressor.eof
        rest = self._decompressor.unused_data if ended else self._decompressor.unconsumed_tail
        if rest or (len(decoded) == _STEP and not ended):  # zlib may hold decoded bytes though it has read all
            self._input.appendleft(rest)
        return decoded

    def _new_decompressor(self, data: bytes) -> Any:
        if self._encoding != "deflate":
            return zlib.decompressobj(_GZIP_WINDOW)
        # "deflate" is zlib's format by the standard, and a bare deflate stream by some servers.
        is_zlib = data[0] & 0x0F == zlib.DEFLATED
        return zlib.decompressobj(zlib.MAX_WBITS if is_zlib else _RAW_DEFLATE_WINDOW)


def _readable(size: int) -> str:
    return f"{size:,} bytes" + (f", or {size / _MEBIBYTE:.4g} MiB" if size >= _MEBIBYTE else "")
