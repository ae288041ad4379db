"""AsyncClient: drives the same flows over a pool of asyncio's connections, or the caller's httpx.AsyncClient."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Iterable
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

import httpx
from typing_extensions import Self, Unpack

from workersai import flows
from workersai._cleanup import start
from workersai._engine.async_driver import AsyncExchange
from workersai._transport.httpx_clients import AsyncHttpxTransport
from workersai.calls import Call, RunOptions
from workersai.flows import Emit, Finished, Flow
from workersai.loops import AsyncTransport, Word, leave, pool_here
from workersai.pools import Pool
from workersai.protocol.request import Input
from workersai.protocol.values import Completion, Delta
from workersai.retrieval.clients import AsyncRetrievalClient

if TYPE_CHECKING:
    from workersai.batch import AsyncBatch, BatchOptions, RequestLike

T = TypeVar("T")


class AsyncClient(AsyncRetrievalClient):
    """Calls Workers AI from asyncio; it takes the arguments of :class:`~workersai.Client`.

    ``http_client="httpx"`` makes calls over httpx's connections, which take more time for each call. Tools that hook
    into httpx, such as vcrpy, need it. Your own client is used as it is.

    Connections belong to their event loop, where all clients share them: at most 1,000 at once, kept for 60 seconds.
    They are closed with the last client that is closed (by ``aclose``, or the end of an ``async with`` block), or with
    the loop. One client serves several ``asyncio.run`` one after the other.
    """

    _http_kind = httpx.AsyncClient
    awaits = True

    async def run(self, model_input: Input, /, **options: Unpack[RunOptions]) -> Completion:
        """The whole answer; see :meth:`workersai.Client.run`."""
        call = self.prepare(model_input, options)
        return await self._pump(call, flows.run(call))

    def stream(self, model_input: Input, /, **options: Unpack[RunOptions]) -> AsyncGenerator[Delta, None]:
        """The answer in pieces; see :meth:`workersai.Client.stream`.

        Leaving early closes the connection when the generator is closed: use ``contextlib.aclosing`` where that must
        not wait for the event loop to notice.
        """
        call = self.prepare(model_input, options, stream=True)
        start()  # as the sync client does, for a stream whose event loop ends before it
        return self._stream(call)

    async def _stream(self, call: Call) -> AsyncGenerator[Delta, None]:
        async with AsyncExchange(await self._pool(), call, flows.stream(call)) as exchange:
            while isinstance(step := await exchange.advance(), Emit):
                for delta in step.deltas:
                    yield delta
                    if call.deadline is not None and exchange.is_late and delta is not step.deltas[-1]:
                        exchange.expire()

    def batch(
        self,
        requests: Iterable[RequestLike] | AsyncIterable[RequestLike] | None = None,
        /,
        **options: Unpack[BatchOptions],
    ) -> AsyncBatch:
        """The results of any number of requests, which may come from an async iterable, too.

        See :meth:`workersai.Client.batch`.
        """
        from workersai.batch import AsyncBatch, job_of  # noqa: PLC0415 - SQLite, for who needs it

        return AsyncBatch(job_of(self, requests, options), () if requests is None else requests, self._pump)

    async def _pump(self, call: Call, flow: Flow[T]) -> T:
        async with AsyncExchange(await self._pool(), call, flow) as exchange:
            end = await exchange.advance()
        assert isinstance(end, Finished)  # noqa: S101 - it emits nothing
        return end.value

    async def aclose(self) -> None:
        """Closes this loop's connection pool if no other client uses it; this one can't be used after that."""
        self._closed = True
        await leave(self)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    @cached_property
    def _given_pool(self) -> Pool[AsyncTransport] | None:
        http = self._given_http_client
        return Pool(AsyncHttpxTransport(http), is_guarded=True) if isinstance(http, httpx.AsyncClient) else None

    async def _pool(self) -> Pool[AsyncTransport]:
        self.check_open()
        if self._given_pool is not None:
            return self._given_pool
        word: Word = "httpx" if self._given_http_client else None
        pool = await pool_here(self, self._pool_key, word)
        if self._closed:  # by another thread in the meantime
            await self.aclose()
            self.check_open()
        return pool
