"""One answer on its way from the engine to the client, whole or streamed, until it ends or the client leaves.

A :class:`Reply` is the response that a route returns, and an :class:`Exchange` the one that an engine gives. It starts
the HTTP reply only once the engine has given its first event, so that a failure before it is an ordinary error reply.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from workersai.local.engine import (
    CalledTool,
    End,
    Engine,
    EngineError,
    Event,
    GenerationRequest,
    Note,
    PromptRead,
    RawReply,
    TextPiece,
)
from workersai.local.faulty import StalledError
from workersai.local.records import RequestRecord
from workersai.local.wire import UNEXPECTED, Answer, Dialect, WireError, note_header, to_json, wire_error_from

logger = logging.getLogger("workersai.local")

NOTE_HEADER = "x-workersai-local-note"
BUSY = WireError(429, 3040, "AiError: Capacity temporarily exceeded, please try again.")


@dataclass
class Desk:
    """The engine, the seats in front of it, and the exchanges under way."""

    engine: Engine
    seats: asyncio.Semaphore
    under_way: set[asyncio.Task[None]] = field(default_factory=set)

    @asynccontextmanager
    async def seat(self, *, or_refuse: bool) -> AsyncIterator[None]:
        """One of the engine's slots; waits for it, or refuses with 3040 if none is free."""
        if or_refuse and self.seats.locked():
            raise BUSY
        async with self.seats:
            yield

    async def outlasts(self, receive: Receive) -> bool:
        """Waits until a client leaves; False where the server is closed before."""
        leaving = asyncio.ensure_future(_until_disconnect(receive))
        self.under_way.add(leaving)
        try:
            await asyncio.wait({leaving})
        finally:
            self.under_way.discard(leaving)
            leaving.cancel()
        return not leaving.cancelled()

    def clear(self) -> None:
        """Cuts off every exchange under way."""
        for task in self.under_way:
            task.cancel()


