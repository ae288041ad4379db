"""Carries the steps of a flow out for a sync call. ``async_driver.py`` is its counterpart, in the same order.

| | sync | async |
| --- | --- | --- |
| waiting for a permit of the rate limit | the thread waits | the task waits |
| cancelling | a signal handler raises at any line | at an ``await``; httpx's clients are protected from it |
| a stream that is left | its connection is ended without a lock | it ends in a task of its event loop |
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Generic, NoReturn, TypeVar

from typing_extensions import Self

from workersai._cleanup import drain, relieve
from workersai._transport.decoding import BodyDecoder
from workersai._transport.httpx_clients import HttpxReply, HttpxTransport
from workersai._transport.limits import WaitLimit
from workersai._transport.sync_pool import SyncPool, SyncReply
from workersai.calls import Call
from workersai.deadline import END_OF_BODY, Deadline
from workersai.errors import WorkersAIError
from workersai.flows import Drain, Emit, Finished, Flow, HangUp, Pause, Receive, ReceiveAll, Send, Step, Turn, Wait
from workersai.pools import Pool
from workersai.protocol.reply import ReplyHead
from workersai.protocol.request import Request
from workersai.settings import DEFAULT_TIMEOUT
from workersai.tracing import traced
from workersai.transport import FAILURES, check_open, error_from_httpx, new_decoder, read_head

T = TypeVar("T")
SyncTransport = SyncPool | HttpxTransport


class Exchange(Generic[T]):
    """The connection side of one call: does what the flow requests, and lets go of the reply at the end."""

    def __init__(self, pool: Pool[SyncTransport], call: Call, flow: Flow[T]) -> None:
        self._pool = pool
        self._on_retry = call.on_retry
        self._flow = traced(call, flow)
        self._deadline = call.ends or Deadline(call.deadline)
        self._reply: SyncReply | HttpxReply | None = None
        self._request: Request
        self._limit: WaitLimit
        self._decoder: BodyDecoder

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._flow.close()
        if kind is GeneratorExit and self._reply is not None:
            self._reply.abandon()  # maybe a finalizer's doing, at any line of any code: it takes no lock
        else:
            self._release()
            drain()  # what the flow has left, if it was interrupted

    def advance(self) -> Emit | Finished[T]:
        """Does the flow's steps until it has something to hand over, or ends."""
        try:
            step = self._flow.send(None)
            while not isinstance(step, Emit):
                outcome, failure = self._outcome(step)
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

    def _outcome(self, step: Step) -> tuple[Any, WorkersAIError | None]:
        """What a step gives, or how it failed."""
        if isinstance(step, Wait):
            return self._wait(step), None  # what it calls is not ours to tell of
        try:
            return self._do(step), None
        except FAILURES as error:
            failure = error_from_httpx(error, self._request, closed=self._pool.closed)
            return None, self._deadline.error(failure) if self._deadline.passed else failure
        except WorkersAIError as error:
            return None, error

    def _do(self, step: Step) -> Any:
        match step:
            case Receive():
                self._deadline.check()  # before, so that what was received in time is handed over
                return self._receive(self._limit)
            case Drain():
                self._receive(WaitLimit(END_OF_BODY, Deadline(END_OF_BODY)))
            case Send(request):
                head = self._send(request)
                self._deadline.check()
                return head
            case ReceiveAll():
                return b"".join(self._all_chunks())
            case HangUp():
                self._release()
            case Turn(limiter):
                limiter.take(self._deadline.check_turn)
            case Pause(seconds):
                self._release()
                time.sleep(seconds)
        return None

    def _send(self, request: Request) -> ReplyHead:
        self._release()
        check_open(self._pool)
        relieve()
        self._request = request
        self._limit = WaitLimit(request.timeout or DEFAULT_TIMEOUT, self._deadline)
        self._reply = self._pool.transport.new_reply()  # kept first, so that whatever interrupts this closes it
        self._reply.request(request, self._limit)
        head = read_head(self._reply)
        self._decoder = new_decoder(head, request)
        return head

    def _receive(self, limit: WaitLimit) -> bytes:
        """The next decoded bytes of the body, empty at its end."""
        decoder, reply = self._decoder, self._reply
        decoded = decoder.take()
        while not decoded and reply is not None:
            received = reply.read(limit)
            if not received:
                decoder.check_end()
                break
            decoded = decoder.feed(received)
        return decoded

    def _all_chunks(self) -> Iterator[bytes]:
        while chunk := self._receive(self._limit):
            self._deadline.check()
            yield chunk

    def _wait(self, step: Wait) -> bool:
        self._release()
        retry = step.retry
        if not self._deadline.leaves(retry.wait):
            return False
        step.announce()
        if self._on_retry is not None:
            self._on_retry(retry)
        if not self._deadline.leaves(retry.wait):
            return False
        time.sleep(retry.wait)
        return True

    def _release(self) -> None:
        reply, self._reply = self._reply, None
        if reply is not None:
            reply.close()
