"""llama.cpp as the engine uses it: an HTTP API that is there when it is called, also after a crash."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from workersai.local.engine import EngineError
from workersai.local.llama_process import LlamaProcess

logger = logging.getLogger("workersai.local")


@dataclass(frozen=True)
class _Running:
    """A running process, the client of its HTTP API, and the tokens that it reads at most."""

    process: LlamaProcess
    http: httpx.AsyncClient
    window: int

    async def close(self) -> None:
        await self.http.aclose()
        await asyncio.to_thread(self.process.stop)


class Llama:
    """llama.cpp in a process of its own, which is started for the first call, and again after a crash.

    Args:
        load: Starts the process and returns once it answers. It is called in a thread.
        key: The key of the process's HTTP API.
    """

    def __init__(self, load: Callable[[], LlamaProcess], key: str) -> None:
        self._load = load
        self._key = key
        self._now: _Running | None = None
        # Callers share one start, and none of them takes it along when it leaves.
        self._start: asyncio.Future[_Running] | None = None

    @property
    def process(self) -> LlamaProcess | None:
        """The process; None while there is none."""
        return None if self._now is None else self._now.process

    async def window(self) -> int:
        """The tokens that one slot reads at most. Starts the process, if there is none.

        Raises:
            EngineError: it can't be started.
            ImportError: a library is missing.
        """
        return (await self._running()).window

    async def post(self, path: str, body: Mapping[str, Any], *, patience: float | None = None) -> httpx.Response:
        """Sends one request, and returns the reply.

        Raises:
            EngineError: llama.cpp can't be started, or crashed.
            TimeoutError: there was no reply within ``patience`` seconds. Since llama.cpp does one thing at a time, and
                all others would wait, too, its process is killed.
        """
        running = await self._running()
        try:
            async with _crash_explained(running):
                return await running.http.post(path, json=body, timeout=patience)
        except httpx.TimeoutException:
            await asyncio.to_thread(running.process.kill)
            raise TimeoutError(f"llama.cpp gave no reply within {patience} seconds.") from None

    @asynccontextmanager
    async def stream(self, path: str, body: Mapping[str, Any]) -> AsyncIterator[httpx.Response]:
        """Sends one request, and opens the reply.

        Raises:
            EngineError: as from :meth:`post`, also while the reply is read.
        """
        running = await self._running()
        async with _crash_explained(running), running.http.stream("POST", path, json=body) as response:
            yield response

    async def close(self) -> None:
        """Ends the process."""
        if self._start is not None:
            await asyncio.wait({self._start})
        if self._now is not None:
            running, self._now = self._now, None
            await running.close()

    async def _running(self) -> _Running:
        if self._now is not None and self._now.process.crash is None:
            return self._now
        if self._start is None:
            self._start = asyncio.ensure_future(self._started())
            self._start.add_done_callback(self._forget_start)
        return await asyncio.shield(self._start)

    def _forget_start(self, start: asyncio.Future[_Running]) -> None:
        self._start = None
        if not start.cancelled():
            start.exception()  # whoever still waits for it raises it

    async def _started(self) -> _Running:
        if self._now is not None:
            logger.warning("llama.cpp crashed (%s) and is started again.", self._now.process.crash)
            crashed, self._now = self._now, None
            await crashed.close()
        process = await asyncio.to_thread(self._load)
        http = httpx.AsyncClient(
            base_url=process.address,
            headers={"authorization": f"Bearer {self._key}"},
            timeout=None,  # noqa: S113 - a model may take its time; the caller's patience is the limit
            trust_env=False,
        )
        properties = (await http.get("/props")).json()
        self._now = _Running(process, http, properties["default_generation_settings"]["n_ctx"])
        return self._now


@asynccontextmanager
async def _crash_explained(running: _Running) -> AsyncIterator[None]:
    """Turns a connection that llama.cpp has lost into an error that says why."""
    try:
        yield
    except httpx.TimeoutException:
        raise
    except httpx.TransportError as error:
        ended = await asyncio.to_thread(running.process.wait_for_crash)
        why = f"its process ended ({ended})" if ended else f"the connection to it was lost ({error!r})"
        raise EngineError(f"llama.cpp did not answer: {why}. Try again: the next request starts it anew.") from error
