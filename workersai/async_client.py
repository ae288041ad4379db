"""AsyncClient: pumps the same flows over httpx.AsyncClient."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from types import TracebackType
from typing import Any, Generic, TypeVar, cast

import anyio
import httpx
from typing_extensions import Self, Unpack

from workersai import flows
from workersai.calls import BaseClient, Call, RunOptions
from workersai.deadline import END_OF_BODY, Deadline
from workersai.errors import APITimeoutError, WorkersAIError
from workersai.flows import Drain, Emit, Finished, Flow, HangUp, Receive, ReceiveAll, Send, Step, Turn, Wait
from workersai.pacing import Limiter
from workersai.protocol.reply import ReplyHead
from workersai.protocol.request import Input, Request
from workersai.protocol.values import Completion, Delta
from workersai.settings import Settings
from workersai.transport import FAILURES, POOL_LOCK, build, error_from_httpx, head_of, new_pool

T = TypeVar("T")


class AsyncClient(BaseClient[httpx.AsyncClient]):
    """Calls Workers AI from asyncio; it takes the arguments of :class:`~workersai.Client`.

    A connection pool belongs to its event loop: the client makes one for each loop that it is used on, on first use,
    so that one client serves several ``asyncio.run`` one after the other. A pool is closed with its loop, by
    ``aclose``, or by the end of an ``async with`` block.
    """

    _http_kind = httpx.AsyncClient
    _awaits = True

    @property
    def _pools(self) -> _Pools:
        # Made on first use, since an unpickled client has none; setdefault gives two threads at once the same.
        pools: _Pools = self.__dict__.get("_loops") or self.__dict__.setdefault("_loops", _Pools(self.settings))
        return pools

    async def run(self, model_input: Input, /, **options: Unpack[RunOptions]) -> Completion:
        """The whole answer; see :meth:`workersai.Client.run`."""
        call = self._prepare(model_input, options)
        async with _Exchange(await self._pool(), call, flows.run(call)) as exchange:
            end = await exchange.advance()
        assert isinstance(end, Finished)  # noqa: S101 - a run emits nothing
        return end.value

    def stream(self, model_input: Input, /, **options: Unpack[RunOptions]) -> AsyncGenerator[Delta, None]:
        """The answer in pieces; see :meth:`workersai.Client.stream`.

        Leaving early closes the connection when the generator is closed: use ``contextlib.aclosing`` where that must
        not wait for the event loop to notice.
        """
        call = self._prepare(model_input, options, stream=True)
        return self._stream(call)

    async def _stream(self, call: Call) -> AsyncGenerator[Delta, None]:
        async with _Exchange(await self._pool(), call, flows.stream(call)) as exchange:
            while isinstance(step := await exchange.advance(), Emit):
                for delta in step.deltas:
                    yield delta

    async def aclose(self) -> None:
        """Closes the connection pool of this event loop; the client can't be used after that."""
        self._closed = True
        await self._pools.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _pool(self) -> httpx.AsyncClient:
        self._check_open()
        return self._given_http_client or await self._pools.get()


class _Pools:
    """A connection pool for each event loop."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._by_loop: dict[asyncio.AbstractEventLoop, tuple[httpx.AsyncClient, AsyncGenerator[None, None]]] = {}

    async def get(self) -> httpx.AsyncClient:
        """The running loop's pool, made where there is none yet."""
        loop = asyncio.get_running_loop()
        with POOL_LOCK:  # loops run in threads of their own
            pool = self._by_loop.get(loop)
            if pool is not None:
                return pool[0]
            self._by_loop = {known: pool for known, pool in self._by_loop.items() if not known.is_closed()}
            http = new_pool(httpx.AsyncClient, self._settings)
            keeper = _keep_open(http)
            self._by_loop[loop] = http, keeper
        await anext(keeper)
        return http

    async def aclose(self) -> None:
        """Closes the running loop's pool and forgets the others, whose loops close them."""
        with POOL_LOCK:
            _, keeper = self._by_loop.pop(asyncio.get_running_loop(), (None, None))
            self._by_loop = {}
        if keeper is not None:
            await keeper.aclose()


async def _keep_open(http: httpx.AsyncClient) -> AsyncGenerator[None, None]:
    """Closes the pool when its loop ends: a loop closes the generators that are still open on it, just before."""
    try:
        yield
    finally:
        await http.aclose()


class _Exchange(Generic[T]):
    """The connection side of one call; the twin of the one in ``client.py``, with the same few lines awaited."""

    def __init__(self, http: httpx.AsyncClient, call: Call, flow: Flow[T]) -> None:
        self._http = http
        self._on_retry = call.on_retry
        self._flow = flow
        self._deadline = Deadline(call.deadline)
        self._response: httpx.Response | None = None
        self._pieces: AsyncIterator[bytes]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._flow.close()
        if self._response is not None and not self._response.is_closed:
            await _unbroken(self._release())

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
            deadline = Deadline(END_OF_BODY) if isinstance(step, Drain) else self._deadline
            return await _unbroken(self._do(step), deadline), None
        except FAILURES as error:
            return None, error_from_httpx(error)
        except APITimeoutError as error:
            return None, error

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
                await self._take(limiter)
        return None

    async def _send(self, request: Request) -> ReplyHead:
        await self._release()
        self._response = await self._http.send(build(self._http, request), stream=True, follow_redirects=False)
        self._pieces = self._response.aiter_bytes()
        return head_of(self._response)

    async def _take(self, limiter: Limiter) -> None:
        moved_up, loop = asyncio.Event(), asyncio.get_running_loop()

        def wake() -> None:
            with contextlib.suppress(RuntimeError):  # its loop was closed, and it with it
                loop.call_soon_threadsafe(moved_up.set)

        with limiter.turn(wake) as turn:
            self._deadline.check_turn(turn.seconds())
            while seconds := turn.seconds():
                with anyio.move_on_after(seconds):
                    await moved_up.wait()
                moved_up.clear()

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


async def _unbroken(work: Coroutine[Any, Any, T], deadline: Deadline | None = None) -> T:
    """Does some I/O, and lets it clean up when it is cancelled, or when the deadline has come.

    httpcore cleans up inside of anyio's shields, which a task's own ``cancel`` passes through: the connection would be
    lost to its pool. So the work has a task of its own, and is cancelled by a scope of anyio's.

    Raises:
        APITimeoutError: the deadline has come.
    """
    scope = anyio.move_on_after(None if deadline is None else deadline.left())

    async def inside() -> T | None:
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
    if scope.cancelled_caught and deadline is not None:
        raise deadline.error()
    return cast(T, result)
