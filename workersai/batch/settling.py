"""What becomes of a call that has ended: its results are kept in the journal, and told to who waits for them."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field

from workersai.batch.call_costs import CallCosts
from workersai.batch.fatal import is_fatal
from workersai.batch.journal import Journal
from workersai.batch.plan import Asker
from workersai.batch.results import (
    outcome_to_journal,
    request_of_row,
    result_of,
    sum_usages,
    usage_beyond,
    usage_of_outcome,
    with_finish_reason,
)
from workersai.batch.tables import Row
from workersai.batch.values import BatchResult, Progress
from workersai.costs import CostTracker
from workersai.errors import BudgetExceededError, WorkersAIError
from workersai.jobs.parts import Told
from workersai.protocol.batch import bytes_of, item_of, outcome_of, placed, room
from workersai.protocol.reply import Asked
from workersai.protocol.values import Completion, Usage

logger = logging.getLogger("workersai")


@dataclass(frozen=True)
class Part:
    """A batch that is about to be sent."""

    id: int
    items: Sequence[str]


@dataclass
class Books:
    """The journal of a job, and the sums over it, kept together."""

    journal: Journal
    asker: Asker
    progress: Progress
    held: dict[int, float] = field(default_factory=dict)
    """What is kept of the budgets for each batch under way."""
    asked: dict[int, list[Asked]] = field(default_factory=dict)
    """What the reader of each batch must know of its rows; of those that this process has sent."""
    calls: CallCosts = field(init=False)
    """What single calls may cost beyond what is known."""

    def __post_init__(self) -> None:
        self.calls = CallCosts(self.journal)

    def take_up(self) -> None:
        """Keeps of the budgets what the batches may cost that an earlier run of the job has sent."""
        self.calls.take_up()
        for part, _, cost in self.journal.parts("sent"):
            self.held[part] = cost
            for tracker in self.asker.trackers:
                tracker.keep(cost)

    def close(self) -> None:
        """Gives back what is kept for batches whose end this run doesn't see."""
        for part in list(self.held):
            self._release(part)

    def _release(self, part: int) -> None:
        held = self._forget(part)
        for tracker in self.asker.trackers:
            tracker.release(held)

    def next_part(self, most_rows: int) -> tuple[Part | None, list[BatchResult]]:
        """The next batch, noted before it is sent, and rows that can't be sent any more.

        It is None where no row is left, or the budget has no room for one; also where the journal was taken away.
        """
        self.journal.check_place()
        if self.journal.lost is not None:
            return None, []
        items: list[str] = []
        numbers: list[int] = []
        asked: list[Asked] = []
        unfit: list[tuple[Row, WorkersAIError]] = []
        size, cost = 0, 0.0
        money = min((tracker.left for tracker in self.asker.trackers), default=float("inf"))
        card, form = self.asker.card, self.asker.batch_input
        with closing(self.journal.waiting(batched=True)) as rows:
            for row in rows:
                try:
                    call = self.asker.call(request_of_row(row))
                except WorkersAIError as error:  # by another estimate of its tokens than the one that let it pass
                    unfit.append((row, error))
                    continue
                item = item_of(json.loads(call.request.content), row.reference, form)
                size += bytes_of(item)
                own = 0.0 if card is None else card.cost_usd(*self.asker.in_batch(call).most_tokens)
                if len(items) == most_rows or size > room() or cost + own > money:
                    break
                items.append(item)
                numbers.append(row.number)
                asked.append(call.asked)
                cost += own
        results = self.finish_calls(unfit)
        if not items or not self._held(cost, f"a batch of {len(items):,} rows"):
            return None, results
        with self.journal.transaction(for_good=True):
            part = self.journal.open_part(numbers, cost)
        self.held[part], self.asked[part] = cost, asked
        return Part(part, items), results

    def _held(self, cost: float, why: str) -> bool:
        """Keeps so much of each budget; False where another has taken it meanwhile."""
        holding: list[CostTracker] = []
        try:
            for tracker in self.asker.trackers:
                tracker.hold(cost, why)
                holding.append(tracker)
        except BudgetExceededError:
            for tracker in holding:
                tracker.release(cost)
            return False
        return True

    def refusal(self) -> BudgetExceededError | None:
        """Why no budget has room for the next row of a batch, or None where there is room now."""
        with closing(self.journal.waiting(batched=True)) as rows:
            row = next(rows, None)
        return None if row is None else self.asker.refusal(request_of_row(row), batched=True)

    def sent(self, part: int, request_id: str) -> None:
        """Notes the id that the service gave a batch."""
        with self.journal.transaction(for_good=True):
            self.journal.sent(part, request_id)
        self.progress.parts += 1

    def take_back(self, part: int, *, unclear: bool) -> None:
        """Lets the rows of a batch be sent again."""
        with self.journal.transaction(for_good=True):
            self.journal.take_back(part, state="unclear" if unclear else "refused")
        self.progress.unclear_parts += unclear
        if not unclear:
            self._release(part)
            return
        rows = len(self.asked.get(part, ()))
        held = self._forget(part)
        self.progress.unclear_cost_usd += held
        for tracker in self.asker.trackers:
            tracker.settle(held, None, calls=rows)

    def finish_part(self, part: int, told: Told) -> tuple[list[BatchResult], WorkersAIError | None]:
        """Keeps the answers of a batch; gives the results, and an error that stops the job.

        Rows whose error is worth it are sent again, as often as a call would be.
        """
        rows = self.journal.rows_of(part)
        responses = told.reply.responses or ()
        by_place = placed(responses, [row.reference for row in rows])
        answered = sum(response is not None for response in by_place)
        if answered < len(responses):
            logger.warning("A batch (part %d) came with %d answers of no row.", part, len(responses) - answered)
        fatal: WorkersAIError | None = None
        ended: list[tuple[Row, Completion | WorkersAIError]] = []
        of_rows = self.asked.get(part) or [self._asked_of(row) for row in rows]
        for row, response, asked in zip(rows, by_place, of_rows, strict=True):
            outcome = outcome_of(response, told.head, asked)
            if isinstance(outcome, Completion):
                ended.append((row, with_finish_reason(outcome, asked)))
            elif is_fatal(outcome):
                fatal = outcome
            elif not (outcome.retryable and row.tries < self.asker.carrier.max_retries):
                ended.append((row, outcome))
        return self._close_part(part, ended, len(rows), told.reply.usage), fatal

    def _asked_of(self, row: Row) -> Asked:
        try:
            return self.asker.call(request_of_row(row)).asked
        except WorkersAIError:  # by another estimate of its tokens than the one that it was sent by
            return self.asker.carrier.asked

    def fail_part(self, part: int, error: WorkersAIError) -> list[BatchResult]:
        """Ends a batch that came to nothing: each of its rows has its error."""
        rows = self.journal.rows_of(part)
        return self._close_part(part, [(row, error) for row in rows], len(rows), None)

    def _close_part(
        self, part: int, ended: Sequence[tuple[Row, Completion | WorkersAIError]], rows: int, usage: Usage | None
    ) -> list[BatchResult]:
        paid = [(outcome, usage_of_outcome(outcome)) for _, outcome in ended]
        own = sum_usages([known for _, known in paid if known is not None], self.asker.model)
        # Rows that report their usage are counted one by one, and the part only for what the total has beyond them.
        rest = usage_beyond(usage, own)
        is_known = rest is not None or (
            own is not None and all(known is not None for outcome, known in paid if isinstance(outcome, Completion))
        )
        tokens = (None, None) if rest is None else (rest.prompt_tokens, rest.completion_tokens)
        cost = rest.cost_usd if rest is not None else 0.0 if is_known else None
        with self.journal.transaction():
            results = self._keep(ended)
            self.journal.finish_part(part, tokens, cost)
        self._count(rest)
        self.progress.parts -= 1
        held = self._forget(part)
        if not is_known:
            self.progress.unclear_cost_usd += held
        counted = sum_usages([part_of_it for part_of_it in (own, rest) if part_of_it is not None], self.asker.model)
        for tracker in self.asker.trackers:
            tracker.settle(held, counted, calls=rows, is_total=is_known)
        return results

    def _forget(self, part: int) -> float:
        """Forgets what was known of a batch; what was kept of the budgets for it."""
        self.asked.pop(part, None)
        return self.held.pop(part, 0.0)

    def finish_calls(self, ended: Sequence[tuple[Row, Completion | WorkersAIError]]) -> list[BatchResult]:
        """Keeps what single calls ended with."""
        if not ended:
            return []
        with self.journal.transaction():
            self.calls.note_if_lower()
            return self._keep(ended)

    def end_call(self, number: int) -> None:
        """Counts what of a single call, which has ended, remains unclear."""
        before = self.calls.cost_usd
        self.calls.end(number)
        self.progress.unclear_cost_usd += self.calls.cost_usd - before

    def _keep(self, ended: Iterable[tuple[Row, Completion | WorkersAIError]]) -> list[BatchResult]:
        ended = list(ended)
        self.journal.finish([outcome_to_journal(row.number, outcome) for row, outcome in ended])
        for _, outcome in ended:
            if isinstance(outcome, Completion):
                self.progress.answered += 1
            else:
                self.progress.failed += 1
            self._count(usage_of_outcome(outcome))
        return [result_of(row, outcome) for row, outcome in ended]

    def _count(self, usage: Usage | None) -> None:
        if usage is not None:
            self.progress.prompt_tokens += usage.prompt_tokens
            self.progress.completion_tokens += usage.completion_tokens
            self.progress.cost_usd += usage.cost_usd or 0.0
