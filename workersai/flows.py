"""A run and a stream, each written once: a generator that yields what it needs done and is sent the outcome.

Nothing here opens, reads or waits. A client pumps a flow (``client.py``, ``async_client.py``): it does each step in
its own way, sends the outcome in, and throws in what failed. Retries and deadlines are decided here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, NoReturn, Protocol, TypeVar

from workersai.billing import Meter
from workersai.calls import Call
from workersai.errors import APIConnectionError, APITimeoutError, ServerError, WorkersAIError
from workersai.pacing import Limiter
from workersai.protocol.deltas import deltas_of
from workersai.protocol.reasoning import require_answer
from workersai.protocol.reply import ReplyHead, completion_from_body, error_from_body
from workersai.protocol.request import Request, without_stream
from workersai.protocol.stream import StreamReader
from workersai.protocol.values import Completion, Delta, Usage
from workersai.retries import Retry, backoff

logger = logging.getLogger("workersai")


@dataclass(frozen=True)
class Send:
    """Send the request; the outcome is the :class:`ReplyHead`, the body is left to be read."""

    request: Request


@dataclass(frozen=True)
class Receive:
    """Read the next piece of the body; the outcome is its bytes, none at the end."""


@dataclass(frozen=True)
class Drain:
    """Read the end of a body of which nothing is awaited any more, and only if it comes at once."""


@dataclass(frozen=True)
class ReceiveAll:
    """Read the whole body; the outcome is its bytes."""


@dataclass(frozen=True)
class HangUp:
    """Close the connection early, so that the model stops generating tokens that are paid for."""


@dataclass(frozen=True)
class Turn:
    """Wait for a turn, so that a rate limit is kept."""

    limiter: Limiter


@dataclass(frozen=True)
class Wait:
    """Announce a retry, tell of it, and let its wait pass; the outcome is whether the deadline leaves time for it."""

    retry: Retry
    most: int

    def announce(self) -> None:
        """Says in the log that it comes."""
        retry = self.retry
        logger.info("Trying again in %.2f s (%d of %d): %s", retry.wait, retry.attempt, self.most, retry.error)


@dataclass(frozen=True)
class Pause:
    """Let so many seconds pass: what is asked for takes its time."""

    seconds: float


@dataclass(slots=True)  # not frozen, which would take twice the time: each piece of a stream makes one
class Emit:
    """Hand these deltas to the caller."""

    deltas: Sequence[Delta]


Step = Turn | Send | Receive | Drain | ReceiveAll | HangUp | Wait | Pause | Emit
T = TypeVar("T")


class Paid(Protocol):
    """An answer with the tokens that were paid for."""

    @property
    def usage(self) -> Usage | None:
        """Their number, if it is known."""


Answer = TypeVar("Answer", bound=Paid)
Flow = Generator[Step, Any, T]


@dataclass(frozen=True)
class Finished(Generic[T]):
    """A flow's end, as a client sees it, with what the flow returned."""

    value: T


_BROKEN_OFF = (APIConnectionError, APITimeoutError, ServerError)
"""How reading a body fails: the connection is lost, time runs out, or the reply passes a bound."""

_RECEIVE = Receive()
_RECEIVE_ALL = ReceiveAll()


def run(call: Call) -> Flow[Completion]:
    """One whole answer."""
    completion = yield from _run_once(call)
    follow_up = call.in_json
    if follow_up is None or completion.tool_calls or completion.invalid_tool_calls:
        return completion
    json_mode = follow_up.asked.json_mode
    if json_mode is not None and json_mode.is_met_by(completion.text):
        return replace(completion, text=json_mode.answer(completion.text))
    return _paid_for(completion.usage, (yield from _run_once(follow_up)))


def _run_once(call: Call) -> Flow[Completion]:
    completion = yield from ask(call, lambda body, head: completion_from_body(body, head, call.asked))
    require_answer(completion, call.asked)
    return completion


def ask(call: Call, read: Callable[[bytes, ReplyHead], Answer]) -> Flow[Answer]:
    """One request and its whole reply, which ``read`` makes the answer of."""

    def attempt() -> Flow[Answer]:
        if call.limiter is not None:
            yield Turn(call.limiter)
        with call.meter() as meter:
            head: ReplyHead = yield Send(call.request)
            meter.billed = not head.from_cache
            body = yield from receive_all(head)
            if not head.ok:
                raise error_from_body(body, head)
            answer = read(body, head)
            meter.usage = answer.usage
        return answer

    return retried(call, attempt, lambda: True)


def _paid_for(before: Usage | None, completion: Completion) -> Completion:
    """The answer with the tokens of the request before it, which were paid for as well."""
    own = completion.usage
    if before is None or own is None:
        return replace(completion, usage=None)  # a part of the sum would pass for the whole
    return replace(completion, usage=before + own)


