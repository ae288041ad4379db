"""The routes of the local server: who may ask, what may be asked, and who answers it."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import Any, TypedDict

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.errors import ServerErrorMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from workersai.catalog import CATALOG
from workersai.local.batch_bodies import batch_body
from workersai.local.batches import Batches, Item, items_of
from workersai.local.binding import (
    BINDING,
    MODELS_PATH,
    RUN_PATHS,
    is_run,
    model_of,
    run_from_binding,
    with_gateway,
)
from workersai.local.catalogue import listed_models, search_models
from workersai.local.dialects import DEFAULT_DIALECT, DialectName, has_template, run_dialect
from workersai.local.door import Door, HostNames
from workersai.local.embeddings import Embeddings
from workersai.local.engine import Engine, GenerationRequest
from workersai.local.exchange import Desk, Exchange
from workersai.local.faults import FaultPlan
from workersai.local.faulty import StalledError
from workersai.local.gateway import GatewayCache
from workersai.local.intake import read_body, too_large
from workersai.local.openai import OpenAIDialect, request_from_openai
from workersai.local.reading import request_from_body
from workersai.local.records import RequestLog, RequestRecord
from workersai.local.refusals import error_at
from workersai.local.validation import Json, body_from_json, run_body
from workersai.local.vectors import Embedder
from workersai.local.watch import ADMITTED, CONTENT, FAULT, RECORD, REFUSAL, ReplyWatch
from workersai.local.wire import (
    REST,
    UNEXPECTED,
    Manner,
    WireError,
    bad_input,
    error_envelope,
    to_json,
    too_long,
    wire_error_from,
)

logger = logging.getLogger("workersai.local")

BASE_PATH = "/client/v4"

_ACCOUNT = BASE_PATH + "/accounts/{account_id}/ai"
# The statuses of refusals after which a body may still be coming.
_BROKEN_OFF = (408, 413)


class Connection(TypedDict):
    """Where a service is, and whose calls it takes."""

    base_url: str
    account_id: str
    api_token: str


class LocalApp:
    """The ASGI application.

    Args:
        engine: Answers the requests. It is started and closed elsewhere.
        api_token: The one token that opens it.
        account_id: The one account that it serves.
        log: Where each request is recorded.
        faults: Which replies fail.
        batch_delay: Seconds that a batch stays queued.
        embedder: Gives the vectors, in place of MiniLM.
        names: The names by which the server may be called. Default: those of this machine's loopback.
        strict: Fields that the published schemas don't list are refused.
        dialect: The shape of the replies of ``/ai/run``.
    """

    def __init__(  # noqa: PLR0913 - each is an option of its own
        self,
        engine: Engine,
        *,
        api_token: str,
        account_id: str,
        log: RequestLog,
        faults: FaultPlan,
        batch_delay: float = 0.0,
        embedder: Embedder | None = None,
        names: HostNames | None = None,
        strict: bool = False,
        dialect: DialectName = DEFAULT_DIALECT,
    ) -> None:
        self._dialect = dialect
        self.desk = Desk(engine, asyncio.Semaphore(engine.slots))
        self._batches = Batches(self.desk, delay=batch_delay, dialect=dialect)
        self._embeddings = Embeddings(self.desk, embedder, strict=strict)
        self._engine = engine
        self._strict = strict
        self._log = log
        self._faults = faults
        self._gateway = GatewayCache()
        self._routes = Starlette(
            routes=[
                Route(_ACCOUNT + "/run/{model:path}", self._run, methods=["POST"]),
                Route(_ACCOUNT + "/v1/chat/completions", self._chat, methods=["POST"]),
                Route(_ACCOUNT + "/v1/embeddings", self._embed, methods=["POST"]),
                Route(_ACCOUNT + "/v1/models", self._list, methods=["GET"]),
                Route(_ACCOUNT + "/models/search", self._search, methods=["GET"]),
                *(Route(path, self._run_bound, methods=["POST"]) for path in RUN_PATHS),
                Route(MODELS_PATH, self._search, methods=["GET"]),
            ],
            exception_handlers={WireError: self._refuse, HTTPException: _no_route, Exception: _refused},
        )
        # A path that is nearly right is an error to learn of, not to be redirected from.
        self._routes.router.redirect_slashes = False
        names = names or HostNames("localhost")
        self._door = Door(self._routes.routes, names, api_token=api_token, account_id=account_id)
        # A function that chooses the faults may raise anything: the client is told.
        self._answers = ServerErrorMiddleware(self._answer, handler=_refused)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Reads the request, records it, and answers."""
        request = Request(scope, receive)
        verdict = self._door.check(request)
        with suppress(ClientDisconnect):  # it left before it had asked anything
            intake = await read_body(request, keep=verdict.reads_body)
            record = RequestRecord(request, intake.content, intake.size)
            self._log.add(record)
            scope[RECORD], scope[CONTENT] = record, intake.content
            scope[REFUSAL] = intake.broken or verdict.refusal
            scope[ADMITTED] = verdict.reads_body and intake.broken is None
            try:
                await self._answer_recorded(scope, receive, send, record)
            finally:
                record.end("failed")  # unless it has ended already

    async def _answer_recorded(self, scope: Scope, receive: Receive, send: Send, record: RequestRecord) -> None:
        if scope[REFUSAL] is not None:  # nothing is read from a cache for it either
            await self._answers(scope, receive, send)
            return
        # A Worker names its gateway in the body.
        named = with_gateway(scope, record.body) if is_run(scope["path"]) else scope
        await self._gateway.answer(self._answers, named, receive, send, scope[CONTENT], record)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        watch = ReplyWatch(scope, send)
        # A stranger uses up no fault, and a function that chooses one finds the body that it looks at.
        fault = self._faults.fault_for(scope[RECORD]) if scope[ADMITTED] else None
        scope[FAULT] = fault
        if fault is None:
            await watch.answer(self._routed, receive)
        else:
            await watch.answer_with(fault, self._routed, receive, self.desk)

    async def _routed(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = scope[REFUSAL]
        if refusal is None:
            await self._routes(scope, receive, send)
            return
        reply = _refused(Request(scope), refusal)
        if refusal.status in _BROKEN_OFF:
            reply.headers["connection"] = "close"  # what is still to come of the body is no request
        await reply(scope, receive, send)

    def _refuse(self, request: Request, error: Exception) -> Response:
        self._log.drop_large_body(request.scope[RECORD])
        return _refused(request, error)

    async def _run(self, request: Request) -> Response:
        queued = request.query_params.get("queueRequest") == "true"
        return await self._answered(request, _known(request.path_params["model"]), _body(request), REST, queued=queued)

    async def _run_bound(self, request: Request) -> Response:
        model = _known(model_of(request))
        body, queued = run_from_binding(_body(request))
        return await self._answered(request, model, body, BINDING, queued=queued)

    async def _answered(self, request: Request, model: str, body: Json, manner: Manner, *, queued: bool) -> Response:
        """The reply to a run, by whichever door it came."""
        if "request_id" in body:
            return _json(200, manner.result(self._batches.poll(body["request_id"], model), ()))
        if queued:
            return _json(200, manner.result(await self._submit(request, body, model), ()))
        if self._embeddings.serves(model):
            return self._embeddings.run(model, body, request.scope[RECORD], manner=manner)
        body = run_body(body, strict=self._strict)
        affine = _names_a_session(request)
        wanted = self._request_from(body, model, session_affinity=affine)
        tokens = await self._check_window(wanted)
        dialect = run_dialect(self._dialect, wanted, tell_cached=affine, manner=manner)
        busy = bool(body.get("options", {}).get("rejectIfBusy"))
        return Exchange(self.desk, wanted, dialect, request.scope[RECORD], prompt_tokens=tokens, reject_if_busy=busy)

    def _request_from(self, body: Json, model: str, *, session_affinity: bool = False) -> GenerationRequest:
        template = has_template(self._dialect)
        return request_from_body(body, model=model, session_affinity=session_affinity, template=template)

    async def _submit(self, request: Request, body: Json, model: str) -> Json:
        if self._embeddings.serves(model):
            items = self._embeddings.items(body, model)
        else:
            items = [
                Item(await self._in_window(self._request_from(dict(asked), model)), reference)
                for asked, reference in items_of(batch_body(body, strict=self._strict))
            ]
        return self._batches.submit(items, model, request.scope.get(FAULT))

    async def _chat(self, request: Request) -> Response:
        body = _body(request)
        model = _known(str(body.get("model", "")))
        if self._embeddings.serves(model):
            raise bad_input(f"'/model' {model} gives no text")
        affine = _names_a_session(request)
        chat = request_from_openai(body, session_affinity=affine)
        tokens = await self._check_window(chat.request)
        dialect = OpenAIDialect(
            model,
            json_mode=chat.request.json_schema is not None,
            include_usage=chat.include_usage,
            tell_cached=affine,
        )
        return Exchange(self.desk, chat.request, dialect, request.scope[RECORD], prompt_tokens=tokens)

    async def _embed(self, request: Request) -> Response:
        return self._embeddings.twin(_body(request), request.scope[RECORD])

    async def _list(self, request: Request) -> Response:
        del request  # the door has checked it
        return _json(200, listed_models())

    async def _search(self, request: Request) -> Response:
        return _json(200, search_models(request.query_params))

    async def _in_window(self, wanted: GenerationRequest) -> GenerationRequest | WireError:
        try:
            await self._check_window(wanted)
        except WireError as error:
            return error
        return wanted

    async def _check_window(self, wanted: GenerationRequest) -> int:
        """The tokens of the prompt.

        Raises:
            WireError: the request exceeds the context window (5021).
        """
        tokens = await self._engine.count_tokens(wanted)
        total = tokens + wanted.max_tokens
        window = CATALOG[wanted.model].context_window
        if total > window:
            raise too_long(total, window)
        return tokens


def _body(request: Request) -> Json:
    content = request.scope[CONTENT]
    if content is None:
        raise too_large()
    return body_from_json(content)


def _known(model: str) -> str:
    if model not in CATALOG and not Embeddings.serves(model):
        raise WireError(400, 5007, f"No such model {model} or task")
    return model


def _names_a_session(request: Request) -> bool:
    return bool(request.headers.get("x-session-affinity"))


def _json(status: int, body: Any) -> Response:
    return Response(to_json(body), status, media_type="application/json")


def _refused(request: Request, error: Exception) -> Response:
    told = wire_error_from(error)
    if told.code == UNEXPECTED and not isinstance(error, StalledError):
        logger.error("The server failed.", exc_info=error)
    return _json(told.status, error_at(request.scope["path"], told))


def _no_route(request: Request, error: Exception) -> Response:
    del error  # an unknown path or a wrong method: to the API both are no route
    path = request.scope["path"].removeprefix(BASE_PATH)
    return _json(404, error_envelope(WireError(404, 7003, f"Could not route to {request.method} {path}")))
