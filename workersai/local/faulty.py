"""A reply that fails on the way: the ASGI side of a :class:`~workersai.local.Fault`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from starlette.types import Message, Send

from workersai.local.faults import Fault, refusal
from workersai.local.records import RequestRecord
from workersai.local.refusals import error_at
from workersai.local.wire import WireError, sse, to_json

_GARBAGE = b'data: {"response": \xff\xfe <garbage>\n\n'
_PAGE = "<!DOCTYPE html>\n<html><head><title>{status}: Bad gateway</title></head><body><h1>Error</h1></body></html>\n"


class StalledError(Exception):
    """Nothing more is to be sent, and the connection stays open; the engine's seat doesn't."""


class FaultySend:
    """An ASGI ``send`` that fails on the way.

    Args:
        fault: How.
        send: What sends.
        record: The request; the record says that the server cut it off.
        transport: The connection, to be closed by ``cut``.
        path: The route's, which decides how a refusal is told.
    """

    def __init__(
        self, fault: Fault, send: Send, record: RequestRecord, transport: asyncio.Transport, *, path: str
    ) -> None:
        self._fault = fault
        self._send = send
        self._record = record
        self._transport = transport
        self._path = path
        self._sent = 0
        self._streams = False
        self._over = False

    async def refuse(self) -> bool:
        """Sends the whole reply where the fault is one of its own, and says whether it did."""
        kind, value = self._fault.kind, self._fault.value
        if kind == "code":
            written, _, wait = value.partition(":")
            code, _, given = written.partition("/")
            status, words = refusal(int(code), int(given or 0))
            await self._reply(status, to_json(error_at(self._path, WireError(status, int(code), words))), _after(wait))
        elif kind == "error":
            status, words = refusal(int(value))
            told = {"error": {"message": f"{value}: {words}", "code": "internal_error"}}
            await self._reply(status, to_json(told), {})
        elif kind == "html":
            shown, _, wait = value.partition(":")
            page = _PAGE.format(status=shown).encode()
            await self._reply(int(shown), page, {"content-type": "text/html", **_after(wait)})
        elif kind == "empty":
            await self._reply(int(value), b"", {})
        return kind in ("code", "error", "html", "empty")

    async def __call__(self, message: Message) -> None:
        """Sends on what the fault leaves of a message.

        Raises:
            StalledError: that is nothing, from here on.
        """
        if self._over:
            return
        if message["type"] == "http.response.start":
            await self._start(message)
        else:
            await self._body(message)

    async def _start(self, message: Message) -> None:
        kind, value = self._fault.kind, self._fault.value
        if kind in ("stall", "cut") and int(value) == 0:
            self._break_off()
            return
        drop = {"content-type": b"content-type"} | dict.fromkeys(("garbage", "event", "end"), b"content-length")
        headers = [(name, text) for name, text in message["headers"] if name != drop.get(kind)]
        if kind == "content-type":
            headers.append((b"content-type", value.encode()))
        self._streams = not any(name == b"content-length" for name, _ in message["headers"])
        await self._send({**message, "headers": headers})

    async def _body(self, message: Message) -> None:
        body: bytes = message.get("body", b"")
        kind, value = self._fault.kind, self._fault.value
        if kind == "dribble":
            for byte in body:
                await self._pass(bytes([byte]))
                await asyncio.sleep(float(value))
            await self._send({**message, "body": b""})
        elif kind == "event":
            await self._fail_after(body)
        elif kind in ("stall", "cut", "end", "garbage") and self._sent + len(body) >= int(value):
            await self._pass(body[: int(value) - self._sent])
            if kind in ("end", "garbage"):
                self._over = True
                rest = _GARBAGE if kind == "garbage" else b""
                await self._send({"type": "http.response.body", "body": rest, "more_body": False})
            else:
                self._break_off()
        else:
            self._sent += len(body)
            await self._send(message)

    async def _fail_after(self, body: bytes) -> None:
        status, words = refusal(int(self._fault.value))
        told = error_at(self._path, WireError(status, int(self._fault.value), words), event=self._streams)
        self._over = True
        first = body + sse(told) if self._streams else to_json(told)
        await self._send({"type": "http.response.body", "body": first, "more_body": False})

    def _break_off(self) -> None:
        self._over = True
        if self._fault.kind == "cut":
            self._record.end("failed")
            self._transport.close()
        else:
            raise StalledError

    async def _pass(self, body: bytes) -> None:
        self._sent += len(body)
        await self._send({"type": "http.response.body", "body": body, "more_body": True})

    async def _reply(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        told = {"content-type": "application/json", **headers, "content-length": str(len(body))}
        encoded = [(name.encode(), text.encode()) for name, text in told.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": encoded})
        await self._send({"type": "http.response.body", "body": body, "more_body": False})


def _after(wait: str) -> dict[str, str]:
    return {"retry-after": wait} if wait else {}
