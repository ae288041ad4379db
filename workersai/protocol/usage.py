"""The usage in a reply, and in the events of a stream -> a Usage.

A stream counts in one of three ways, which have changed over time (wire.md#usage-in-streams): totals in an event
without choices, cumulative counts in each event, or increments in each event. :class:`UsageCounter` reads all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

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
    if not (_is_count(prompt) and _is_count(completion)):
        return None
    details = _first(usage, _DETAILS)
    cached = details.get("cached_tokens") if isinstance(details, dict) else 0
    neurons = usage.get("neurons")
    return Counts(
        prompt or 0,
        completion or 0,
        cached if _is_count(cached) and cached else 0,
        float(neurons) if neurons is not None and _is_count(neurons) else None,
    )


def _first(usage: dict[str, Any], names: tuple[str, str]) -> Any:
    value = usage.get(names[0])
    return usage.get(names[1]) if value is None else value


def _is_count(value: Any) -> bool:
    """Whether it is None, or a number that can be a count."""
    return value is None or (isinstance(value, int | float) and 0 <= value < _NO_COUNT)


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
        self._fell = False
        # The sums of the increments, which nearly every event of a stream adds to: numbers are the fastest form.
        self._prompt = self._completion = self._cached = self._neurons = 0.0
        self._has_neurons = False

    def add(self, usage: Any, *, is_total: bool) -> None:
        """Takes the ``usage`` field of an event; ``is_total`` if the event has no choices."""
        counts = counts_of(usage) if usage else None
        if counts is None:
            return
        if not (counts.prompt or counts.completion):
            self._last = self._last or counts
            return
        if is_total:
            self._total = counts
            return
        last = self._last
        if last is not None and (counts.prompt < last.prompt or counts.completion < last.completion):
            self._fell = True
        self._last = counts
        self._prompt += counts.prompt
        self._completion += counts.completion
        self._cached += counts.cached
        if counts.neurons is not None:
            self._has_neurons = True
            self._neurons += counts.neurons

    @property
    def counts(self) -> Counts | None:
        """What was counted so far, also if the stream ends early; None if no event said anything."""
        if self._total is not None or not self._fell:
            return self._total or self._last
        return Counts(self._prompt, self._completion, self._cached, self._neurons if self._has_neurons else None)
