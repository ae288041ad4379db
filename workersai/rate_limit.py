"""A rate limit, as it is set: so many calls in so many seconds."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from pydantic_core import core_schema

from workersai.checks import is_number, shown
from workersai.errors import ConfigurationError

_MOST_CALLS = 1_000_000


@dataclass(frozen=True)
class RateLimit:
    """So many calls in so many seconds, for all of this process that keep the same limit.

    The calls wait for their turn in the order in which they came; an attempt of a retry is a call as well. Several
    processes know nothing of each other: give each its share. The service takes 300 text generations a minute for an
    account (wire.md#limits).

    Args:
        calls: How many requests may begin within ``seconds``.
        seconds: The span; any span of that length, not only each full minute.
        name: Who shares it; by default all calls of the same account that give no name. Where calls share a limit,
            its numbers must be the same.

    Raises:
        ConfigurationError: a number is not above 0, or the name is no text.
    """

    calls: int = 300
    seconds: float = 60.0
    name: str | None = None

    def __post_init__(self) -> None:
        if self.name is not None and not (isinstance(self.name, str) and self.name):
            raise ConfigurationError(f"A rate limit's name must be a string, and not empty; got {shown(self.name)}.")
        if isinstance(self.calls, bool) or not isinstance(self.calls, int) or not 0 < self.calls <= _MOST_CALLS:
            raise ConfigurationError(f"calls must be a whole number above 0, not {shown(self.calls)}.")
        if not (is_number(self.seconds) and 0 < self.seconds < 1e9):  # noqa: PLR2004 - as long as one likes
            raise ConfigurationError(f"seconds must be a number above 0, not {shown(self.seconds)}.")

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(
            cls._validated, serialization=core_schema.plain_serializer_function_ser_schema(asdict)
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: core_schema.CoreSchema, handler: Any) -> dict[str, Any]:
        types = {"calls": "integer", "seconds": "number", "name": "string"}
        return {"type": "object", "properties": {name: {"type": kind} for name, kind in types.items()}}

    @classmethod
    def _validated(cls, value: Any) -> RateLimit:
        if isinstance(value, RateLimit):
            return value
        if isinstance(value, dict) and set(value) <= set(cls.__dataclass_fields__):  # as it is stored
            return cls(**value)
        raise ValueError("must be a workersai.RateLimit")


def check_agreed(limit: RateLimit, kept: RateLimit, where: str) -> None:
    """Fails where a limit has other numbers than the one that is kept under the same name.

    Raises:
        ConfigurationError: it has.
    """
    if kept != limit:
        whose = f"named {limit.name!r}" if limit.name else "of this account"
        raise ConfigurationError(
            f"The rate limit {whose} is {kept.calls} calls in {kept.seconds:g} s already, for all of {where}: use the "
            "same numbers, or give this one a name of its own."
        )