def stream(call: Call) -> Flow[None]:  # noqa: C901 - in one, since each piece pays for each generator on its way
    """One streamed answer, tried again only as long as nothing of it has been handed over.

    In JSON Mode, which does not stream, it is the whole answer at once.
    """
    if call.in_json is not None or call.asked.json_mode is not None:
        yield Emit(deltas_of((yield from run(call))))
        return
    nothing_emitted, answered_nothing = True, False

    def attempt() -> Flow[None]:
        nonlocal nothing_emitted, answered_nothing
        if call.limiter is not None:
            yield Turn(call.limiter)
        with call.meter() as meter:
            reader = yield from _open_stream(call, meter)
            meter.usage_is_total = False  # before the end of the answer, the service may bill more than it reported
            try:
                while not (reader.ended or reader.done):
                    try:
                        data: bytes = yield _RECEIVE
                    except _BROKEN_OFF as error:
                        if reader.finished:
                            break  # what was lost is the usage at most
                        _break_off(reader, error)
                    if not data:
                        break
                    deltas = reader.feed(data)
                    if reader.ended:
                        yield HangUp()  # before the caller is given what came: it may take its time over it
                    if deltas:
                        nothing_emitted = False
                        try:
                            yield Emit(deltas)
                        except APITimeoutError as error:  # their reader took longer than the deadline
                            _break_off(reader, error)
                answered_nothing, last = _last_of(reader)
                meter.usage_is_total = reader.done or not (reader.ended or reader.finished)
            finally:
                meter.usage = reader.usage
        yield from _emit_last(last, call)
        if reader.done:
            yield from _drain()

    yield from retried(call, attempt, lambda: nothing_emitted)
    if answered_nothing:
        # Seen on gpt-oss: the same request without "stream" is answered (wire.md#streams).
        yield Emit(deltas_of((yield from _run_once(replace(call, request=without_stream(call.request))))))


def _emit_last(deltas: Sequence[Delta], call: Call) -> Flow[None]:
    """Hands the end of a stream over; the last delta, which has the completion, only if that is an answer."""
    completion = deltas[-1].completion if deltas else None
    if completion is not None and completion.reasoning_only:
        yield Emit(deltas[:-1])
        require_answer(completion, call.asked)
        deltas = deltas[-1:]
    yield Emit(deltas)


def _open_stream(call: Call, meter: Meter) -> Flow[StreamReader]:
    head: ReplyHead = yield Send(call.request)
    meter.billed = not head.from_cache
    if not head.ok:
        raise error_from_body((yield from receive_all(head)), head)
    return StreamReader(head, call.asked)


def _last_of(reader: StreamReader) -> tuple[bool, list[Delta]]:
    """Whether the reply was empty, and the last deltas of one that wasn't."""
    return (True, []) if reader.answered_nothing else (False, reader.close())


def receive_all(head: ReplyHead) -> Flow[bytes]:
    """The whole body; what goes wrong on the way is known by the head, which had come."""
    try:
        body: bytes = yield _RECEIVE_ALL
    except _BROKEN_OFF as error:
        error.status_code, error.request_id = head.status, head.request_id
        raise
    return body


def _break_off(reader: StreamReader, error: APIConnectionError | APITimeoutError | ServerError) -> NoReturn:
    """Fails with what has arrived of a stream that went wrong on the way."""
    if isinstance(error, APIConnectionError):
        raise reader.interruption() from error
    reader.add_to(error)
    raise error


def _drain() -> Flow[None]:
    """Reads the end of a body after ``[DONE]``, so that its connection can be used again; nothing can be lost now."""
    try:
        yield Drain()
    except _BROKEN_OFF as error:
        logger.debug("The connection ended badly after the whole answer had come: %s", error)


def retried(call: Call, attempt: Callable[[], Flow[T]], may_retry: Callable[[], bool]) -> Flow[T]:
    """What an attempt gives, which is made again after a failure that is worth it, as often as the call says."""
    tries = 0
    while True:
        try:
            return (yield from attempt())
        except WorkersAIError as error:
            error.reword(call.request.without_token(error.message))
            error.request_id = error.request_id and call.request.without_token(error.request_id)
            if not (error.retryable and may_retry() and (yield from another_try(call, error, tries))):
                raise
        tries += 1


def another_try(call: Call, error: WorkersAIError, tries: int) -> Flow[bool]:
    """Lets the wait before another attempt pass, after so many that were retries; False where there is to be none."""
    if tries >= call.max_retries:
        return False
    wait = backoff(error, tries)
    if wait is None:
        error.reword(f"{error.message} It asks to wait {error.retry_after:,.0f} s: too long to wait here.")
        return False
    if (yield Wait(Retry(error, attempt=tries + 1, wait=wait), call.max_retries)):
        return True
    given_up = f"Not tried again: the deadline of {call.deadline:g} s leaves no time for it."
    logger.info("%s %s", given_up, error)
    error.reword(f"{error.message} {given_up}")
    return False
