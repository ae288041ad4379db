"""The usage in a reply, and in the events of a stream -> a Usage.

A stream counts in one of three ways, which have changed over time (wire.md#usage-in-streams): totals in an event
without choices, cumulative counts in each event, or increments in each event. :class:`UsageCounter` reads all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from workersai.checks import is_number
from workersai.protocol.values import Usage

_NO_COUNT = 1e12  # tokens
# The names of the chat shapes, and those of a Responses output.
_PROMPT = ("prompt_tokens", "input_tokens")
_COMPLETION = ("completion_tokens", "output_tokens")
_DETAILS = ("prompt_tokens_details", "input_tokens_details")


@dataclass(frozen=True, slots=True)
class Counts:
    """The numbers of one ``usage`` field; the published schema allows them to be fractions."""

    prompt: float = 0
    completion: float = 0
    cached: float = 0
    neurons: float | None = None

    @property
    def are_zero(self) -> bool:
        """Whether no tokens were counted."""
        return not (self.prompt or self.completion)

    def plus(self, other: Counts) -> Counts:
        """The counts of both."""
        both = [number for number in (self.neurons, other.neurons) if number is not None]
        return Counts(
            self.prompt + other.prompt,
            self.completion + other.completion,
            self.cached + other.cached,
            sum(both) if both else None,
        )

    def as_usage(self, model: str, *, billed: bool) -> Usage:
        """The counts as users get them; those of a gateway's cached reply are not billed."""
        prompt, completion = int(self.prompt), int(self.completion)
        unbilled = (0, 0) if billed else (prompt, completion)
        return Usage(prompt, completion, int(self.cached), model, *unbilled, self.neurons)


def counts_of(usage: Any) -> Counts | None:
    """The numbers of a ``usage`` field; None if there are none that could be added up, or priced."""
    if not isinstance(usage, dict) or not usage:
        return None
    prompt, completion = _first(usage, _PROMPT), _first(usage, _COMPLETION)
    if not all(isinstance(count, int | float) and 0 <= count < _NO_COUNT for count in (prompt or 0, completion or 0)):
        return None
    details = _first(usage, _DETAILS)
    cached = details.get("cached_tokens") if isinstance(details, dict) else None
    neurons = usage.get("neurons")
    return Counts(
        _number(prompt),
        _number(completion),
        _number(cached),
        float(neurons) if is_number(neurons) and 0 <= neurons < _NO_COUNT else None,
    )


def usage_of(usage: Any, model: str, *, billed: bool = True, neurons: float | None = None) -> Usage | None:
    """The usage of a whole reply, or None if it has none.

    Args:
        usage: The ``usage`` field.
        model: The model that was called.
        billed: False for a reply from a gateway's cache.
        neurons: What a header says of them; used if the field doesn't.
    """
    counts = counts_of(usage)
    if counts is None:
        return None
    if counts.neurons is None and neurons is not None:
        counts = Counts(counts.prompt, counts.completion, counts.cached, neurons)
    return counts.as_usage(model, billed=billed)


class UsageCounter:
    """Adds up what the events of one stream say of its usage.

    The rule that fits all captures (wire.md#usage-in-streams): a usage in an event without choices is the total.
    Without one, counts that never fall are cumulative, and the last stands; counts that fall are increments, and
    are summed. Zeros never replace counts.
    """

    def __init__(self) -> None:
        self._total: Counts | None = None
        self._last: Counts | None = None
        self._sum = Counts()
        self._fell = False

    def add(self, usage: Any, *, is_total: bool) -> None:
        """Takes the ``usage`` field of an event; ``is_total`` if the event has no choices."""
        counts = counts_of(usage)
        if counts is None:
            return
        if counts.are_zero:
            self._last = self._last or counts
            return
        if is_total:
            self._total = counts
            return
        last = self._last or Counts()
        self._fell = self._fell or counts.prompt < last.prompt or counts.completion < last.completion
        self._last, self._sum = counts, self._sum.plus(counts)

    @property
    def counts(self) -> Counts | None:
        """What was counted so far, also if the stream ends early; None if no event said anything."""
        return self._total or (self._sum if self._fell else self._last)


def _first(usage: dict[str, Any], names: tuple[str, ...]) -> Any:
    return next((usage[name] for name in names if usage.get(name) is not None), None)


def _number(number: Any) -> float:
    return number if is_number(number) else 0