class Reply(Response):
    """A reply that is worked on until it has been sent, the client leaves or the server is closed."""

    def __init__(self, desk: Desk, record: RequestRecord) -> None:
        super().__init__()
        self._desk = desk
        self._record = record
        self._started = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers, while watching whether the client is still there."""
        del scope
        self._send = send
        answering = asyncio.ensure_future(self._answer())
        leaving = asyncio.ensure_future(_until_disconnect(receive))
        self._desk.under_way.add(answering)
        try:
            await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._desk.under_way.discard(answering)
            gone = not answering.done()
            await _cancelled(answering, leaving)
        await self._end(answering, gone=gone)

    async def _answer(self) -> None:
        """Does the work, and sends what comes of it."""
        raise NotImplementedError

    async def _refuse(self, error: WireError) -> None:
        """Tells the client of a failure."""
        raise NotImplementedError

    async def _end(self, answering: asyncio.Task[None], *, gone: bool) -> None:
        """Tells the client of a failure, never leaving a silent end, and the record how it went."""
        if gone:
            self._record.end("disconnected")
        elif answering.cancelled():
            self._record.end("failed")
        elif error := answering.exception():
            if isinstance(error, StalledError):
                raise error  # the seat is free again; whoever sends goes on with it
            told = wire_error_from(error)
            if told.code == UNEXPECTED:
                logger.error("The engine failed.", exc_info=error)
            await self._refuse(told)

    async def _whole(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        length = {"content-length": str(len(body)), "content-type": "application/json"}
        await self._start(status, {**length, **(headers or {})})
        await self._chunk(body, more=False)

    async def _start(self, status: int, headers: dict[str, str]) -> None:
        encoded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        self._started = True
        await self._send({"type": "http.response.start", "status": status, "headers": encoded})

    async def _chunk(self, body: bytes, *, more: bool = True) -> None:
        await self._send({"type": "http.response.body", "body": body, "more_body": more})


class Exchange(Reply):
    """The reply to one request for an answer."""

    def __init__(
        self,
        desk: Desk,
        request: GenerationRequest,
        dialect: Dialect,
        record: RequestRecord,
        *,
        prompt_tokens: int,
        reject_if_busy: bool = False,
    ) -> None:
        super().__init__(desk, record)
        self._request = request
        self._dialect = dialect
        self._prompt = PromptRead(prompt_tokens)
        self._reject_if_busy = reject_if_busy

    async def _refuse(self, error: WireError) -> None:
        if self._started:
            self._record.end("failed")
            await self._chunk(self._dialect.failure(error))
            await self._chunk(b"", more=False)
        else:
            await self._whole(error.status, to_json(self._dialect.error(error)))

    async def _answer(self) -> None:
        async with (
            self._desk.seat(or_refuse=self._reject_if_busy),
            aclosing(self._desk.engine.generate(self._request)) as events,
        ):
            begun = await opening(events)
            headers = noted(begun.notes)
            if isinstance(begun.first, RawReply):
                await self._raw(begun.first)
            elif self._request.stream:
                await self._stream(begun, events, headers)
            else:
                answer = await collected(begun, events)
                await self._whole(200, to_json(self._dialect.whole(answer)), headers)

    async def _stream(self, begun: Opening, events: AsyncIterator[Event], headers: dict[str, str]) -> None:
        # Sent with the first piece: a fault after the first part of the body has some of the answer before it.
        held = b"".join(self._dialect.opening(begun.prompt or self._prompt))
        async for event in _until_end(begun.first, events):
            if isinstance(event, End):
                held += b"".join(self._dialect.closing(event))
            elif isinstance(event, (TextPiece, CalledTool)):
                held += self._dialect.piece(event)
            if not self._started:
                await self._start(200, {"content-type": "text/event-stream", "cache-control": "no-cache", **headers})
            await self._chunk(held)
            held = b""
        await self._chunk(b"", more=False)

    async def _raw(self, reply: RawReply) -> None:
        chunks = reply.body if isinstance(reply.body, list) else [reply.body]
        headers = {"content-type": reply.content_type, **{name.lower(): value for name, value in reply.headers.items()}}
        await self._start(reply.status, headers)
        for chunk in chunks:
            await self._chunk(chunk)
        if reply.cut:
            # A response that is left without its end makes the server close the connection.
            self._record.end("failed")
        else:
            await self._chunk(b"", more=False)


def noted(notes: tuple[str, ...]) -> dict[str, str]:
    """The header that tells the notes, if there are any."""
    return {NOTE_HEADER: note_header(notes)} if notes else {}


async def _until_disconnect(receive: Receive) -> None:
    message: Message = {}
    while message.get("type") != "http.disconnect":
        message = await receive()


async def _cancelled(*tasks: asyncio.Task[None]) -> None:
    """Cancels what is still running, and waits for it to have cleaned up."""
    for task in tasks:
        task.cancel()
    with suppress(asyncio.CancelledError):
        await asyncio.wait(tasks)


@dataclass(frozen=True)
class Opening:
    """The beginning of an answer: what precedes its first event, and that event."""

    notes: tuple[str, ...]
    prompt: PromptRead | None
    first: Event


async def opening(events: AsyncGenerator[Event, None]) -> Opening:
    """The beginning of an answer."""
    notes: list[str] = []
    prompt = None
    async for event in events:
        if isinstance(event, Note):
            notes.append(event.text)
        elif isinstance(event, PromptRead):
            prompt = event
        else:
            return Opening(tuple(notes), prompt, event)
    raise EngineError("the engine gave no answer.")


async def _until_end(first: Event, rest: AsyncIterator[Event]) -> AsyncIterator[Event]:
    """All events, the end included; an engine that stops without one has failed."""
    yield first
    if isinstance(first, End):
        return
    async for event in rest:
        yield event
        if isinstance(event, End):
            return
    raise EngineError("the engine stopped without an end.")


async def collected(begun: Opening, rest: AsyncIterator[Event]) -> Answer:
    """The whole answer."""
    events = [event async for event in _until_end(begun.first, rest)]
    return Answer(
        text="".join(event.text for event in events if isinstance(event, TextPiece)),
        tool_calls=tuple(event for event in events if isinstance(event, CalledTool)),
        end=next(event for event in events if isinstance(event, End)),
        notes=begun.notes,
    )
