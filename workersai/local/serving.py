"""uvicorn as the local server runs it: it says when it is ready, ends at once, and leaves no connection behind."""

from __future__ import annotations

import asyncio
import socket
import threading
from contextlib import suppress

import uvicorn
from typing_extensions import override

from workersai.local.app import LocalApp
from workersai.local.exchange import Desk
from workersai.local.protocol import Protocol

# Seconds that an idle connection is kept; a test that pauses under a debugger should find it still there.
_KEEP_ALIVE = 120
# Seconds that closing waits for what was cut off to wind up.
_CUT_GRACE = 0.5
# Connections that the system keeps until they are accepted.
_BACKLOG = 2_048
_ACCEPTED_AT_ONCE = 32


class Serving(uvicorn.Server):
    """uvicorn, which says when it is ready and leaves no connection behind."""

    def __init__(self, app: LocalApp, ready: threading.Event) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                loop="asyncio",
                http=Protocol,
                # Who is asking is the connection's other end, whatever a header says: the binding trusts this machine.
                proxy_headers=False,
                ws="none",
                lifespan="off",
                log_config=None,
                # A cut connection is an error to uvicorn, and here often what a test asked for.
                log_level="critical",
                access_log=False,
                timeout_keep_alive=_KEEP_ALIVE,
                # How many connections are accepted at a time, before any of them is looked at.
                backlog=_ACCEPTED_AT_ONCE,
            )
        )
        self._desk: Desk = app.desk
        self._ready = ready
        self._loop = asyncio.get_running_loop()
        self._leaving = asyncio.Event()

    def leave(self) -> None:
        """Ends the serving; from any thread, and at once: uvicorn alone would look whether to ten times a second."""
        self.should_exit = True
        # Where the loop has ended already, there is nobody to wake.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._leaving.set)

    @override
    async def main_loop(self) -> None:
        leaving = asyncio.ensure_future(self._leaving.wait())
        while not await self.on_tick(0):  # which also keeps the date of the replies
            await asyncio.wait({leaving}, timeout=1)

    @override
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for listening in sockets or ():
            listening.listen(_BACKLOG)
        self._ready.set()

    @override
    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        self._desk.clear()
        await self._tasks_ended()
        # A client that does not read, or has more to send, would keep its connection, and the server with it, alive.
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        await self._tasks_ended()

    async def _tasks_ended(self) -> None:
        if self.server_state.tasks:
            await asyncio.wait(self.server_state.tasks, timeout=_CUT_GRACE)


def listening_socket(host: str, port: int) -> socket.socket:
    """A socket that listens, for :class:`Serving`.

    Raises:
        OSError: the address can't be listened on.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # On POSIX systems create_server() sets SO_REUSEADDR, so that a port can be taken again at once.
    listening = socket.create_server((host, port), family=family, backlog=_BACKLOG)
    # Head and body of a reply are two writes: without this, the second would wait 40 ms for the first to be
    # acknowledged. asyncio sets it only for sockets that it made itself; connections take it over from this one.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening
