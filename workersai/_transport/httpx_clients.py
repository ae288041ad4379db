"""The caller's own httpx clients, and ``http_client="httpx"``, behind the interface of our pools.

They are used in httpx's full way, since they may have hooks, cookies, an auth or defaults. Only the raw bytes of a body
are read, so that its decompression is bounded as everywhere.
"""

from __future__ import annotations

import contextlib
import os
import socket
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import Any, ClassVar, Protocol

import httpx
from pydantic import SecretStr

from workersai._cleanup import submit
from workersai._transport.limits import MAX_CONNECT_SECONDS, WaitLimit
from workersai.protocol.request import Request
from workersai.settings import DEFAULT_TIMEOUT

_HTTPX_DEFAULT = httpx.Timeout(5)  # too short for a model's answer: taken as "no timeout was chosen"
_SHORTEST_WAIT = 0.001  # seconds


def new_timeout(seconds: float) -> httpx.Timeout:
    """The timeouts of an attempt. Waiting for a free connection isn't limited: the service has no part in it."""
    return httpx.Timeout(seconds, connect=min(seconds, MAX_CONNECT_SECONDS), pool=None)


def reveal(secret: SecretStr) -> str:
    """The secret itself: a client of the caller's own is given what it has to send."""
    return secret.get_secret_value()


def build_request(
    http: httpx.Client | httpx.AsyncClient,
    request: Request,
    left: float | None,
    hide: Callable[[SecretStr], str] = reveal,
) -> httpx.Request:
    """The request as httpx sends it; ``hide`` says what stands for its secrets.

    Without a timeout of the call, the client's own holds if one was chosen. ``left`` are the seconds until the
    deadline; no wait may begin with a longer timeout.
    """
    seconds = request.timeout
    if seconds is None and http.timeout == _HTTPX_DEFAULT:
        seconds = DEFAULT_TIMEOUT
    chosen: dict[str, Any] = {} if seconds is None else {"timeout": new_timeout(seconds).as_dict()}
    headers = [
        (name, hide(value) if isinstance(value, SecretStr) else value) for name, value in request.headers.items()
    ]
    built = http.build_request(
        request.method,
        request.url,
        headers=httpx.Headers([*headers, ("accept-encoding", "gzip, deflate")]),
        content=request.content,
        extensions=chosen,
    )
    if left is not None:
        longest = max(left, _SHORTEST_WAIT)
        waits: dict[str, float | None] = built.extensions["timeout"]
        built.extensions["timeout"] = {name: min(wait or longest, longest) for name, wait in waits.items()}
    return built


class Placeholder(Protocol):
    """Stands for a secret in a request, as long as it is held."""

    text: str


class HttpxTransport:
    """Sends requests through an ``httpx.Client``."""

    def __init__(self, http: httpx.Client) -> None:
        self.http = http
        self.closed = False

    def new_reply(self) -> HttpxReply:
        """A reply that is still to be requested."""
        return HttpxReply(self)

    def close(self) -> None:
        """Closes the client."""
        self.closed = True
        self.http.close()


class _OpenResponse:
    """A response that is being read, which no garbage collector may end: its generators take the lock of httpx's pool.

    It is kept in a set of its own. When its reply goes away without closing it, the clean-up thread does.
    """

    _all: ClassVar[set[_OpenResponse]] = set()

    def __init__(self, owner: HttpxReply, response: httpx.Response) -> None:
        self.response = response
        self.chunks: Iterator[bytes] = iter(())
        self._process = os.getpid()
        self._owner: Any = weakref.ref(owner, self._close_later)
        self._all.add(self)

    def _close_later(self, _: object) -> None:
        submit(self.close)

    def interrupt(self) -> None:
        """Ends the connection, which takes no lock; the rest is left to the clean-up thread."""
        stream = self.response.extensions.get("network_stream")
        connected = None if stream is None else stream.get_extra_info("socket")
        if isinstance(connected, socket.socket) and self._process == os.getpid():  # else it is the parent's
            with contextlib.suppress(OSError):  # it has ended already
                socket.socket.shutdown(connected, socket.SHUT_RDWR)
        submit(self.close)

    def close(self) -> None:
        """Gives the connection back to the client's pool."""
        self._owner = None
        self.response.close()
        self._all.discard(self)


