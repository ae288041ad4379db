"""A call, checked and ready: what both clients do with their arguments before a flow begins."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, Literal, TypeVar

import httpx
from pydantic import SecretStr
from typing_extensions import Unpack

from workersai.billing import Meter
from workersai.catalog import SERVICE_MAX_TOKENS
from workersai.costs import CostTracker, trackers_here
from workersai.deadline import Deadline
from workersai.errors import BadRequestError, ConfigurationError
from workersai.options import Options, call_options
from workersai.pacing import Limiter, RateLimit, limiter_of
from workersai.pools import PoolKey, settings_key
from workersai.protocol.affinity import in_session
from workersai.protocol.json_mode import JSONMode, ResponseFormat, json_mode_of
from workersai.protocol.reply import Asked
from workersai.protocol.request import Input, Request, input_body, run_request, used_call_ids
from workersai.protocol.tools import Offer, ToolChoice, ToolLike, offer_of
from workersai.retries import OnRetry
from workersai.settings import DEFAULT_MAX_RETRIES, Settings, hidden
from workersai.window import fitted, most_schema_tokens


class RunOptions(Options, total=False):
    """The keyword arguments of a run: those of every call, the tools, and the form of the answer."""

    tools: Sequence[ToolLike] | None
    tool_choice: ToolChoice | None
    parallel_tool_calls: bool | None
    response_format: ResponseFormat | None
    on_retry: OnRetry | None


_OF_A_CLIENT = ("account_id", "api_token", "base_url", "settings", "http_client", "on_retry")
_BESIDE_OPTIONS = [name for name in RunOptions.__annotations__ if name not in Options.__annotations__]


ClientT = TypeVar("ClientT", httpx.Client, httpx.AsyncClient)
Operation = Literal["chat", "text_completion", "embeddings", "rerank"]


@dataclass(frozen=True)
class Call:
    """One call: its request, what the reader of the reply must know, and how often to try.

    ``most_tokens`` are upper bounds of the prompt's and of the answer's tokens. ``in_json`` is the call that follows
    where this one was answered in text, and JSON was asked for: the service is not known to take tools and JSON Mode in
    one request. ``ends`` is the running deadline of a whole that the call is a part of. ``operation`` is None for
    requests of the Batch API, each of which is many.
    """

    request: Request
    asked: Asked
    max_retries: int
    in_json: Call | None = None
    trackers: tuple[CostTracker, ...] = ()
    most_tokens: tuple[int, int] = (0, 0)
    limiter: Limiter | None = None
    deadline: float | None = None
    on_retry: OnRetry | None = None
    ends: Deadline | None = None
    operation: Operation | None = None

    def meter(self) -> Meter:
        """What reports one request of this call to the trackers that it was made inside of."""
        return Meter(self.trackers, self.asked.model, self.most_tokens)


_STATE = ("settings", "_defaults", "_on_retry", "_given_http_client", "_closed")  # what a pickle holds


class BaseClient(Generic[ClientT]):
    """What :class:`~workersai.Client` and :class:`~workersai.AsyncClient` are alike in; their arguments stand there."""

    _http_kind: type[ClientT]
    awaits: bool
    """Whether it is for asyncio."""

    def __init__(
        self,
        *,
        account_id: str | None = None,
        api_token: str | SecretStr | None = None,
        base_url: str | None = None,
        settings: Settings | None = None,
        http_client: ClientT | Literal["httpx"] | None = None,
        on_retry: OnRetry | None = None,
        **defaults: Unpack[Options],
    ) -> None:
        api_token = hidden(api_token)
        call_options(defaults, beside=_OF_A_CLIENT)
        if settings is not None and (account_id or api_token or base_url):
            raise ConfigurationError("Give either settings, or account_id, api_token and base_url; not both.")
        if settings is not None and not isinstance(settings, Settings):
            raise ConfigurationError(f"settings must be workersai.Settings, not {type(settings).__name__}.")
        if not (http_client is None or http_client == "httpx" or isinstance(http_client, self._http_kind)):
            wanted, given = self._http_kind.__name__, type(http_client).__name__
            raise ConfigurationError(f"http_client must be an httpx.{wanted} or the word 'httpx', not {given}.")
        self.settings = settings or Settings(account_id=account_id, api_token=api_token, base_url=base_url)
        self._defaults = defaults
        self._on_retry = self.checked_on_retry(on_retry)
        self._given_http_client: ClientT | Literal["httpx"] | None = http_client
        self._closed = False

    def __repr__(self) -> str:
        settings = self.__dict__.get("settings")  # there is none while it is being made
        told = f"account_id={settings.account_id!r}, base_url={settings.base_url!r}" if settings else ""
        return f"{type(self).__name__}({told})"

    def __getstate__(self) -> dict[str, Any]:
        # Without the connection pools: they belong to a process, and are made again on first use.
        return {name: self.__dict__[name] for name in _STATE}

    @cached_property
    def _pool_key(self) -> PoolKey:
        return settings_key(self.settings)

    def check_open(self) -> None:
        """Fails once the client was closed.

        Raises:
            RuntimeError: it was.
        """
        if self._closed:
            raise RuntimeError(f"This {type(self).__name__} was closed; make another.")

    def checked_on_retry(self, on_retry: OnRetry | None) -> OnRetry | None:
        """What is to be told of retries, as it was given.

        Raises:
            BadRequestError: it can't be called, or only by an async client.
        """
        if on_retry is None:
            return None
        if not callable(on_retry):
            raise BadRequestError(f"on_retry must be a callable, not {type(on_retry).__name__}.")
        if inspect.iscoroutinefunction(on_retry) and not self.awaits:
            raise BadRequestError("on_retry is a coroutine function, which only an AsyncClient can await.")
        return on_retry

    def limiter_of(self, limit: RateLimit) -> Limiter:
        """Whose turns keep a limit."""
        return limiter_of(limit, self.settings.account_id)

    @property
    def on_retry(self) -> OnRetry | None:
        """What is told of the retries of calls that have none of their own."""
        return self._on_retry

    @property
    def defaults(self) -> Options:
        """The options that each call has unless it gives its own."""
        return self._defaults

    def prepare(self, model_input: Input, given: RunOptions, *, stream: bool = False) -> Call:
        """A call of this client, checked and ready; for what drives the flows.

        Raises:
            BadRequestError: the input, a tool or an option is not one that the service takes.
            ContextWindowExceededError: the prompt doesn't fit.
            RuntimeError: the client was closed.
        """
        self.check_open()
        rest: dict[str, Any] = {**self._defaults, **given}
        offer = offer_of(rest.pop("tools", None), rest.pop("tool_choice", None))
        json_mode = json_mode_of(rest.pop("response_format", None))
        parallel = rest.pop("parallel_tool_calls", None)
        if not isinstance(parallel, bool | None):
            raise BadRequestError(f"parallel_tool_calls must be a bool, not {type(parallel).__name__}.")
        on_retry = self.checked_on_retry(rest.pop("on_retry", None)) or self._on_retry
        options = call_options(rest, beside=_BESIDE_OPTIONS)

        trackers = trackers_here()
        in_budget = any(tracker.budget is not None for tracker in trackers)
        body = input_body(model_input, options, offer)
        options = in_session(options, body)
        fit = fitted(body, offer.tools, options, counted=in_budget)

        def call(offer: Offer, json_mode: JSONMode | None, in_json: Call | None = None) -> Call:
            # JSON Mode does not stream on the service (wire.md#json-mode).
            streams = stream and json_mode is None and in_json is None
            request = run_request(
                self.settings,
                fit.body,
                options,
                max_tokens=fit.max_tokens,
                offer=offer,
                json_mode=json_mode,
                stream=streams,
            )
            asked = Asked(
                model=options.model,
                max_tokens=fit.max_tokens,
                stop=tuple(options.stop or ()),
                offer=offer,
                parallel_tool_calls=parallel is not False,
                json_mode=json_mode,
                trimmed=fit.trimmed,
                used_call_ids=used_call_ids(body.messages),
            )
            return Call(
                request,
                asked,
                DEFAULT_MAX_RETRIES if options.max_retries is None else options.max_retries,
                in_json,
                trackers,
                (
                    fit.most_tokens + most_schema_tokens(json_mode, counted=in_budget),
                    fit.max_tokens or SERVICE_MAX_TOKENS,
                ),
                None if options.rate_limit is None else self.limiter_of(options.rate_limit),
                options.deadline,
                on_retry,
                operation="chat" if "messages" in fit.body else "text_completion",
            )

        if json_mode is None:
            return call(offer, None)
        in_json = call(Offer(), json_mode)
        return call(offer, None, in_json) if offer.callable_names else in_json
