"""What the single calls of a job may have cost beyond what is known, so that the budget of a whole job counts it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from workersai.batch.journal import Journal
from workersai.batch.tables import UNCLEAR_CALLS
from workersai.calls import Call
from workersai.catalog import priced_card
from workersai.costs import CostTracker

_ROUNDING = 1e-9  # dollars
_LOWERED = 0.5  # of what was noted: so little of it is left that it is noted again


@dataclass
class CallCosts:
    """Single calls that may be billed without a known cost: those in progress, and those that ended so.

    Their number and an upper bound of their cost are in the journal before they are sent. If the process is killed,
    the next one starts from there.
    """

    journal: Journal
    _open: dict[int, tuple[CostTracker, float]] = field(default_factory=dict)
    _ended: tuple[int, float] = (0, 0.0)
    _noted: tuple[int, float] = (0, 0.0)

    def take_up(self) -> None:
        """Takes what earlier runs of the job have noted."""
        calls, cost = self.journal.fact(UNCLEAR_CALLS, (0, 0.0))
        self._ended = self._noted = (int(calls), float(cost))

    @property
    def cost_usd(self) -> float:
        """US dollars, at most, of the calls that have ended without a known cost."""
        return self._ended[1]

    def begin(self, number: int, call: Call) -> Call:
        """The call of a row, counted from now on."""
        own = CostTracker()
        most = _most_cost(call) + (0.0 if call.in_json is None else _most_cost(call.in_json))
        self._open[number] = own, most
        return _counted_by(own, call)

    def end(self, number: int) -> None:
        """Counts what of the call of a row remains unclear."""
        own, _ = self._open.pop(number)
        calls, cost = self._ended
        self._ended = calls + own.unpriced_calls, cost + own.held_usd

    @property
    def must_be_noted(self) -> bool:
        """Whether more calls, or more dollars, are unclear than the journal says."""
        calls, cost = self._bound()
        return calls > self._noted[0] or cost > self._noted[1] + _ROUNDING

    @property
    def is_noted(self) -> bool:
        """Whether the journal says exactly what is unclear."""
        return self._bound() == self._noted

    def note(self) -> None:
        """Writes the bound to the journal."""
        with self.journal.transaction():
            self._write()

    def note_if_lower(self) -> None:
        """Writes the bound to the journal, inside a transaction, if it is much lower than what is noted."""
        if self._bound()[0] < self._noted[0] * _LOWERED:
            self._write()

    def _write(self) -> None:
        self._noted = self._bound()
        self.journal.note(**{UNCLEAR_CALLS: self._noted})

    def _bound(self) -> tuple[int, float]:
        calls, cost = self._ended
        return calls + len(self._open), cost + sum(max(most, own.held_usd) for own, most in self._open.values())


def _most_cost(call: Call) -> float:
    card = priced_card(call.asked.model)
    return 0.0 if card is None else card.cost_usd(*call.most_tokens)


def _counted_by(tracker: CostTracker, call: Call) -> Call:
    in_json = None if call.in_json is None else _counted_by(tracker, call.in_json)
    return replace(call, trackers=(*call.trackers, tracker), in_json=in_json)
