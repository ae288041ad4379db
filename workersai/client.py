"""Client: pumps a flow over httpx.Client."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Generator, Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import httpx
from typing_extensions import Self, Unpack

from workersai import flows
from workersai.calls import Call, RunOptions
from workersai.deadline import END_OF_BODY, Deadline, HeldTo
from workersai.errors import APIConnectionError, APITimeoutError, WorkersAIError
from workersai.flows import Drain, Emit, Finished, Flow, HangUp, Pause, Receive, ReceiveAll, Send, Step, Turn, Wait
from workersai.pacing import Limiter
from workersai.pools import Pool, Pools, new_client
from workersai.protocol.reply import ReplyHead
from workersai.protocol.request import Input, Request
from workersai.protocol.values import Completion, Delta
from workersai.retrieval.clients import RetrievalClient
from workersai.tracing import traced
from workersai.transport import FAILURES, build, check_open, error_from_httpx, head_of, is_plain

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
    or with the process. Proxy settings in the environment are honoured, as httpx does it.

    Raises:
        ConfigurationError: the account or the token is missing, or the base URL can't be right.
        BadRequestError: a default is out of its range.
    """

    _http_kind = httpx.Client
    awaits = False

    def run(self, model_input: Input, /, **options: Unpack[RunOptions]) -> Completion:
        """The whole answer to a text (the service's Prompt form) or to messages.

        Args:
            model_input: A text, or messages (:class:`~workersai.Message`, or dicts with role and content).
            **options: Those of :class:`~workersai.CallOptions`, and:

                ``tools``: what the model may call: functions, Pydantic classes, TypedDicts, :class:`~workersai.Tool`,
                or dicts in OpenAI's shape. A text is sent as a message then.

                ``tool_choice``: ``"auto"`` (as by default, the model chooses), ``"none"``, ``"required"`` (or
                ``"any"``, or True), or a tool's name. The service enforces a call of a named tool, or of the only
                one; ``"required"`` among several is advice, which the model may not take (wire page, "Requests").

                ``parallel_tool_calls``: False keeps the first call and puts the others into the completion's
                ``dropped_tool_calls``. The service has no such setting.

                ``response_format``: JSON Mode: a Pydantic class, a TypedDict, a JSON Schema, or the dict that OpenAI
                takes (``{"type": "json_schema", ...}``, ``{"type": "json_object"}``). With tools as well, an answer
                that calls none of them, and is no such object already, is asked for once more, in JSON Mode; both
                requests count in ``usage``.

        Raises:
            BadRequestError: the input, a tool or an option is not one that the service takes; nothing was sent.
            JSONModeError: the model could not answer in that JSON.
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
        return self._stream(call)

    def _stream(self, call: Call) -> Generator[Delta, None, None]:
        with _Exchange(self._pool(), call, flows.stream(call)) as exchange:
            while isinstance(step := exchange.advance(), Emit):
                yield from step.deltas

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
        with _Exchange(self._pool(), call, flow) as exchange:
            end = exchange.advance()
        assert isinstance(end, Finished)  # noqa: S101 - it emits nothing
        return end.value

    def close(self) -> None:
        """Closes the connection pool if no other client uses it; this one can't be used after that."""
        self._closed = True
        for pool in _POOLS.leave(self):
            pool.http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _pool(self) -> Pool[httpx.Client]:
        self.check_open()
        return self._given_pool or _POOLS.get(self._pool_key, self, self._new_pool)

    def _new_pool(self) -> Pool[httpx.Client]:
        from workersai.network import hold_to_deadlines  # noqa: PLC0415 - its imports take longer than ours

        http = new_client(httpx.Client, self.settings)
        hold_to_deadlines(http)
        pool = Pool(http, ours=True)
        pool.at_exit = weakref.finalize(pool, http.close)
        return pool


_POOLS: Pools[tuple[str | None, ...], httpx.Client] = Pools()


class _Exchange(Generic[T]):
    """The connection side of one call: does what the flow asks, and lets go of the response at the end."""

    def __init__(self, pool: Pool[httpx.Client], call: Call, flow: Flow[T]) -> None:
        self._pool = pool
        self._on_retry = call.on_retry
        self._flow = traced(call, flow)
        self._deadline = call.ends or Deadline(call.deadline)
        self._unbounded = call.deadline is None
        self._response: httpx.Response | None = None
        self._pieces: Iterator[bytes]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._flow.close()
        self._release()

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

    def _outcome(self, step: Step) -> tuple[Any, WorkersAIError | None]:
        """What a step gives, or how it failed."""
        if isinstance(step, Wait):
            return self._wait(step), None  # what it calls is not ours to tell of
        try:
            if self._unbounded and isinstance(step, Receive):  # each piece of most streams: the shortest way
                return next(self._pieces, b""), None
            with HeldTo(self._deadline):
                return self._in_time(step), None
        except FAILURES as error:
            failure = error_from_httpx(error, self._request, closed=self._pool.closed)
            return None, self._deadline.error(failure) if self._deadline.passed else failure
        except (APIConnectionError, APITimeoutError) as error:
            return None, error

    def _in_time(self, step: Step) -> Any:
        if isinstance(step, Receive):
            self._deadline.check()  # before, so that what had come in time is handed over
        outcome = self._do(step)
        if isinstance(step, Send | ReceiveAll):
            self._deadline.check()
        return outcome

    def _do(self, step: Step) -> Any:
        match step:
            case Receive():
                return next(self._pieces, b"")
            case Drain():
                with HeldTo(Deadline(END_OF_BODY)):
                    next(self._pieces, b"")
            case Send(request):
                return self._send(request)
            case ReceiveAll():
                return b"".join(self._all_pieces())
            case HangUp():
                return self._release()
            case Turn(limiter):
                self._take(limiter)
            case Pause(seconds):
                self._release()
                time.sleep(seconds)
        return None

    def _send(self, request: Request) -> ReplyHead:
        self._release()
        check_open(self._pool)
        self._request = build(self._pool, request, self._deadline.left())
        http = self._pool.http
        if not self._pool.ours:
            self._response = http.send(self._request, stream=True, follow_redirects=False)
        else:  # past httpx's cookies, redirects, auth and hooks, none of which our own pools have
            self._response = http._transport_for_url(self._request.url).handle_request(self._request)  # noqa: SLF001
        stream = self._response.stream
        if self._pool.ours and is_plain(self._response) and isinstance(stream, httpx.SyncByteStream):
            self._pieces = iter(stream)
        else:
            self._pieces = self._response.iter_bytes()
        return head_of(self._response)

    def _all_pieces(self) -> Iterator[bytes]:
        for piece in self._pieces:
            self._deadline.check()  # an http_client of the caller's own reads on as long as something comes
            yield piece

    def _take(self, limiter: Limiter) -> None:
        moved_up = threading.Event()
        with limiter.turn(moved_up.set) as turn:
            self._deadline.check_turn(turn.seconds())
            while seconds := turn.seconds():
                moved_up.wait(seconds)
                moved_up.clear()

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
        response, self._response = self._response, None
        if response is not None:
            response.close()
            if self._pool.closed:  # as the pool can't: it has forgotten all of its connections
                response.extensions["network_stream"].close()
