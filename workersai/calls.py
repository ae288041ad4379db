"""A call, checked and ready: what both clients do with their arguments before a flow begins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import SecretStr
from typing_extensions import Unpack

from workersai.errors import ConfigurationError
from workersai.options import Options, call_options
from workersai.protocol.reply import Asked
from workersai.protocol.request import Input, Request, asked_of, run_request
from workersai.settings import DEFAULT_MAX_RETRIES, Settings

HTTPClientT = TypeVar("HTTPClientT")


@dataclass(frozen=True)
class Call:
    """One call: its request, what the reader of the reply must know, and how often to try."""

    request: Request
    asked: Asked
    max_retries: int


class BaseClient(Generic[HTTPClientT]):
    """What :class:`~workersai.Client` and :class:`~workersai.AsyncClient` are alike in; their arguments stand there."""

    _http_kind: type[HTTPClientT]

    def __init__(
        self,
        *,
        account_id: str | None = None,
        api_token: str | SecretStr | None = None,
        base_url: str | None = None,
        settings: Settings | None = None,
        http_client: HTTPClientT | None = None,
        **defaults: Unpack[Options],
    ) -> None:
        if settings is not None and (account_id or api_token or base_url):
            raise ConfigurationError("Give either settings, or account_id, api_token and base_url; not both.")
        if settings is not None and not isinstance(settings, Settings):
            raise ConfigurationError(f"settings must be workersai.Settings, not {type(settings).__name__}.")
        if http_client is not None and not isinstance(http_client, self._http_kind):
            wanted, given = self._http_kind.__name__, type(http_client).__name__
            raise ConfigurationError(f"http_client must be an httpx.{wanted}, not {given}.")
        self.settings = settings or Settings(account_id=account_id, api_token=api_token, base_url=base_url)
        call_options(defaults)
        self._defaults = defaults
        self._given_http_client = http_client
        self._closed = False

    def __repr__(self) -> str:
        return f"{type(self).__name__}(account_id={self.settings.account_id!r}, base_url={self.settings.base_url!r})"

    def __getstate__(self) -> dict[str, Any]:
        # Without the connection pools: they belong to a process, and are made again on first use.
        return {name: self.__dict__[name] for name in ("settings", "_defaults", "_given_http_client", "_closed")}

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError(f"This {type(self).__name__} was closed; make another.")

    def _prepare(
        self,
        model_input: Input,
        given: Options,
        response_format: Mapping[str, Any] | None = None,
        *,
        stream: bool = False,
    ) -> Call:
        self._check_open()
        options = call_options({**self._defaults, **given})
        retries = options.max_retries
        return Call(
            request=run_request(self.settings, model_input, options, response_format=response_format, stream=stream),
            asked=asked_of(options),
            max_retries=DEFAULT_MAX_RETRIES if retries is None else retries,
        )
