"""httpx's async client on the connections of aiohttp."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import anyio
import httpx
from aiohttp.client_proto import ResponseHandler
from httpx_aiohttp import AiohttpTransport, HttpxAiohttpClient
from typing_extensions import override

from workersai.pools import Pool, new_client
from workersai.settings import Settings

_SLICE = 65_536  # bytes
_LONGEST_HEADER = 65_536  # bytes; a gateway's or a policy's may be longer than aiohttp's own 8,190


def new_pool(settings: Settings) -> Pool[httpx.AsyncClient]:
    """Connections of aiohttp's, for the running event loop."""
    http = new_client(_Client, settings)
    return Pool(http, ours=True, heals=http.heals, let_go=http.let_go)


class _Client(HttpxAiohttpClient):
    """A client each connection of which is aiohttp's; SOCKS proxies, which that has none of, are httpx's.

    ``heals`` is whether all of its connections survive the cancelling of a task, which httpx's may not.
    """

    heals = True

    @override
    def _init_transport(
        self, *args: Any, transport: httpx.AsyncBaseTransport | None = None, **settings: Any
    ) -> httpx.AsyncBaseTransport:
        return transport or _Transport(*args, **settings)

    @override
    def _init_proxy_transport(self, proxy: httpx.Proxy, *args: Any, **settings: Any) -> httpx.AsyncBaseTransport:
        if proxy.url.scheme.startswith("socks"):
            self.heals = False
            return super(HttpxAiohttpClient, self)._init_proxy_transport(proxy, *args, **settings)
        transport = _Transport(*args, **settings)
        transport.proxy = proxy
        return transport

    def let_go(self) -> None:
        """Forgets the connections of an event loop that is no more, without aiohttp's complaint on stderr."""
        for transport in (self._transport, *self._mounts.values()):
            if isinstance(transport, _Transport) and isinstance(transport.client, aiohttp.ClientSession):
                transport.client.detach()


class _Connector(aiohttp.TCPConnector):
    @override
    def _release(self, key: Any, protocol: Any, *, should_close: bool = False) -> None:
        """Breaks off a connection that is given up: an orderly end would wait for the other side, maybe for ever."""
        if should_close or protocol.should_close:
            protocol.abort()
        super()._release(key, protocol, should_close=should_close)

    @override
    def close(self, **how: Any) -> Any:
        """Closes it, and breaks off what is under way first: aiohttp would let readers wait for ever."""
        for protocol in [each for each in self._acquired if isinstance(each, ResponseHandler)]:
            self._acquired.discard(protocol)  # whose own way of closing forgets who reads it
            if protocol.transport is not None:
                protocol.transport.abort()
        return super().close(**how)

    @override
    def __del__(self, *_: Any) -> None:
        """Without a word; a loop that ends as it should has closed it before."""


class _Transport(AiohttpTransport):
    @override
    def get_client(self) -> aiohttp.ClientSession:
        connector = _Connector(
            limit=self.limits.max_connections or 0,
            keepalive_timeout=self.limits.keepalive_expiry,
            ssl=self.ssl_context,
        )
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),  # cookies would tie calls to each other
            max_field_size=_LONGEST_HEADER,
        )

    @override
    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        try:
            if len(request.content) <= _SLICE:  # which the socket takes at once
                return await super().handle_async_request(request)
            return await self._sent_in_slices(request)
        except aiohttp.ClientError as error:  # which is not translated: a reply that is no HTTP
            told = " ".join(str(getattr(error, "message", error)).split())
            raise httpx.RemoteProtocolError(told, request=request) from error
        except asyncio.CancelledError:
            if self._is_closed_under(asyncio.current_task()):
                raise httpx.ConnectError("the client was closed", request=request) from None
            raise

    def _is_closed_under(self, task: Any) -> bool:
        """Whether a task is not cancelled itself: aiohttp, when it is closed, cancels what tasks wait for."""
        closed = isinstance(self.client, aiohttp.ClientSession) and self.client.closed
        cancelling = getattr(task, "cancelling", None)  # Python 3.10 has none: there it can't be told
        return closed and cancelling is not None and not cancelling()

    async def _sent_in_slices(self, request: httpx.Request) -> httpx.Response:
        """Sends a long body, each slice of it within httpx's timeout for writing, which aiohttp doesn't have."""
        scope = anyio.move_on_after(None)
        body = _Slices(request.content, scope, request.extensions["timeout"]["write"])
        sliced = httpx.Request(
            request.method, request.url, headers=request.headers, stream=body, extensions=request.extensions
        )
        with scope:
            return await super().handle_async_request(sliced)
        raise httpx.WriteTimeout("", request=request)


class _Slices(httpx.AsyncByteStream):
    """A body in slices; a scope ends where one of them takes too long."""

    def __init__(self, content: bytes, scope: anyio.CancelScope, seconds: float | None) -> None:
        self._content = content
        self._scope = scope
        self._seconds = math.inf if seconds is None else seconds

    @override
    async def __aiter__(self) -> AsyncIterator[bytes]:
        for start in range(0, len(self._content), _SLICE):
            self._scope.deadline = anyio.current_time() + self._seconds
            yield self._content[start : start + _SLICE]
        self._scope.deadline = math.inf
