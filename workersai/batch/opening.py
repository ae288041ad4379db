"""How a job begins: its requests are read into the journal, or it goes on where the journal says that it was."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from workersai.batch.journal import Journal
from workersai.batch.plan import Asker, Plan
from workersai.batch.reading import Reader
from workersai.batch.records import BATCH_INPUT, SHAPING, options_to_json
from workersai.batch.values import Progress
from workersai.checks import shown
from workersai.errors import ConfigurationError, JournalError
from workersai.jobs.steps import JobFlow, Take, Work
from workersai.protocol.batch import FIRST_BATCH_INPUT

logger = logging.getLogger("workersai")

_AT_ONCE = 500  # requests that are read, checked and kept in one go
SMALL_JOB = 300
"""Fewer rows are sent as single calls: the account's limit lets so many through in a minute (wire.md#limits)."""


class Opening:
    """The beginning of a job.

    Attributes:
        ready: Whether it can go on; not where it was stopped while its requests were being read.
    """

    def __init__(self, journal: Journal, plan: Plan, asker: Asker, progress: Progress) -> None:
        self._journal = journal
        self._plan = plan
        self._asker = asker
        self._progress = progress
        self.ready = bool(journal.fact("ready"))

    def flow(self, stopping: Callable[[], bool], *, has_requests: bool) -> JobFlow:
        """Fills a new journal, or checks that an old one is of this job.

        Raises:
            BadRequestError: a request can't be sent; none is.
            ConfigurationError: the journal is of another account.
            JournalError: the journal is another job's, or was never filled.
        """
        if self.ready and has_requests and (yield Work(self._starts_over)):
            self.ready = False
        if self.ready:
            yield Work(partial(self._check, whole=has_requests))
        elif not has_requests:
            raise JournalError(
                f"The job of {self._journal.path} ended while its requests were being read: nothing was sent. Begin it "
                "again, with its requests."
            )
        if has_requests:
            yield from self._read(stopping)
        if self.ready:
            yield Work(self._decide)

    def _read(self, stopping: Callable[[], bool]) -> JobFlow:
        keep = self._plan.on_invalid == "keep"
        reader = Reader(self._asker, mode=self._plan.mode, keep_invalid=keep)
        if not self.ready:
            yield Work(self._begin_anew)
        while sources := (yield Take(_AT_ONCE)):
            yield Work(partial(reader.skim if self.ready else partial(self._take_in, reader), sources))
            self._progress.rows = reader.count
            if stopping():
                self.ready = False
                return
        reader.check()
        digest = [reader.count, reader.digest]
        if not self.ready:
            yield Work(partial(self._note, digest))
        elif self._journal.fact("digest") != digest:
            raise JournalError(
                f"{self._journal.path} belongs to a job with other requests. Use another journal, or continue that job "
                "as it is (with None in place of the requests; on the command line, workersai batch resume). "
                f"{self._deletion()}"
            )

    def _starts_over(self) -> bool:
        """Whether a journal that was filled is filled again, since the job has come to nothing so far."""
        if not self._journal.got_nothing():
            return False
        kept, given = self._kept_and_given()
        changed = kept != given or self._journal.fact("account_id") != self._asker.settings.account_id
        if self._journal.progress().failed and not changed:
            return False  # what failed is asked again on request only
        level = logging.WARNING if changed else logging.INFO
        logger.log(level, "No request of %s was answered or billed: the journal is started over.", self._journal.path)
        return True

    def _kept_and_given(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The options of the journal, and those of this run. A job older than ``batch_input`` stays in its form."""
        kept: dict[str, Any] = self._journal.fact("options")
        given = self._asker.shaping
        if BATCH_INPUT not in kept:
            kept = {**kept, BATCH_INPUT: FIRST_BATCH_INPUT}
            if self._asker.given.get(BATCH_INPUT) is None:
                given = {**given, BATCH_INPUT: FIRST_BATCH_INPUT}
        return kept, given

    def _deletion(self) -> str:
        """What deleting the journal does."""
        if self._journal.progress().answered:
            return f"To start over without its answers, delete {self._journal.path}."
        if self._journal.got_nothing():
            return f"It has no answer: to start over, delete {self._journal.path}."
        return (
            "It has no answer, but some of its requests may be billed, so that it is not started over by itself: to "
            f"start over, delete {self._journal.path}."
        )

    def _begin_anew(self) -> None:
        with self._journal.transaction():
            self._journal.clear()

    def _take_in(self, reader: Reader, sources: Sequence[Any]) -> None:
        rows, outcomes = reader.read(sources)
        with self._journal.transaction():
            self._journal.add(rows)
            self._journal.finish(outcomes)

    def _note(self, digest: list[Any]) -> None:
        with self._journal.transaction(for_good=True):
            self._journal.note(
                digest=digest,
                options=self._asker.shaping,
                account_id=self._asker.settings.account_id,
                mode=self._plan.mode,
                notes=dict(self._plan.notes),
                ready=True,
            )
        self.ready = True

    def _check(self, *, whole: bool) -> None:
        """Lets a journal pass that is of the same account and options; the options are then the journal's."""
        path, asker = self._journal.path, self._asker
        account = self._journal.fact("account_id")
        if account != asker.settings.account_id:
            raise ConfigurationError(
                f"{path} is the journal of a job of the account {account}, not of {asker.settings.account_id}. Use "
                f"that account, or another journal. {self._deletion()}"
            )
        kept, given = self._kept_and_given()
        own = {name: asker.own[name] for name in SHAPING if name in asker.own}
        if not whole:
            given = options_to_json(own)
        for name in sorted({*given, *kept} if whole else {*given}):
            if given.get(name) != kept.get(name):
                raise JournalError(
                    f"{name} is {shown(given.get(name))}, but the job of {path} was started with "
                    f"{shown(kept.get(name))}. Use the same value, or another journal. {self._deletion()}"
                )
        asker.adopt(kept)

    def _decide(self) -> None:
        """Decides anew what is to be sent how, and what becomes of batches that were being sent."""
        journal = self._journal
        with journal.transaction():
            for part, *_ in journal.parts("sending"):
                logger.warning(
                    "The job ended while a batch (part %d) was being sent: it is not known whether the service took "
                    "it. Its rows are sent again, and may be billed twice.",
                    part,
                )
                journal.take_back(part, state="unclear")
            if self._plan.retry_failed:
                journal.ask_failed_again()
            small = journal.fact("mode") == "auto" and journal.batched() < SMALL_JOB
            if small or self._plan.mode == "calls":
                journal.call_all()
