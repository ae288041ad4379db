"""How a job begins: its requests are read into the journal, or it goes on where the journal says that it was."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from typing import Any

from workersai.batch.journal import Journal
from workersai.batch.plan import Asker, Plan
from workersai.batch.reading import Reader
from workersai.batch.records import SHAPING, options_to_json
from workersai.batch.steps import JobFlow, Take, Work
from workersai.errors import ConfigurationError, JournalError

logger = logging.getLogger("workersai")

_AT_ONCE = 500  # requests that are read, checked and kept in one go
_SMALL_JOB = 300
"""Fewer rows are sent as single calls: the account's limit lets so many through in a minute (wire page, "Errors")."""


def opened(journal: Journal, plan: Plan, asker: Asker, *, has_requests: bool) -> JobFlow:
    """Fills a new journal, or checks that an old one is of this job.

    Raises:
        BadRequestError: a request can't be sent; none is.
        JournalError: the journal is another job's, or was never filled.
    """
    ready = bool(journal.fact("ready"))
    if ready:
        yield Work(partial(_check_job, journal, asker, whole=has_requests))
    elif not has_requests:
        raise JournalError(
            f"The job of {journal.path} ended while its requests were being read: nothing was sent. Begin it again, "
            "with its requests."
        )
    if has_requests:
        yield from _read(journal, plan, asker, again=ready)
    yield Work(partial(_make_ready, journal, plan))


def _read(journal: Journal, plan: Plan, asker: Asker, *, again: bool) -> JobFlow:
    keep = plan.on_invalid == "keep"
    reader = Reader(asker.call, model=asker.model, mode=plan.mode, keep_invalid=keep)
    if not again:
        yield Work(partial(_begin_anew, journal))
    while sources := (yield Take(_AT_ONCE)):
        yield Work(partial(reader.skim, sources) if again else partial(_take_in, journal, reader, sources))
    reader.check()
    digest = [reader.count, reader.digest]
    if again and journal.fact("digest") != digest:
        raise JournalError(
            f"{journal.path} is the journal of other requests than these: choose another journal, or go on with it "
            "without requests."
        )
    if not again:
        facts = {
            "digest": digest,
            "options": asker.shaping,
            "account_id": asker.settings.account_id,
            "mode": plan.mode,
            "ready": True,
        }
        yield Work(partial(_note, journal, facts))


def _begin_anew(journal: Journal) -> None:
    with journal.transaction():
        journal.clear()


def _take_in(journal: Journal, reader: Reader, sources: Sequence[Any]) -> None:
    rows, outcomes = reader.read(sources)
    with journal.transaction():
        journal.add(rows)
        journal.finish(outcomes)


def _note(journal: Journal, facts: dict[str, Any]) -> None:
    with journal.transaction(for_good=True):
        journal.note(**facts)


def _check_job(journal: Journal, asker: Asker, *, whole: bool) -> None:
    """Lets a journal pass that is of the same account and options; the options are then the journal's.

    Raises:
        ConfigurationError: it is of another account.
        JournalError: it is of other options.
    """
    account = journal.fact("account_id")
    if account != asker.settings.account_id:
        raise ConfigurationError(
            f"{journal.path} is the journal of a job of the account {account}, not of {asker.settings.account_id}."
        )
    kept: dict[str, Any] = journal.fact("options")
    given = (
        asker.shaping if whole else options_to_json({name: asker.own[name] for name in SHAPING if name in asker.own})
    )
    for name in sorted({*given, *kept} if whole else {*given}):
        if given.get(name) != kept.get(name):
            raise JournalError(
                f"{name} is {given.get(name)!r:.80}, but the job of {journal.path} was begun with "
                f"{kept.get(name)!r:.80}: use the same, or another journal."
            )
    asker.adopt(kept)


def _make_ready(journal: Journal, plan: Plan) -> None:
    """Decides anew what is to be sent how, and what becomes of batches that were being sent."""
    with journal.transaction():
        for part, _ in journal.parts("sending"):
            logger.warning(
                "The job ended while a batch (part %d) was being sent: it is not known whether the service took it. "
                "Its rows are sent again, and may be billed twice.",
                part,
            )
            journal.take_back(part, state="unclear")
        if plan.retry_failed:
            journal.ask_failed_again()
        small = journal.fact("mode") == "auto" and journal.batched() < _SMALL_JOB
        if small or plan.mode == "calls":
            journal.call_all()