class HttpxReply:
    """A request's reply, over an ``httpx.Client``.

    Attributes:
        status: The HTTP status.
        headers: The headers.
    """

    def __init__(self, transport: HttpxTransport) -> None:
        self._transport = transport
        self._open: _OpenResponse | None = None
        self.status = 0
        self.headers = httpx.Headers()

    def request(self, request: Request, limit: WaitLimit) -> None:
        """Sends a request and reads the head of the reply.

        Raises:
            httpx.HTTPError: There is no reply.
        """
        http = self._transport.http
        built = build_request(http, request, limit.deadline.left())
        response = http.send(built, stream=True, follow_redirects=False)
        self._open = _OpenResponse(self, response)
        self.status, self.headers = response.status_code, response.headers
        if response.is_stream_consumed:  # by the client's own transport or hooks, which decoded it
            self._open.chunks, self.headers = iter((response.content,)), _without_encoding(response)
        else:
            self._open.chunks = response.iter_raw()

    def read(self, limit: WaitLimit) -> bytes:
        """The next chunk of the body as it was sent, empty at the end.

        Raises:
            httpx.HTTPError: It can't be read.
        """
        if limit.deadline.passed:
            raise httpx.ReadTimeout("timed out")
        return b"" if self._open is None else next(self._open.chunks, b"")

    def close(self) -> None:
        """Gives the connection back to the client's pool."""
        opened, self._open = self._open, None
        if opened is not None:
            opened.close()

    def abandon(self) -> None:
        """Ends the connection without the client's pool, whose lock the interrupted code may hold."""
        opened, self._open = self._open, None
        if opened is not None:
            opened.interrupt()


class AsyncHttpxTransport:
    """Sends requests through an ``httpx.AsyncClient``.

    Args:
        http: The client.
        new_placeholder: What makes something that stands for a secret in a request, if the client replaces it.
    """

    def __init__(
        self, http: httpx.AsyncClient, new_placeholder: Callable[[SecretStr], Placeholder] | None = None
    ) -> None:
        self.http = http
        self.new_placeholder = new_placeholder
        self.closed = False

    def new_reply(self) -> AsyncHttpxReply:
        """A reply that is still to be requested."""
        return AsyncHttpxReply(self)

    async def aclose(self) -> None:
        """Closes the client."""
        self.closed = True
        await self.http.aclose()


class AsyncHttpxReply:
    """A request's reply, over an ``httpx.AsyncClient``.

    Attributes:
        status: The HTTP status.
        headers: The headers.
    """

    def __init__(self, transport: AsyncHttpxTransport) -> None:
        self._transport = transport
        self._response: httpx.Response | None = None
        self._chunks: AsyncIterator[bytes]
        self.status = 0
        self.headers = httpx.Headers()

    async def request(self, request: Request, limit: WaitLimit) -> None:
        """Sends a request and reads the head of the reply.

        Raises:
            httpx.HTTPError: There is no reply.
        """
        http, placeholders = self._transport.http, list[Placeholder]()
        built = build_request(http, request, limit.deadline.left(), partial(self._hide, placeholders))
        self._response = response = await http.send(built, stream=True, follow_redirects=False)
        self.status, self.headers = response.status_code, response.headers
        if response.is_stream_consumed:  # by the client's own transport or hooks, which decoded it
            self._chunks, self.headers = _one_chunk(response.content), _without_encoding(response)
        else:
            self._chunks = response.aiter_raw()

    def _hide(self, placeholders: list[Placeholder], secret: SecretStr) -> str:
        if self._transport.new_placeholder is None:
            return reveal(secret)
        placeholders.append(self._transport.new_placeholder(secret))
        return placeholders[-1].text

    async def read(self, limit: WaitLimit) -> bytes:
        """The next chunk of the body as it was sent, empty at the end.

        Raises:
            httpx.HTTPError: It can't be read.
        """
        if limit.deadline.passed:
            raise httpx.ReadTimeout("timed out")
        return await anext(self._chunks, b"")

    async def aclose(self) -> None:
        """Gives the connection back to the client's pool."""
        response, self._response = self._response, None
        if response is None:
            return
        await response.aclose()
        stream = response.extensions.get("network_stream")
        if self._transport.closed and stream is not None:  # a closed pool has forgotten its connections
            await stream.aclose()


async def _one_chunk(content: bytes) -> AsyncIterator[bytes]:
    yield content


def _without_encoding(response: httpx.Response) -> httpx.Headers:
    return httpx.Headers([item for item in response.headers.multi_items() if item[0] != "content-encoding"])
