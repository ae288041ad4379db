"""Carries the steps of a flow out for an async call; the table in ``sync_driver.py`` says what differs."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Coroutine
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar, cast

from typing_extensions import Self

from workersai._cleanup import drain
from workersai._transport.async_pool import AsyncReply
from workersai._transport.decoding import BodyDecoder
from workersai._transport.httpx_clients import AsyncHttpxReply
from workersai._transport.limits import WaitLimit
from workersai.calls import Call
from workersai.deadline import END_OF_BODY, Deadline
from workersai.errors import WorkersAIError
from workersai.flows import Drain, Emit, Finished, Flow, HangUp, Pause, Receive, ReceiveAll, Send, Step, Turn, Wait
from workersai.loops import AsyncTransport
from workersai.pools import Pool
from workersai.protocol.reply import ReplyHead
from workersai.protocol.request import Request
from workersai.settings import DEFAULT_TIMEOUT
from workersai.tracing import traced
from workersai.transport import FAILURES, check_open, error_from_httpx, new_decoder, read_head

if TYPE_CHECKING:
    from anyio import CancelScope

T = TypeVar("T")
T2 = TypeVar("T2")
_NEVER = Deadline(None)


class AsyncExchange(Generic[T]):
    """The connection side of one call: the counterpart of ``Exchange``, with the same few lines awaited."""

    def __init__(self, pool: Pool[AsyncTransport], call: Call, flow: Flow[T]) -> None:
        self._pool = pool
        self._on_retry = call.on_retry
        self._flow = traced(call, flow)
        self._deadline = call.ends or Deadline(call.deadline)
        self._reply: AsyncReply | AsyncHttpxReply | None = None
        self._request: Request
        self._limit: WaitLimit
        self._decoder: BodyDecoder

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._flow.close()
        if self._reply is not None:
            await self._guard(self._release())
        drain()  # what the flow has left, if it was interrupted

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

    @property
    def is_late(self) -> bool:
        """Whether the deadline has passed, for what hands the deltas of a stream over."""
        return self._deadline.passed

    def expire(self) -> NoReturn:
        """Ends a stream whose reader took longer than the deadline.

        Raises:
            APITimeoutError: Always; its ``partial`` holds all that was received.
        """
        self._flow.throw(self._deadline.error())
        raise self._deadline.error()

    async def _outcome(self, step: Step) -> tuple[Any, WorkersAIError | None]:
        """What a step gives, or how it failed."""
        if isinstance(step, Wait):
            return await self._wait(step), None  # what it calls is not ours to cancel, or to tell of
        try:
            if not self._pool.is_guarded:
                return await self._do(step), None
            deadline = Deadline(END_OF_BODY) if isinstance(step, Drain) else self._deadline
            return await self._guard(self._do(step), deadline), None
        except FAILURES as error:
            failure = error_from_httpx(error, self._request, closed=self._pool.closed)
            return None, self._deadline.error(failure) if self._deadline.passed else failure
        except WorkersAIError as error:
            return None, error

    async def _guard(self, work: Coroutine[Any, Any, T2], deadline: Deadline = _NEVER) -> T2:
        """Does some I/O; httpx's clients are protected from being cancelled during it."""
        return await (_unbroken(work, deadline) if self._pool.is_guarded else work)

    async def _do(self, step: Step) -> Any:
        match step:
            case Receive():
                self._deadline.check()  # before, so that what was received in time is handed over
                return await self._receive(self._limit)
            case Drain():
                await self._receive(WaitLimit(END_OF_BODY, Deadline(END_OF_BODY)))
            case Send(request):
                head = await self._send(request)
                self._deadline.check()
                return head
            case ReceiveAll():
                return b"".join([chunk async for chunk in self._all_chunks()])
            case HangUp():
                await self._release()
            case Turn(limiter):
                await self._in_time(limiter.taken(self._deadline.check_turn))
            case Pause(seconds):
                await self._release()
                await self._in_time(asyncio.sleep(seconds))
        return None

    async def _in_time(self, work: Coroutine[Any, Any, T2]) -> T2:
        """Does what waits for something other than the service, until the deadline."""
        left = self._deadline.left()
        if left is None:
            return await work
        with _scope(left):
            return await work
        raise self._deadline.error()

    async def _send(self, request: Request) -> ReplyHead:
        await self._release()
        check_open(self._pool)
        self._request = request
        self._limit = WaitLimit(request.timeout or DEFAULT_TIMEOUT, self._deadline)
        self._reply = self._pool.transport.new_reply()  # kept first, so that whatever interrupts this closes it
        await self._reply.request(request, self._limit)
        head = read_head(self._reply)
        self._decoder = new_decoder(head, request)
        return head

    async def _receive(self, limit: WaitLimit) -> bytes:
        """The next decoded bytes of the body, empty at its end."""
        decoder, reply = self._decoder, self._reply
        decoded = decoder.take()
        while not decoded and reply is not None:
            received = await reply.read(limit)
            if not received:
                decoder.check_end()
                break
            decoded = decoder.feed(received)
        return decoded

    async def _all_chunks(self) -> AsyncIterator[bytes]:
        while chunk := await self._receive(self._limit):
            self._deadline.check()
            yield chunk

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
        reply, self._reply = self._reply, None
        if reply is not None:
            await reply.aclose()


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
