"""HTTP/1.1 without I/O: the bytes of a request, and a parser of replies that keeps bounds.

llhttp (through httptools) splits a reply into its head and the chunks of its body. This module adds what makes it safe
to read from a server that misbehaves, and to use the connection again:

- a head, with the interim replies (status 1xx) before it, and the framing of a body are bounded;
- a reply whose end can't be told for sure is refused;
- a connection is reusable only if the reply ended as announced and not a byte followed it. Otherwise the next caller
  could be given bytes that were meant for somebody else.

Secrets are ``SecretStr`` values of the request's headers. They are revealed in one expression here, and what is
returned is a ``memoryview``, whose ``repr`` shows nothing: a traceback with local variables doesn't show the token.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from urllib.parse import urlsplit

import httptools
import httpx
from pydantic import SecretStr

from workersai.protocol.request import Request

MAX_HEAD_BYTES = 131_072
"""The longest head of a reply, with all interim replies before it. A gateway's security policy may take 50,000."""

_MAX_FRAMING_BYTES = 1_048_576
_FRAMING_PER_BODY_BYTE = 16  # a chunk of one byte takes six; chunk extensions and trailers take as much as they like
_FIRST_STATUS, _SWITCHING_PROTOCOLS, _FIRST_FINAL_STATUS = 100, 101, 200
_HEADER_FRAMING = 4  # bytes: a colon, a space and the end of the line


def request_bytes(request: Request) -> memoryview:
    """The whole request, head and body, as one buffer."""
    return memoryview(
        b"".join(
            (
                _request_line(request),
                *(f"{name}: {_revealed(value)}\r\n".encode("latin-1") for name, value in request.headers.items()),
                b"content-length: %d\r\n\r\n" % len(request.content),
                request.content,
            )
        )
    )


def _request_line(request: Request) -> bytes:
    parts = urlsplit(request.url)
    target = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
    head = f"{request.method} {target} HTTP/1.1\r\nhost: {parts.netloc}\r\naccept-encoding: gzip, deflate\r\n"
    return head.encode("ascii")


def _revealed(value: str | SecretStr) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else value


def _noted(callback: Callable[..., None]) -> Callable[..., None]:
    """Keeps what a callback raises (one of our checks, or a signal handler), which httptools would lose."""

    @wraps(callback)
    def noting(parser: ReplyParser, *args: bytes) -> None:
        try:
            callback(parser, *args)
        except BaseException as error:
            parser._raised = error  # noqa: SLF001 - its own
            raise

    return noting


