"""The floors below a framework: httpx and nothing else, or nothing at all."""

from __future__ import annotations

import importlib
from collections.abc import AsyncIterator, Iterator
from itertools import repeat
from typing import Any, Protocol

MODEL = "@cf/meta/llama-3.3-70b-instruct-fp8-fast"
ACCOUNT, TOKEN = "a" * 32, "t" * 40
_EVENT_END = b"\n\n"


class Below(Protocol):
    """What an idle model asks before it answers with a text of its own."""

    def call(self, prompt: str) -> Any:
        """Waits for a whole answer."""

    async def acall(self, prompt: str) -> Any:
        """The same, async."""

    def stream(self, prompt: str) -> Iterator[bytes]:
        """The bytes of a stream as they come."""

    def astream(self, prompt: str) -> AsyncIterator[bytes]:
        """The same, async."""


def pieces_in(data: bytes) -> range:
    """A number for each event that ends in these bytes."""
    return range(data.count(_EVENT_END))


class Air:
    """Answers at once, as if nobody had to be asked."""

    def __init__(self, pieces: int) -> None:
        self._pieces = pieces

    def call(self, prompt: str) -> None:
        """Nothing."""

    async def acall(self, prompt: str) -> None:
        """Nothing."""

    def stream(self, prompt: str) -> Iterator[bytes]:
        """The ends of so many events."""
        return repeat(_EVENT_END, self._pieces)

    async def astream(self, prompt: str) -> AsyncIterator[bytes]:
        """The ends of so many events."""
        for _ in range(self._pieces):
            yield _EVENT_END


class Wire:
    """httpx: the body is read, and that of a whole answer is JSON. Async calls may run on aiohttp's connections."""

    def __init__(self, address: str, pieces: int, *, on_aiohttp: bool) -> None:
        self._url = f"{address}/accounts/{ACCOUNT}/ai/run/{MODEL}"
        self._pieces = pieces
        self._on_aiohttp = on_aiohttp
        self._sync: Any = None
        self._async: Any = None

    def _request(self, prompt: str, *, stream: bool) -> dict[str, Any]:
        body = {"messages": [{"role": "user", "content": prompt}], "max_tokens": self._pieces, "stream": stream}
        return {"method": "POST", "url": self._url, "json": body, "headers": {"Authorization": f"Bearer {TOKEN}"}}

    @property
    def _http(self) -> Any:
        if self._sync is None:
            self._sync = importlib.import_module("httpx").Client(timeout=120)
        return self._sync

    @property
    def _ahttp(self) -> Any:
        if self._async is None:
            httpx = importlib.import_module("httpx")
            kind = httpx.AsyncClient
            if self._on_aiohttp:
                kind = importlib.import_module("httpx_aiohttp").HttpxAiohttpClient
            limits = httpx.Limits(max_connections=1_000)
            self._async = kind(timeout=httpx.Timeout(120, pool=None), limits=limits)
        return self._async

    def call(self, prompt: str) -> Any:
        """The JSON of a whole answer."""
        return self._http.request(**self._request(prompt, stream=False)).json()

    async def acall(self, prompt: str) -> Any:
        """The same, async."""
        return (await self._ahttp.request(**self._request(prompt, stream=False))).json()

    def stream(self, prompt: str) -> Iterator[bytes]:
        """What httpx reads, as it reads it."""
        with self._http.stream(**self._request(prompt, stream=True)) as response:
            yield from response.iter_bytes()

    async def astream(self, prompt: str) -> AsyncIterator[bytes]:
        """The same, async."""
        async with self._ahttp.stream(**self._request(prompt, stream=True)) as response:
            async for data in response.aiter_bytes():
                yield data
