"""Who calls what: the account, the token and the base URL, read from the environment once and checked once."""

from __future__ import annotations

import ipaddress
import os
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx
from pydantic import SecretStr
from typing_extensions import Self

from workersai.errors import ConfigurationError

DEFAULT_BASE_URL = "https://api.cloudflare.com/client/v4"
DEFAULT_TIMEOUT = 120.0
DEFAULT_MAX_RETRIES = 2
DEFAULT_MAX_REPLY_BYTES = 67_108_864  # 64 MiB

# Cloudflare's own SDK and CLI use the first names, the older LangChain package the others (wire.md#requests).
ACCOUNT_VARIABLES = ("CLOUDFLARE_ACCOUNT_ID", "CF_ACCOUNT_ID")
TOKEN_VARIABLES = ("CLOUDFLARE_API_TOKEN", "CF_AI_API_TOKEN")
BASE_URL_VARIABLES = ("CLOUDFLARE_BASE_URL",)

# Labels of letters, digits, - and _, up to 63 of them each; or the digits of an IPv6 address.
_HOST = r"[\w-]{1,63}(\.[\w-]{1,63})*|[0-9a-f.]*:[0-9a-f:.]*"


@dataclass(frozen=True, init=False, repr=False)
class Settings:
    """The account that calls, and where.

    Args:
        account_id: Default: ``CLOUDFLARE_ACCOUNT_ID``, then ``CF_ACCOUNT_ID``.
        api_token: Default: ``CLOUDFLARE_API_TOKEN``, then ``CF_AI_API_TOKEN``.
        base_url: Default: ``CLOUDFLARE_BASE_URL``, then Cloudflare's. It must be https, unless its host is loopback.

    A pickle of it, or of what holds it, is without the token, which is read from the environment again where it is
    loaded: worker processes need one of those variables.

    Raises:
        ConfigurationError: one is missing, or can't be right.
    """

    account_id: str
    api_token: SecretStr
    base_url: str

    def __init__(
        self,
        *,
        account_id: str | None = None,
        api_token: str | SecretStr | None = None,
        base_url: str | None = None,
    ) -> None:
        api_token = hidden(api_token)
        # A frozen dataclass is set up this way; nothing changes it later.
        for name, value in (
            ("account_id", _checked_account(_first(account_id, ACCOUNT_VARIABLES))),
            ("api_token", _checked_token(_first_token(api_token))),
            ("base_url", _checked_base_url(_first(base_url, BASE_URL_VARIABLES) or DEFAULT_BASE_URL)),
        ):
            object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        # As a dataclass has it, and also of one that is still being made: debuggers and tracebacks show those.
        return f"Settings({', '.join(f'{name}={value!r}' for name, value in self.__dict__.items())})"

    def __reduce__(self) -> tuple[Any, ...]:
        # A pickle ends up in caches and on other machines: the token is read from the environment again.
        return _settings_without_token, (self.account_id, self.base_url)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self


def _settings_without_token(account_id: str, base_url: str) -> Settings:
    try:
        return Settings(account_id=account_id, base_url=base_url)
    except ConfigurationError as error:
        raise ConfigurationError(f"A pickle holds no token. {error.message}") from None


def hidden(token: str | SecretStr | None) -> SecretStr | None:
    """The token as what no ``repr`` shows, so that no traceback that prints local variables does either.

    Raises:
        ConfigurationError: it is no string.
    """
    if token is None or isinstance(token, SecretStr):
        return token
    if not isinstance(token, str):
        raise ConfigurationError(f"api_token must be a string, not {type(token).__name__}.")
    return SecretStr(token)


def _first_token(given: SecretStr | None) -> SecretStr:
    candidates = (given, *(hidden(os.environ.get(name)) for name in TOKEN_VARIABLES))
    return next((token for token in candidates if token and token.get_secret_value().strip()), SecretStr(""))


def _first(argument: str | None, variables: tuple[str, ...]) -> str:
    if argument is not None and not isinstance(argument, str):
        kind = type(argument).__name__
        raise ConfigurationError(f"What stands for {variables[0]} must be a string, not {kind}.")
    candidates = (argument, *(os.environ.get(name) for name in variables))
    return next((value.strip() for value in candidates if value and value.strip()), "")


def _checked_account(account_id: str) -> str:
    if not account_id:
        raise ConfigurationError(
            f"There is no account id: pass account_id, or set {' or '.join(ACCOUNT_VARIABLES)}. It is the hexadecimal "
            "number in the address of your Cloudflare dashboard (dash.cloudflare.com/<account id>)."
        )
    if not re.fullmatch(r"[\w-]+", account_id, re.ASCII):
        raise ConfigurationError("account_id may hold only letters, digits, - and _.")
    return account_id


def _checked_token(token: SecretStr) -> SecretStr:
    if not token:
        raise ConfigurationError(
            f"There is no API token: pass api_token, or set {' or '.join(TOKEN_VARIABLES)}. Make one that may use "
            "Workers AI at https://dash.cloudflare.com/profile/api-tokens."
        )
    if not re.fullmatch(r"[!-~]+", token.get_secret_value().strip()):
        # The token itself is not shown: an error message ends up in logs.
        raise ConfigurationError("api_token holds a space, a control character or one outside ASCII.")
    return SecretStr(token.get_secret_value().strip())


def _checked_base_url(base_url: str) -> str:
    if not re.fullmatch(r"[!-~]{1,2000}", base_url):
        raise ConfigurationError("base_url holds a space, a control character or one outside ASCII, or is too long.")
    if not set("@?#").isdisjoint(base_url):  # before all else, since what follows shows it
        raise ConfigurationError("base_url may not hold a user name, a query or a fragment.")
    scheme, _, _ = base_url.partition("://")
    if scheme not in ("http", "https"):
        raise ConfigurationError(f"base_url needs a scheme and a host, as in {DEFAULT_BASE_URL}.")
    try:
        host, port = urlsplit(base_url).hostname or "", urlsplit(base_url).port
        sent_to = httpx.URL(base_url)
        agreed = sent_to.host == host and sent_to.port in (port, None)
    except (ValueError, httpx.InvalidURL) as error:
        raise ConfigurationError(f"base_url {base_url!r} is not a URL: {error}.") from None
    if not host or not agreed or not re.fullmatch(_HOST, host):
        raise ConfigurationError(f"base_url {base_url!r} has no host that can be looked up: {host!r}.")
    if scheme == "http" and not is_loopback(host):
        raise ConfigurationError(f"base_url {base_url!r} must be https: the token would travel in the clear.")
    return base_url.rstrip("/")


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, by its name or its number."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
