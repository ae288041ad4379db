"""The ``usage`` of replies with ``choices``: the totals, and what each event of a stream adds to them.

See wire.md#usage-in-streams: the first event has the prompt's tokens, each later one its own.
"""

from __future__ import annotations

from typing import Any

from workersai.catalog import CATALOG
from workersai.local.engine import PromptRead, TextPiece, Usage
from workersai.local.wire import usage_to_wire

# Cloudflare's price of a neuron, the unit that it bills in.
_USD_PER_NEURON = 0.011 / 1_000


def total_usage(usage: Usage, model: str | None = None, *, tell_cached: bool) -> dict[str, Any]:
    """A ``usage`` object, with the neurons if a model with a price is given.

    The number of cached tokens is always there; it is 0 unless ``tell_cached``.
    """
    cached = usage.cached_tokens if tell_cached else 0
    told = usage_to_wire(Usage(usage.prompt_tokens, usage.completion_tokens, cached), tell_cached=True)
    card = CATALOG.get(model or "")
    if card is not None:
        neurons = card.cost_usd(usage.prompt_tokens, usage.completion_tokens) / _USD_PER_NEURON
        told["neurons"] = round(neurons, 4)
    return told


class Increments:
    """The increments of one stream, which add up to its usage.

    Args:
        model: The model, for the neurons.
        tell_cached: The request named a session, so that cached tokens are counted.
    """

    def __init__(self, model: str, *, tell_cached: bool) -> None:
        self._model = model
        self._tell_cached = tell_cached
        self._sent = Usage(0, 0)

    def prompt(self, prompt: PromptRead) -> dict[str, Any]:
        """The usage of the first event."""
        return self._add(Usage(prompt.prompt_tokens, 0, prompt.cached_tokens))

    def piece(self, piece: TextPiece) -> dict[str, Any]:
        """The usage of a piece of text."""
        return self._add(Usage(0, piece.tokens))

    def rest(self, total: Usage) -> dict[str, Any]:
        """The usage of the last event: all tokens that no event has had, such as those of calls."""
        sent = self._sent
        return self._add(
            Usage(
                max(0, total.prompt_tokens - sent.prompt_tokens),
                max(0, total.completion_tokens - sent.completion_tokens),
                max(0, total.cached_tokens - sent.cached_tokens),
            )
        )

    def _add(self, usage: Usage) -> dict[str, Any]:
        sent = self._sent
        self._sent = Usage(
            sent.prompt_tokens + usage.prompt_tokens,
            sent.completion_tokens + usage.completion_tokens,
            sent.cached_tokens + usage.cached_tokens,
        )
        return total_usage(usage, self._model, tell_cached=self._tell_cached)
