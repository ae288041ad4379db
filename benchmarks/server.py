"""A loopback server that costs as little as it can, in a process of its own: what is measured is the client.

It reads of a request what it must: the length of its body, whether it asks for a stream, and ``max_tokens``, which
here is the number of pieces. On ``/chat/completions`` it speaks OpenAI's shape, elsewhere Workers AI's. A prompt of
:data:`HELD` is answered with one piece, and no end; the pieces of one with :data:`PACED` come at a steady pace, so that
each is read on its own, as a model's are.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import re
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from time import perf_counter
from typing import Any

TEXT = "It is sunny in Paris, and it will be so for a while."
PIECE = "word "
HELD = "hold this stream open"
PACED = "one piece at a time"
_PACE = 0.00015  # seconds from one piece to the next
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_MOST = re.compile(rb'"max_(?:completion_)?tokens": ?(\d+)')
_STREAM = re.compile(rb'"stream": ?true')

_USAGE = b'{"prompt_tokens":10,"completion_tokens":12,"total_tokens":22}'
_WHOLE = {
    False: b'{"result":{"response":"%s","tool_calls":[],"usage":%s},"success":true,"errors":[],"messages":[]}'
    % (TEXT.encode(), _USAGE),
    True: b'{"id":"c","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":{"role":'
    b'"assistant","content":"%s"},"finish_reason":"stop"}],"usage":%s}' % (TEXT.encode(), _USAGE),
}
_EVENT = {
    False: b'data: {"response":"%s","tool_calls":[],"p":"abdefghij"}\n\n' % PIECE.encode(),
    True: b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":'
    b'{"content":"%s"},"finish_reason":null}]}\n\n' % PIECE.encode(),
}
_LAST = {
    False: b'data: {"response":"","usage":%s}\n\ndata: [DONE]\n\n' % _USAGE,
    True: b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{},'
    b'"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n',
}
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncf-ray: 1\r\ncontent-length: %d\r\n\r\n"
_STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncf-ray: 1\r\ntransfer-encoding: chunked\r\n\r\n"


class _Protocol(asyncio.Protocol):
    def __init__(self, opened: set[asyncio.Task[None]]) -> None:
        self._data = b""
        self._streams = opened

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._writable = asyncio.Event()
        self._writable.set()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def connection_lost(self, _: Exception | None) -> None:
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        self._data += data
        end = self._data.find(b"\r\n\r\n")
        if end < 0:
            return
        length = _LENGTH.search(self._data, 0, end)
        total = end + 4 + (int(length[1]) if length else 0)
        if len(self._data) < total:
            return
        head, body, self._data = self._data[:end], self._data[end + 4 : total], self._data[total:]
        openai = b"/chat/completions" in head[: head.find(b"\r\n")]
        if _STREAM.search(body):
            most = _MOST.search(body)
            pieces = int(most[1]) if most else 100
            if HELD.encode() in body:
                self._transport.write(_STREAM_HEAD)
                self._write(_EVENT[openai])
                return
            pace = _PACE if PACED.encode() in body else 0
            task = asyncio.get_running_loop().create_task(self._stream(pieces, openai=openai, pace=pace))
            self._streams.add(task)
            task.add_done_callback(self._streams.discard)
        else:
            whole = _WHOLE[openai]
            self._transport.write(_HEAD % len(whole) + whole)

    async def _stream(self, pieces: int, *, openai: bool, pace: float) -> None:
        self._transport.write(_STREAM_HEAD)
        due = perf_counter()
        for _ in range(pieces):
            due += pace
            while perf_counter() < due:  # noqa: ASYNC110 - a timer's grain is a millisecond
                await asyncio.sleep(0)
            self._write(_EVENT[openai])
            await asyncio.sleep(0)  # a piece is a packet, as a model's are
            await self._writable.wait()
            if self._transport.is_closing():
                return
        self._write(_LAST[openai])
        self._transport.write(b"0\r\n\r\n")

    def _write(self, event: bytes) -> None:
        self._transport.write(b"%x\r\n%s\r\n" % (len(event), event))


def _serve(told: Connection) -> None:
    async def main() -> None:
        opened: set[asyncio.Task[None]] = set()
        server = await asyncio.get_running_loop().create_server(
            lambda: _Protocol(opened), "127.0.0.1", 0, backlog=4_096
        )
        told.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(main())


@contextmanager
def serving() -> Iterator[str]:
    """The address of a server, which is stopped at the end."""
    told, tell = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(tell,), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{told.recv()}"
    finally:
        process.kill()
        process.join()
