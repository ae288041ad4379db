"""Gateway: the AI Gateway that a call goes through, and what it is to do on the way.

The headers are those of wire.md#gateway-headers; the bounds are those that Cloudflare documents for AI Gateway
(Caching, Request handling, Custom metadata).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from workersai.checks import is_number, shown
from workersai.errors import BadRequestError
from workersai.headers import checked_header_value

_TTL = (60, 31 * 86_400)  # seconds; the longest is "one month"
_MOST_ATTEMPTS = 5
_LONGEST_DELAY = 5.0  # seconds
_LONGEST_TIMEOUT = 1_000_000.0  # seconds
_SHORTEST = 0.001  # seconds; the header counts milliseconds
_MOST_METADATA = 5  # entries; the gateway leaves out what is more, without a word
_BACKOFFS = ("constant", "linear", "exponential")


@dataclass(frozen=True)
class Gateway:
    """An AI Gateway of the account, and how it is to treat a call. What is not given, its own settings decide.

    Args:
        id: Its name in the dashboard.
        cache_ttl: Seconds that the reply is kept in its cache for equal requests, 60 to 2,678,400 (31 days).
        skip_cache: True: neither is the reply taken from the cache, nor is it kept.
        cache_key: Calls of the same key get the same answer, whatever they ask; by default, equal requests do. A
            stream and a call in JSON Mode send ``KEY.stream`` and ``KEY.json``, since a reply comes from the cache
            in the form in which it was kept. Embeddings and reranking send the key with a digest of the request: the
            vectors of other texts are no use.
        metadata: What the gateway's log has of the call: at most 5 strings, numbers or booleans.
        request_timeout: Seconds until the first piece of the reply must have come from the model.
        max_attempts: How often the gateway tries, 1 to 5. The retries of this package come on top: a call may be
            sent ``max_attempts`` times for each of its ``1 + max_retries`` attempts; give ``max_retries=0`` to leave
            it to the gateway.
        retry_delay: Seconds between two of its attempts, 5 at most.
        backoff: How the delay grows: ``"constant"``, ``"linear"`` or ``"exponential"``.

    A dict of the same names is taken in its place everywhere, for configurations. In bulk work, submissions and polls
    of the Batch API go through the gateway with its ``metadata`` alone, past its cache: an old answer to a poll would
    never tell of the end.

    Raises:
        BadRequestError: a setting can't be right; it is named.
    """

    id: str
    cache_ttl: int | None = None
    skip_cache: bool = False
    cache_key: str | None = None
    metadata: Mapping[str, str | int | float | bool] = field(default_factory=dict, hash=False)
    request_timeout: float | None = None
    max_attempts: int | None = None
    retry_delay: float | None = None
    backoff: Literal["constant", "linear", "exponential"] | None = None

    def __post_init__(self) -> None:
        _check_header("id", self.id)
        try:
            _check_id(self.id)
        except ValueError as error:
            raise BadRequestError(f"id {error}, got {shown(self.id)}.") from None
        _check_whole("cache_ttl", self.cache_ttl, *_TTL, " of seconds")
        if not isinstance(self.skip_cache, bool):
            raise BadRequestError(f"skip_cache must be True or False, not {shown(self.skip_cache)}.")
        if self.cache_key is not None:
            _check_header("cache_key", self.cache_key)
        object.__setattr__(self, "metadata", _checked_metadata(self.metadata))
        _check_seconds("request_timeout", self.request_timeout, _SHORTEST, _LONGEST_TIMEOUT)
        _check_whole("max_attempts", self.max_attempts, 1, _MOST_ATTEMPTS)
        _check_seconds("retry_delay", self.retry_delay, 0, _LONGEST_DELAY)
        if self.backoff is not None and self.backoff not in _BACKOFFS:
            raise BadRequestError(f"backoff must be one of {', '.join(_BACKOFFS)}, not {shown(self.backoff)}.")

    def as_dict(self) -> dict[str, Any]:
        """What was given, as JSON can hold it; ``Gateway(**gateway.as_dict())`` is equal to it."""
        unset = {"skip_cache": False, "metadata": {}}
        return {name: value for name, value in asdict(self).items() if value != unset.get(name)}

    def past_its_cache(self) -> Gateway:
        """The same gateway for requests that no cache may answer, and that only this package tries again."""
        return Gateway(self.id, skip_cache=True, metadata=self.metadata)

    def headers(self, form: str = "") -> dict[str, str]:
        """The request headers. ``form`` tells the cache keys of replies apart that are not of the same form."""
        told: dict[str, Any] = {
            "cf-aig-gateway-id": self.id,
            "cf-aig-cache-ttl": self.cache_ttl,
            "cf-aig-skip-cache": "true" if self.skip_cache else None,
            "cf-aig-cache-key": self.cache_key and ".".join(filter(None, [self.cache_key, form])),
            "cf-aig-metadata": json.dumps(self.metadata) if self.metadata else None,
            "cf-aig-request-timeout": _milliseconds(self.request_timeout),
            "cf-aig-max-attempts": self.max_attempts,
            "cf-aig-retry-delay": _milliseconds(self.retry_delay),
            "cf-aig-backoff": self.backoff,
        }
        return {name: str(value) for name, value in told.items() if value is not None}


def gateway_of(given: object) -> Gateway:
    """The gateway that an id, a dict or a :class:`Gateway` means.

    Raises:
        ValueError: it means none.
    """
    if isinstance(given, Gateway):
        return given
    if isinstance(given, str):
        _check_id(given)
        return Gateway(given)
    if not isinstance(given, Mapping):
        raise ValueError("must be a gateway's id, a workersai.Gateway, or a dict of its settings")  # noqa: TRY004 - Pydantic wraps it
    names = [each.name for each in fields(Gateway)]
    if "id" not in given or not set(given) <= set(names):
        raise ValueError(f"a dict has an id, and may have {', '.join(names[1:])}")
    try:
        return Gateway(**given)
    except BadRequestError as error:
        raise ValueError(error.message.removesuffix(".")) from None


def checked_gateway(given: Any) -> Gateway | str | None:
    """A gateway as it was given, but for a dict, which becomes a :class:`Gateway`.

    Raises:
        ValueError: it is none.
    """
    if given is None:
        return None
    gateway = gateway_of(given)
    return given if isinstance(given, str) else gateway


def _check_id(given: str) -> None:
    checked_header_value(given)
    if "/" in given:
        raise ValueError("must be the gateway's id, as in 'my-gateway': its URL is made from that and base_url")


def plain_gateway(gateway: Gateway | Mapping[str, Any] | str | None) -> Mapping[str, Any] | str | None:
    """A gateway as JSON can hold it."""
    return gateway.as_dict() if isinstance(gateway, Gateway) else gateway


def _milliseconds(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1_000)


def _check_header(name: str, value: object) -> None:
    if not isinstance(value, str):
        raise BadRequestError(f"{name} must be a string, not {shown(value)}.")
    try:
        checked_header_value(value)
    except ValueError as error:
        raise BadRequestError(f"{name} {error}, got {shown(value)}.") from None


def _check_whole(name: str, value: object, low: int, high: int, unit: str = "") -> None:
    whole = isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
    if value is not None and not whole:
        raise BadRequestError(f"{name} must be a whole number{unit} from {low} to {high:,}, not {shown(value)}.")


def _check_seconds(name: str, value: Any, low: float, high: float) -> None:
    if value is not None and not (is_number(value) and low <= value <= high):
        raise BadRequestError(f"{name} must be a number of seconds from {low:g} to {high:,.0f}, not {shown(value)}.")


def _checked_metadata(metadata: object) -> dict[str, Any]:
    if not isinstance(metadata, Mapping):
        raise BadRequestError(f"metadata must be a dict, not {type(metadata).__name__}.")
    if len(metadata) > _MOST_METADATA:
        raise BadRequestError(f"metadata has {len(metadata)} entries: a gateway keeps {_MOST_METADATA} at most.")
    for name, value in metadata.items():
        if not isinstance(name, str) or not name:
            raise BadRequestError(f"metadata: a name must be a string, and not empty; got {shown(name)}.")
        if not (isinstance(value, str | bool) or is_number(value)):
            raise BadRequestError(
                f"metadata[{shown(name)}] must be a string, a number or a boolean, not {shown(value)}."
            )
    try:
        checked_header_value(json.dumps(dict(metadata)))
    except ValueError as error:  # which can only be its length
        raise BadRequestError(f"metadata, as JSON, {error}.") from None
    return dict(metadata)
