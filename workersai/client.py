"""Client: drives a flow over a pool of sockets, or over the caller's httpx.Client."""

from __future__ import annotations

import weakref
from collections.abc import Generator, Iterable
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

import httpx
from typing_extensions import Self, Unpack

from workersai import flows, pools
from workersai._cleanup import start
from workersai._engine.sync_driver import Exchange, SyncTransport
from workersai._transport.httpx_clients import HttpxTransport
from workersai._transport.sync_pool import SyncPool
from workersai.calls import Call, RunOptions
from workersai.flows import Emit, Finished, Flow
from workersai.pools import Pool, PoolKey, Pools, route_to
from workersai.protocol.request import Input
from workersai.protocol.values import Completion, Delta
from workersai.retrieval.clients import RetrievalClient

if TYPE_CHECKING:
    from workersai.batch import Batch, BatchOptions, RequestLike

T = TypeVar("T")


class Client(RetrievalClient):
    """Calls Workers AI; one client serves any number of threads.

    Args:
        account_id: See :class:`~workersai.Settings`, as for the next two.
        api_token: A token that may use Workers AI.
        base_url: Where the service is.
        settings: All three at once, in place of the arguments above.
        http_client: An ``httpx.Client`` of your own, for a proxy, a certificate or a transport; closing it is yours.
            The word ``"httpx"`` is for :class:`~workersai.AsyncClient`.
        on_retry: Told of each retry of each call that has no ``on_retry`` of its own.
        **defaults: Options for each call that doesn't give its own; see :class:`~workersai.CallOptions`.

    Its connections are made on first use, at most 1,000 at once, and kept for 60 seconds. All clients of a process
    share them, and they are closed with the last client that is closed (by ``close``, or the end of a ``with`` block),
    or with the process. Proxies are read from HTTPS_PROXY, ALL_PROXY and NO_PROXY.

    Raises:
        ConfigurationError: the account or the token is missing, or the base URL can't be right.
        BadRequestError: a default is out of its range.
    """

    _http_kind = httpx.Client
    awaits = False

    def run(self, model_input: Input, /, **options: Unpack[RunOptions]) -> Completion:
        """The whole answer to a text or to messages.

        Args:
            model_input: A text, or messages (:class:`~workersai.Message`, or dicts with role and content). A text is
                sent as the message of a user. With ``prompt_form="completion"`` it is sent as a prompt, and the model
                continues it.
            **options: Those of :class:`~workersai.CallOptions`, and:

                ``tools``: what the model may call: functions, Pydantic classes, TypedDicts, :class:`~workersai.Tool`,
                or dicts in OpenAI's shape.

                ``tool_choice``: ``"auto"`` (as by default, the model chooses), ``"none"``, ``"required"`` (or
                ``"any"``, or True), or a tool's name. The service enforces a call of a named tool, or of the only
                one; ``"required"`` among several is advice, which the model may not take (wire.md#tool-choice).

                ``parallel_tool_calls``: False keeps the first call and puts the others into the completion's
                ``dropped_tool_calls``. The service has no such setting.

                ``response_format``: JSON Mode: a Pydantic class, a TypedDict, a JSON Schema, or the dict that OpenAI
                takes (``{"type": "json_schema", ...}``, ``{"type": "json_object"}``). With tools as well, an answer
                that calls none of them, and is no such object already, is asked for once more, in JSON Mode; both
                requests count in ``usage``.

        Raises:
            BadRequestError: the input, a tool or an option is not one that the service takes; nothing was sent.
            JSONModeError: the model could not answer in that JSON.
            ReasoningOnlyError: the model ran out of tokens while thinking, and JSON or a tool call was required.
            RuntimeError: the client was closed.
            WorkersAIError: the call failed; see :mod:`workersai.errors` for the kinds.
        """
        call = self.prepare(model_input, options)
        return self._pump(call, flows.run(call))

    def stream(self, model_input: Input, /, **options: Unpack[RunOptions]) -> Generator[Delta, None, None]:
        """The answer in pieces, as it is written; the last delta has the usage and the finish reason.

        Leaving early closes the connection when the generator is closed: use ``contextlib.closing`` where that must
        not wait for the garbage collector. Arguments and errors are those of :meth:`run`; a failure on the way raises
        with what had arrived in the error's ``partial``. JSON Mode does not stream on the service: with a
        ``response_format`` the whole answer comes in one piece.
        """
        call = self.prepare(model_input, options, stream=True)
        start()  # now, since the end of the stream may come in a finalizer, which can start no thread
        return self._stream(call)

    def _stream(self, call: Call) -> Generator[Delta, None, None]:
        with Exchange(self._pool(), call, flows.stream(call)) as exchange:
            while isinstance(step := exchange.advance(), Emit):
                for delta in step.deltas:
                    yield delta
                    if call.deadline is not None and exchange.is_late and delta is not step.deltas[-1]:
                        exchange.expire()

    def batch(self, requests: Iterable[RequestLike] | None = None, /, **options: Unpack[BatchOptions]) -> Batch:
        """The results of any number of requests, by the service's Async Batch API where it fits, else by single calls.

        Each request is checked before any is sent, and nothing is sent before the first result is asked for.

        Args:
            requests: Texts, messages, :class:`~workersai.batch.BatchRequest`, or dicts with ``prompt`` or ``messages``
                and, beside it, ``external_reference``, ``metadata`` and options. They are read once, some hundreds
                at a time. None: those of the journal.
            **options: Those of :meth:`run`, for all requests, and those of :class:`~workersai.batch.BatchOptions`.
                ``rate_limit`` is by default the account's, 300 in a minute; None for none. It holds for submissions
                and polls, too.

        A failure that is worth it is tried again (``max_retries``), a failed item of a batch in a later batch. What
        remains is a result with its ``error``. An error that no request would escape (a wrong token, the quota, the
        budget, no network) stops the job, and is raised once what is under way has ended. A batch of which it is not
        known whether the service took it is sent again and may be billed twice: this is in the log as a warning, and
        in ``progress.unclear_parts``.

        Raises:
            BadRequestError: a setting or an option can't be right; from the first result: requests can't be sent, each
                told with its row.
            JournalError: from the first result: the journal is of other requests or options, in use, or can't be
                written.
            ConfigurationError: the journal is of another account, or a budget can't be kept.
            WorkersAIError: from a result: the job was stopped.
        """
        from workersai.batch import Batch, job_of  # noqa: PLC0415 - SQLite, for who needs it

        return Batch(job_of(self, requests, options), () if requests is None else requests, self._pump)

    def _pump(self, call: Call, flow: Flow[T]) -> T:
        with Exchange(self._pool(), call, flow) as exchange:
            end = exchange.advance()
        assert isinstance(end, Finished)  # noqa: S101 - it emits nothing
        return end.value

    def close(self) -> None:
        """Closes the connection pool if no other client uses it; this one can't be used after that."""
        self._closed = True
        for pool in _POOLS.leave(self):
            pool.transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @cached_property
    def _given_pool(self) -> Pool[SyncTransport] | None:
        http = self._given_http_client
        return Pool(HttpxTransport(http)) if isinstance(http, httpx.Client) else None

    def _pool(self) -> Pool[SyncTransport]:
        self.check_open()
        pool = self._given_pool or _POOLS.get(self._pool_key, self, self._new_pool)
        if self._closed:  # in the meantime, by another thread or a signal handler
            self.close()
            self.check_open()
        return pool

    def _new_pool(self) -> Pool[SyncTransport]:
        origin, _ = self._pool_key
        pool: Pool[SyncTransport] = Pool(SyncPool(origin, *route_to(origin), pools.LIMITS))
        pool.at_exit = weakref.finalize(pool, pool.transport.close)
        return pool


_POOLS: Pools[PoolKey, SyncTransport] = Pools()
