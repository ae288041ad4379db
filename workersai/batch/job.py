"""A job, written once: a generator that says what to begin and what to wait for, and keeps the journal.

It knows no thread and no event loop; ``workersai/jobs`` drives it. What is known of a row is in the journal
before anything further is done with it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from contextlib import closing
from dataclasses import fields
from functools import partial
from itertools import islice

from workersai._cleanup import finish
from workersai.batch.fatal import is_fatal
from workersai.batch.journal import Journal
from workersai.batch.opening import Opening
from workersai.batch.plan import Asker, Plan
from workersai.batch.results import request_of_row, result_of_row
from workersai.batch.settling import Books
from workersai.batch.tables import Row
from workersai.batch.underway import Batches
from workersai.batch.values import BatchResult, Progress
from workersai.errors import BudgetExceededError, WorkersAIError
from workersai.flows import run
from workersai.jobs.steps import Begin, Ended, Hand, JobFlow, Leave, Next, NotSentError, Work
from workersai.protocol.values import Completion

_CHUNK = 500  # results that are read, or rows that are looked up, in one go


class Job:
    """One run of a job, from where its journal says that it is, to its end or to an error that stops it.

    Args:
        plan: How it is to be done.
        asker: What makes its calls.
        has_requests: Whether the caller gives requests, and not only a journal.
    """

    def __init__(self, plan: Plan, asker: Asker, *, has_requests: bool) -> None:
        self.progress = Progress()
        self._plan = plan
        self._asker = asker
        self._has_requests = has_requests
        self._calls: dict[int, Row] = {}
        self._rows: deque[Row] = deque()  # that are to be single calls next
        self._last_row = -1
        self._more_rows = True
        self._no_money = False
        self._told = 0  # results, in order
        self._stop: WorkersAIError | None = None
        self._stopping = False
        self._journal = Journal(plan.journal)
        self._books = Books(self._journal, asker, self.progress)

    def stop(self) -> None:
        """Lets the job end as soon as what is under way has ended; from any thread."""
        self._stopping = True

    @property
    def _goes_on(self) -> bool:
        return self._stop is None and not self._stopping and self._journal.lost is None

    def flow(self) -> JobFlow:
        """The steps of the job.

        Raises:
            WorkersAIError: an error that no row would escape; the journal is ready to go on.
        """
        try:
            yield Work(partial(self._journal.open, must_exist=not self._has_requests))
            opening = Opening(self._journal, self._plan, self._asker, self.progress)
            yield from opening.flow(lambda: self._stopping, has_requests=self._has_requests)
            if not opening.ready:
                return
            yield Work(self._begin_books)
            yield from self._hand_stored()
            yield from self._go_on()
        finally:
            finish(self._close)

    def _close(self) -> None:
        self._books.close()
        self._journal.close()

    def _begin_books(self) -> None:
        counted = self._journal.progress()
        for name in (each.name for each in fields(Progress)):
            setattr(self.progress, name, getattr(counted, name))
        self._books.take_up()
        self._batches = Batches(self._plan, self._books)

    def _hand_stored(self) -> JobFlow:
        """Hands over what the journal has already; in order, as far as there is no gap."""
        if not self._plan.hands_over:
            return
        if self._plan.in_order:
            yield from self._hand_in_order()
        last = -1
        while not self._plan.in_order:
            stored: list[BatchResult] = yield Work(partial(self._stored, last))
            if not stored:
                break
            last = stored[-1].index
            yield Hand(stored)

    def _stored(self, after: int) -> list[BatchResult]:
        with closing(self._journal.results(after)) as results:
            return [result_of_row(*stored) for stored in islice(results, _CHUNK)]

    def _hand_in_order(self) -> JobFlow:
        while stored := (yield Work(self._stored_in_order)):
            self._told += len(stored)
            yield Hand(stored)

    def _stored_in_order(self) -> list[BatchResult]:
        found: list[BatchResult] = []
        with closing(self._journal.results(self._told - 1)) as results:
            for stored in islice(results, _CHUNK):
                if stored[0].number != self._told + len(found):
                    break
                found.append(result_of_row(*stored))
        return found

    def _hand(self, results: Sequence[BatchResult]) -> JobFlow:
        if not self._plan.hands_over:
            return
        if self._plan.in_order:
            yield from self._hand_in_order()
        else:
            for start in range(0, len(results), _CHUNK):
                yield Hand(results[start : start + _CHUNK])

    def _go_on(self) -> JobFlow:
        left = False
        while True:
            if self._goes_on:
                yield from self._hand((yield from self._batches.begin_more()))
                yield from self._begin_calls()
            if not self._goes_on and not left:
                left = True
                yield Leave()
            self.progress.calls = len(self._calls)
            if not self._is_busy():
                if self._can_pay():
                    continue
                break
            ended: list[Ended] = yield Next(self._batches.pause() if self._goes_on else None)
            if ended:
                yield from self._settle(ended)
        if not self._books.calls.is_noted:
            yield Work(self._books.calls.note)
        if self._journal.lost is not None:
            raise self._journal.lost
        if self._stop is not None:
            raise self._stop

    def _is_busy(self) -> bool:
        """Whether there is anything to wait for. Where the next step waits only for money, there is not."""
        under_way = bool(self._calls) or self._batches.under_way
        if under_way or not self._goes_on:
            return under_way
        return self._batches.awaited or (self._batches.unfinished and not self._lacks_money)

    @property
    def _lacks_money(self) -> bool:
        return self._no_money or self._batches.no_money

    def _can_pay(self) -> bool:
        """Whether a row that a budget had no room for can be paid for, now that nothing else is under way."""
        if not (self._lacks_money and self._goes_on):
            return False
        self._stop = (
            self._asker.refusal(request_of_row(self._rows[0]), batched=False) if self._rows else self._books.refusal()
        )
        self._no_money = self._batches.no_money = False
        return self._stop is None

    def _begin_calls(self) -> JobFlow:
        begun: list[Begin] = []
        while len(self._calls) < self._plan.concurrency and not self._no_money:
            if not self._rows and self._more_rows:
                self._rows.extend((yield Work(self._next_rows)))
            if not self._rows:
                break
            row = self._rows.popleft()
            try:
                call = self._books.calls.begin(row.number, self._asker.call(request_of_row(row)))
            except WorkersAIError as error:  # a row that was kept although it can't be sent
                yield from self._hand((yield Work(partial(self._books.finish_calls, [(row, error)]))))
            else:
                self._calls[row.number] = row
                begun.append(Begin(("call", row.number), call, run(call)))
        if self._books.calls.must_be_noted:
            yield Work(self._books.calls.note)
        yield from begun

    def _next_rows(self) -> list[Row]:
        with closing(self._journal.waiting(batched=False, after=self._last_row)) as rows:
            found = list(islice(rows, _CHUNK))
        self._more_rows = len(found) == _CHUNK
        if found:
            self._last_row = found[-1].number
        return found

    def _settle(self, ended: Sequence[Ended]) -> JobFlow:
        """Keeps what has ended, all single calls at once, and hands over the results."""
        self._no_money = self._batches.no_money = False
        results: list[BatchResult] = []
        outcomes: list[tuple[Row, Completion | WorkersAIError]] = []
        for end in ended:
            if end.key[0] != "call":
                results += yield from self._batches.settle(end)
                self._stop = self._stop or self._batches.stop
                continue
            row, outcome = self._calls.pop(end.key[1]), end.error or end.value
            self._books.end_call(row.number)
            if isinstance(outcome, NotSentError):
                continue
            if isinstance(outcome, BudgetExceededError):
                self._rows.appendleft(row)
                self._no_money = True
            elif isinstance(outcome, WorkersAIError) and is_fatal(outcome):
                self._stop = self._stop or outcome
            else:
                outcomes.append((row, outcome))
        results += yield Work(partial(self._books.finish_calls, outcomes))
        yield from self._hand(results)