class ReplyParser:
    """Parses the replies of one connection, one after the other.

    Attributes:
        status: The status of the reply, 0 before its head is complete.
        headers: Its headers by name in lower case; values of a repeated one are joined by commas.
        buffered: Bytes of the body that have been received and not taken yet.
        has_head: Whether the head is complete.
        is_complete: Whether the reply is complete.
    """

    def __init__(self) -> None:
        self._parser: httptools.HttpResponseParser | None = httptools.HttpResponseParser(self)
        self.start()

    def start(self) -> None:
        """Expects the next reply."""
        self.status = 0
        self.headers: dict[str, str] = {}
        self.buffered = 0
        self._chunks: list[bytes] = []
        self.has_head = self.is_complete = False
        self._head_bytes = self._header_bytes = self._framing_bytes = self._body_bytes = 0
        self._keeps_alive = self._has_surplus = False
        self._raised: BaseException | None = None

    @property
    def is_reusable(self) -> bool:
        """Whether the connection can take another request."""
        return self.is_complete and self._keeps_alive and not self._has_surplus and self._parser is not None

    def take_body(self) -> bytes:
        """What has been received of the body since the last time; empty if nothing has."""
        chunks, self._chunks, self.buffered = self._chunks, [], 0
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def discard(self) -> None:
        """Ends the use of the parser, which refers to itself."""
        self._parser = None

    def feed(self, data: bytes) -> None:
        """Parses what was received.

        Raises:
            httpx.RemoteProtocolError: It isn't HTTP/1.1, or passes a bound.
        """
        if self.is_complete or self._parser is None:
            self._has_surplus = True
            return
        self._raised, handled = None, sys.exc_info()[1]
        in_head, body_before = not self.has_head, self._body_bytes
        try:
            self._parse(self._parser, data)
        except httptools.HttpParserCallbackError as error:
            self._parser = None  # it would raise again, without the cause
            raise self._cause_of(error, handled) from None
        except httptools.HttpParserError as error:
            if not self.is_complete:  # else the error is in what followed the reply
                raise httpx.RemoteProtocolError(str(error)) from None
            self._has_surplus = True
        self._check_bounds(len(data), self._body_bytes - body_before, in_head=in_head)

    def _cause_of(self, error: httptools.HttpParserCallbackError, handled: BaseException | None) -> BaseException:
        """What a callback raised: one of our checks, or a signal handler.

        A handler may raise before the first line of a callback. httptools notes that as the error's context. But if the
        caller is handling an exception (``handled``), Python overwrites the context: then all that is known is that the
        call was interrupted, as Ctrl-C does it.
        """
        if self._raised is not None:
            return self._raised
        if error.__context__ is None:
            return httpx.RemoteProtocolError("the reply is broken")
        return KeyboardInterrupt() if error.__context__ is handled else error.__context__

    def _parse(self, parser: httptools.HttpResponseParser, data: bytes) -> None:
        if len(data) > 1 and data.endswith((b"\r", b"\n")):
            # llhttp skips line ends behind a reply and doesn't report them. So the last byte is parsed by itself: a
            # reply that is complete before it is followed by something.
            parser.feed_data(data[:-1])
            if self.is_complete:
                self._has_surplus = True
                return
            data = data[-1:]
        parser.feed_data(data)

    def feed_end(self) -> None:
        """Takes note that the server has closed the connection.

        Raises:
            httpx.RemoteProtocolError: The reply is not complete.
        """
        if self.is_complete:
            return
        if not self.has_head:
            raise httpx.RemoteProtocolError("the server closed the connection without a reply")
        if "content-length" in self.headers or "transfer-encoding" in self.headers:
            raise httpx.RemoteProtocolError("the server closed the connection before the end of the body")
        self.is_complete = True  # the end of the connection is the end of such a body

    def _check_bounds(self, received: int, body: int, *, in_head: bool) -> None:
        if in_head:
            self._head_bytes += received - body
            if not self.has_head:  # else the framing of the body is among these bytes
                _check_head_size(self._head_bytes)
            return
        self._framing_bytes += received - body
        if self._framing_bytes > _MAX_FRAMING_BYTES + _FRAMING_PER_BODY_BYTE * self._body_bytes:
            raise httpx.RemoteProtocolError("the chunk headers are far larger than the body")

    # What the parser calls

    @_noted
    def on_message_begin(self) -> None:
        """The first byte of a reply, or of what follows one."""
        if self.is_complete:
            self._has_surplus = True

    @_noted
    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or a trailer behind the body, which is ignored."""
        if self.has_head:
            return
        self._header_bytes += len(name) + len(value) + _HEADER_FRAMING
        _check_head_size(self._header_bytes)
        key, text = name.lower().decode("latin-1"), value.decode("latin-1")
        if key != "transfer-encoding":  # with white space behind it, llhttp may not see that a body is chunked
            text = text.rstrip(" \t")
        self.headers[key] = f"{self.headers[key]}, {text}" if key in self.headers else text

    @_noted
    def on_headers_complete(self) -> None:
        """The end of a head."""
        if self.is_complete or self._parser is None:
            return
        status: int = self._parser.get_status_code()
        if self._parser.get_http_version() not in ("1.0", "1.1") or status < _FIRST_STATUS:
            raise httpx.RemoteProtocolError("the reply isn't HTTP/1.1")
        if status == _SWITCHING_PROTOCOLS:
            raise httpx.RemoteProtocolError("the server switched to another protocol")
        if status < _FIRST_FINAL_STATUS:
            return
        if self.headers.get("transfer-encoding", "chunked").lower() != "chunked":
            raise httpx.RemoteProtocolError("the reply has a transfer encoding that was not requested")
        self.status, self.has_head = status, True

    @_noted
    def on_body(self, chunk: bytes) -> None:
        """A part of the body."""
        if not self.is_complete:
            self._body_bytes += len(chunk)
            self.buffered += len(chunk)
            self._chunks.append(chunk)

    @_noted
    def on_message_complete(self) -> None:
        """The end of a reply, or of an interim one."""
        if self.is_complete or self._parser is None:
            return
        if not self.has_head:  # an interim reply: the final one follows
            self.headers = {}
            return
        self.is_complete = True
        self._keeps_alive = self._parser.should_keep_alive()


def _check_head_size(size: int) -> None:
    if size > MAX_HEAD_BYTES:
        raise httpx.RemoteProtocolError(f"the head of the reply is longer than {MAX_HEAD_BYTES:,} bytes")
