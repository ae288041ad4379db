"""AsyncClient: pumps the same flows over httpx.AsyncClient."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Coroutine, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

import httpx
from typing_extensions import Self, Unpack

from workersai import flows
from workersai.calls import Call, RunOptions
from workersai.deadline import END_OF_BODY, Deadline
from workersai.errors import APIConnectionError, APITimeoutError, WorkersAIError
from workersai.flows import Drain, Emit, Finished, Flow, HangUp, Pause, Receive, ReceiveAll, Send, Step, Turn, Wait
from workersai.loops import Word, leave, pool_here
from workersai.pools import Pool
from workersai.protocol.reply import ReplyHead
from workersai.protocol.request import Input, Request
from workersai.protocol.values import Completion, Delta
from workersai.retrieval.clients import AsyncRetrievalClient
from workersai.tracing import traced
from workersai.transport import FAILURES, build, check_open, error_from_httpx, head_of, is_plain

if TYPE_CHECKING:
    from anyio import CancelScope

    from workersai.batch import AsyncBatch, BatchOptions, RequestLike

T = TypeVar("T")
T2 = TypeVar("T2")
_NEVER = Deadline(None)


class AsyncClient(AsyncRetrievalClient):
    """Calls Workers AI from asyncio; it takes the arguments of :class:`~workersai.Client`.

    Its connections are aiohttp's, below the API of httpx: httpx's own look through all others at each call, which at
    hundreds of calls at once is most of the work (``benchmarks/RESULTS.md``). The word ``http_client="httpx"`` chooses
    httpx's; a client of your own is used as it is.

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
        return self._stream(call)

    async def _stream(self, call: Call) -> AsyncGenerator[Delta, None]:
        async with _Exchange(await self._pool(), call, flows.stream(call)) as exchange:
            while isinstance(step := await exchange.advance(), Emit):
                for delta in step.deltas:
                    yield delta

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
        async with _Exchange(await self._pool(), call, flow) as exchange:
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

    async def _pool(self) -> Pool[httpx.AsyncClient]:
        self.check_open()
        if self._given_pool is not None:
            return self._given_pool
        word: Word = "httpx" if self._given_http_client else None
        return await pool_here(self, self.settings, self._pool_key, word)


class _Exchange(Generic[T]):
    """The connection side of one call; the twin of the one in ``client.py``, with the same few lines awaited."""

    def __init__(self, pool: Pool[httpx.AsyncClient], call: Call, flow: Flow[T]) -> None:
        self._pool = pool
        self._on_retry = call.on_retry
        self._flow = traced(call, flow)
        self._deadline = call.ends or Deadline(call.deadline)
        self._unguarded = pool.heals and call.deadline is None
        self._response: httpx.Response | None = None
        self._pieces: AsyncIterator[bytes]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._flow.close()
        if self._response is not None:
            await self._whole(self._release())

    async def advance(self) -> Emit | Finished[T]:
        """Does the flow's steps until it has something to hand over, or ends."""
        try:
            step = self._flow.send(None)
            while not isinstance(step, Emit):
                outcome, failure = await self._outcome(step)
                step = self._flow.send(outcome) if failure is None else self._flow.throw(failure)
        except StopIteration as end:
            return Finished(end.value)
        return step

    async def _outcome(self, step: Step) -> tuple[Any, WorkersAIError | None]:
        """What a step gives, or how it failed."""
        if isinstance(step, Wait):
            return await self._wait(step), None  # what it calls is not ours to cancel, or to tell of
        try:
            if self._unguarded and isinstance(step, Receive):  # each piece of most streams: the shortest way
                return await anext(self._pieces, b""), None
            deadline = Deadline(END_OF_BODY) if isinstance(step, Drain) else self._deadline
            return await self._whole(self._do(step), deadline), None
        except FAILURES as error:
            return None, error_from_httpx(error, self._request, closed=self._pool.closed)
        except (APIConnectionError, APITimeoutError) as error:
            return None, error

    async def _whole(self, work: Coroutine[Any, Any, T2], deadline: Deadline = _NEVER) -> T2:
        """Does some I/O within the deadline; cancelled, it gives its connection back."""
        left = deadline.left()
        if not self._pool.heals:
            return await _unbroken(work, deadline)
        if left is None:
            return await work
        with _scope(left):
            return await work
        raise deadline.error()

    async def _do(self, step: Step) -> Any:
        match step:
            case Receive() | Drain():
                return await anext(self._pieces, b"")
            case Send(request):
                return await self._send(request)
            case ReceiveAll():
                return b"".join([piece async for piece in self._pieces])
            case HangUp():
                return await self._release()
            case Turn(limiter):
                await limiter.taken(self._deadline.check_turn)
            case Pause(seconds):
                await self._release()
                await asyncio.sleep(seconds)
        return None

    async def _send(self, request: Request) -> ReplyHead:
        await self._release()
        check_open(self._pool)
        self._request = build(self._pool, request)
        http = self._pool.http
        if not self._pool.ours:
            self._response = await http.send(self._request, stream=True, follow_redirects=False)
        else:
            transport = http._transport_for_url(self._request.url)  # noqa: SLF001 - as in client.py
            self._response = await transport.handle_async_request(self._request)
        stream = self._response.stream
        if self._pool.ours and is_plain(self._response) and isinstance(stream, httpx.AsyncByteStream):
            self._pieces = aiter(stream)
        else:
            self._pieces = self._response.aiter_bytes()
        return head_of(self._response)

    async def _wait(self, step: Wait) -> bool:
        await self._release()
        retry = step.retry
        if not self._deadline.leaves(retry.wait):
            return False
        step.announce()
        told = None if self._on_retry is None else self._on_retry(retry)
        if inspect.isawaitable(told):
            await told
        if not self._deadline.leaves(retry.wait):
            return False
        await asyncio.sleep(retry.wait)
        return True

    async def _release(self) -> None:
        response, self._response = self._response, None
        if response is not None:
            await response.aclose()
            if self._pool.closed and (stream := response.extensions.get("network_stream")):  # as in client.py
                await stream.aclose()


def _scope(seconds: float | None) -> CancelScope:
    """A context that is left after so many seconds."""
    import anyio  # noqa: PLC0415 - only for who has a deadline or plain httpx

    return anyio.move_on_after(seconds)


async def _unbroken(work: Coroutine[Any, Any, T2], deadline: Deadline) -> T2:
    """Does some I/O over httpx's connections, and lets it clean up when it is cancelled, or when the deadline has come.

    httpcore cleans up inside of anyio's shields, which a task's own ``cancel`` passes through: the connection would be
    lost to its pool. So the work has a task of its own, and is cancelled by a scope of anyio's.

    Raises:
        APITimeoutError: the deadline has come.
    """
    scope = _scope(deadline.left())

    async def inside() -> T2 | None:
        with scope:
            return await work
        return None

    task = asyncio.ensure_future(inside())
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
            scope.cancel()
    if cancelled is not None:
        task.exception()  # which nobody asks for any more
        raise cancelled
    result = task.result()
    if scope.cancelled_caught:
        raise deadline.error()
    return cast(T2, result)
