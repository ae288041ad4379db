"""A reply on its way out: it gets its names, may fail on demand, and its record learns how it ended."""

from __future__ import annotations

import uuid

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from workersai.local.binding import is_run, unstreamed
from workersai.local.exchange import Desk
from workersai.local.faults import Fault
from workersai.local.faulty import FaultySend, StalledError
from workersai.local.records import RequestRecord
from workersai.local.wire import ray, to_json

# Keys of a request's scope.
RECORD, CONTENT, ADMITTED, REFUSAL, FAULT, TRANSPORT = (
    "workersai.record",
    "workersai.content",
    "workersai.admitted",  # whether it has come to a route, whole
    "workersai.refusal",  # why nothing is to be done; None for a request that may come in
    "workersai.fault",
    "workersai.transport",  # its connection
)


class ReplyWatch:
    """Names each reply with a ``cf-ray``, and tells the record how it ended."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self._scope = scope
        self._record: RequestRecord = scope[RECORD]
        self._send = send
        self._complete = False

    async def answer(self, routes: ASGIApp, receive: Receive) -> None:
        """Lets ``routes`` answer."""
        try:
            await routes(self._scope, receive, self._watched_send)
        finally:
            self._record.end("complete" if self._complete else "failed")

    async def answer_with(self, fault: Fault, routes: ASGIApp, receive: Receive, desk: Desk) -> None:
        """Lets ``routes`` answer, and their answer fail."""
        scope = self._scope
        if fault.kind == "whole" and isinstance(self._record.body, dict):
            scope[CONTENT] = to_json(unstreamed(self._record.body))
        faulty = FaultySend(fault, self._watched_send, self._record, scope[TRANSPORT], path=scope["path"])
        try:
            if not await faulty.refuse():
                await routes(scope, receive, faulty)
        except StalledError:
            if await desk.outlasts(receive):
                self._record.end("disconnected")
        finally:
            self._record.end("complete" if self._complete else "failed")

    async def _watched_send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", []), *self._names()]}
        await self._send(message)
        self._complete = message["type"] == "http.response.body" and not message.get("more_body", False)

    def _names(self) -> list[tuple[bytes, bytes]]:
        names = [(b"cf-ray", ray().encode())]
        if is_run(self._scope["path"]):
            names.append((b"cf-ai-req-id", str(uuid.uuid4()).encode()))  # the binding's lastRequestId
        return names
