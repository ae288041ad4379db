"""The batches of a job that the service works on: when the next is sent, and when each is asked for."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Generator
from dataclasses import dataclass
from functools import partial
from typing import Any

from workersai.batch.fatal import is_fatal
from workersai.batch.plan import Plan
from workersai.batch.settling import Books, Part
from workersai.batch.values import BatchResult
from workersai.errors import BadRequestError, ServerError, WorkersAIError
from workersai.jobs.parts import Told, Unclear, poll, submission
from workersai.jobs.steps import Begin, Ended, JobStep, NotSentError, Work
from workersai.retries import backoff

logger = logging.getLogger("workersai")

_AT_ONCE = 8
_LONGEST_WAIT = 30.0  # seconds between two polls of a batch, unless the first wait is longer already
_SLOWER = 1.5  # how much longer each wait is than the one before
_FAILED_POLLS = 5  # in a row, each with its own retries
_OF_THE_ADDRESS = (None, 7000, 7003)  # codes of a 4xx that tell of the address, and of no batch

Settled = Generator[JobStep, Any, "list[BatchResult]"]


@dataclass
class _Watch:
    """A batch that the service works on, and when to ask for it next."""

    request_id: str
    wait: float
    due: float
    failures: int = 0
    empty: int = 0  # replies that say that the batch has ended, without its responses
    asked: bool = False


class Batches:
    """The batches of a job.

    Attributes:
        no_money: Whether a budget has no room for the next one.
        stop: The error that stops the job, once there is one.
    """

    def __init__(self, plan: Plan, books: Books) -> None:
        self._plan = plan
        self._books = books
        self._watches = {
            part: _Watch(request_id, plan.poll_interval, time.monotonic())
            for part, request_id, _ in books.journal.parts("sent")
        }
        self._submitting: set[int] = set()
        self._more = True
        self._not_before = 0.0  # the next submission, after one that failed
        self._unclear = 0  # submissions in a row
        self.no_money = False
        self.stop: WorkersAIError | None = None

    @property
    def under_way(self) -> bool:
        """Whether a request is under way."""
        return bool(self._submitting) or any(watch.asked for watch in self._watches.values())

    @property
    def unfinished(self) -> bool:
        """Whether there is a batch to wait for, or one to send."""
        return bool(self._watches or self._submitting or self._more)

    @property
    def awaited(self) -> bool:
        """Whether the service works on one."""
        return bool(self._watches)

    def pause(self) -> float | None:
        """Seconds until there is something to begin; None where that is for others to say."""
        times = [watch.due for watch in self._watches.values() if not watch.asked]
        if self._more and not self.no_money and self._has_room():
            times.append(self._not_before)
        return max(0.0, min(times) - time.monotonic()) if times else None

    def _has_room(self) -> bool:
        """Whether a batch may be sent. One at a time: those being sent are what is unclear should the process end."""
        return not self._submitting and len(self._watches) < _AT_ONCE

    def begin_more(self) -> Settled:
        """Asks for those that are due, and sends more; the results are of rows that can't be sent any more."""
        now = time.monotonic()
        for part, watch in self._watches.items():
            if not watch.asked and watch.due <= now:
                watch.asked = True
                call = self._books.asker.poll(watch.request_id)
                yield Begin(("poll", part), call, poll(call))
        if self._more and not self.no_money and self._has_room() and self._not_before <= now:
            part_to_send: Part | None
            part_to_send, results = yield Work(partial(self._books.next_part, self._plan.part_size))
            if part_to_send is None:
                self.no_money = self._more = (yield Work(self._books.journal.batched)) > 0
                return list(results)
            call = self._books.asker.submission(part_to_send.items)
            self._submitting.add(part_to_send.id)
            yield Begin(("submit", part_to_send.id), call, submission(call))
            return list(results)
        return []

    def settle(self, end: Ended) -> Settled:
        """What becomes of a submission or a poll that has ended; the results that it gave."""
        kind, part = end.key
        if kind == "submit":
            return self._settle_submission(part, end)
        return self._settle_poll(part, end)

    def _settle_submission(self, part: int, end: Ended) -> Settled:
        self._submitting.discard(part)
        if isinstance(end.value, Told):
            self._unclear = 0
            request_id = end.value.reply.request_id
            if request_id is not None:
                yield Work(partial(self._books.sent, part, request_id))
            else:
                self._books.progress.parts += 1  # which has ended already
            self._watches[part] = watch = _Watch(request_id or "", self._plan.poll_interval, 0.0)
            return (yield from self._settle_told(part, watch, end.value))
        self._more = True
        unclear = isinstance(end.value, Unclear)
        yield Work(partial(self._books.take_back, part, unclear=unclear))
        if not isinstance(end.value, Unclear):
            self.stop = None if isinstance(end.error, NotSentError) else end.error
            return []
        error = end.value.error
        logger.warning(
            "It is not known whether the service took a batch (part %d): its rows are to be sent again, and may be "
            "billed twice. %s",
            part,
            error,
        )
        wait = backoff(error, self._unclear)
        self._unclear += 1
        if wait is None or self._unclear > self._books.asker.carrier.max_retries:
            self.stop = error
        else:
            self._not_before = time.monotonic() + wait
        return []

    def _settle_poll(self, part: int, end: Ended) -> Settled:
        watch = self._watches[part]
        watch.asked = False
        if end.error is None:
            watch.failures = 0
            return (yield from self._settle_told(part, watch, end.value))
        if isinstance(end.error, BadRequestError) and end.error.code not in _OF_THE_ADDRESS:  # it is not known any more
            return (yield from self._fail(part, end.error))
        if isinstance(end.error, NotSentError):
            return []
        watch.failures += 1
        if is_fatal(end.error) or isinstance(end.error, BadRequestError) or watch.failures == _FAILED_POLLS:
            self.stop = end.error
        logger.info("A batch (part %d) could not be asked for: %s", part, end.error)
        self._put_off(watch, end.error.retry_after or 0.0)
        return []

    def _settle_told(self, part: int, watch: _Watch, told: Told) -> Settled:
        if told.reply.failed:
            said = f"The service tells that the batch is {told.reply.status!r}. Ask for its rows again."
            error = ServerError(said, request_id=told.head.request_id, retryable=False)
            return (yield from self._fail(part, error))
        if told.reply.responses is None:
            watch.empty += told.reply.lacks_responses
            if watch.empty == _FAILED_POLLS:
                said = (
                    f"The service reports that the batch is {told.reply.status!r}, but has no responses. Send its rows "
                    "again."
                )
                error = ServerError(said, request_id=told.head.request_id, retryable=False)
                return (yield from self._fail(part, error))
            self._put_off(watch)
            return []
        del self._watches[part]
        self._more = True  # some of its rows may have to be sent again
        results: list[BatchResult]
        results, fatal = yield Work(partial(self._books.finish_part, part, told))
        self.stop = self.stop or fatal
        return results

    def _fail(self, part: int, error: WorkersAIError) -> Settled:
        del self._watches[part]
        results: list[BatchResult] = yield Work(partial(self._books.fail_part, part, error))
        return results

    def _put_off(self, watch: _Watch, least: float = 0.0) -> None:
        """Asks for it later, and at no time that others have as well."""
        wait = max(watch.wait, least) * random.uniform(1.0, 1.2)  # noqa: S311 - not a secret
        watch.due = time.monotonic() + wait
        watch.wait = max(watch.wait, min(_LONGEST_WAIT, watch.wait * _SLOWER))
