"""What both clients do with the arguments of ``batch`` before a job begins."""

from __future__ import annotations

import os
from collections.abc import AsyncIterable, Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

from workersai.batch.job import Job
from workersai.batch.plan import Asker, Plan
from workersai.batch.reading import Mode
from workersai.batch.values import BatchRequest
from workersai.calls import BaseClient, RunOptions
from workersai.checks import shown
from workersai.costs import trackers_here
from workersai.errors import BadRequestError
from workersai.protocol.batch import BatchInput


class BatchOptions(RunOptions, total=False):
    """The keyword arguments of a job: the options of its calls, and how it is to be done."""

    journal: str | os.PathLike[str] | None
    """A file in which the job is kept, so that it can go on after whatever ended it: call ``batch`` again with the same
    journal, and with the same requests or none. It gives all results then, those that the journal has first. Without
    one, a job lasts as long as its results are asked for."""

    mode: Mode
    """``"batch"``: by the Async Batch API, which takes texts, messages and sampling settings, as ``batch_input`` says.
    ``"calls"``: as single calls. ``"auto"``, the default: by the Batch API where
    the model has it, the request fits (no tools, ``response_format``, ``top_k``, ``lora``, ``raw``), and there are 300
    such requests or more."""

    batch_input: BatchInput
    """How texts and messages stand in the items of the Async Batch API. It doesn't change single calls.

    ``"template"``, the default for Llama 3 models: one prompt in the markup of Llama's chat template. The model answers
    it whether or not the service applies a template of its own. ``"messages"``, the default for other models: the
    messages, which the published item doesn't list. ``"prompt"``: the text unchanged; a longer conversation becomes one
    text (:func:`~workersai.batch.prompt_of`). If the service applies no chat template, the model continues such a
    prompt in place of answering it. The journal keeps the form. With ``prompt_form="completion"``, a text is the
    item's prompt, unchanged, in each form.
    """

    in_order: bool
    """Whether results come in the order of the requests; by default as soon as they are there."""

    part_size: int
    """Most requests in one batch, 1,000 by default; its body is under 10 MB in any case. Eight batches at most are
    under way."""

    concurrency: int
    """Single calls at once, 32 by default."""

    poll_interval: float
    """Seconds until a batch is first asked for, 2 by default; later polls are further apart, up to 30 seconds."""

    retry_failed: bool
    """Whether requests for which the journal has an error are asked again; by default not."""

    on_invalid: Literal["refuse", "keep"]
    """What becomes of requests that can't be sent. ``"refuse"``, the default: nothing is sent, and an error tells of
    them. ``"keep"``: each is a result with its error."""

    hands_over: bool
    """False: results are only kept in the journal, and none is given."""

    notes: Mapping[str, Any]
    """Whatever a new journal is to keep with the job, as JSON can hold it; see :func:`~workersai.batch.notes_of`."""


_OF_THE_JOB = frozenset(BatchOptions.__annotations__) - frozenset(RunOptions.__annotations__)


def without_the_jobs(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a job's calls: all but those that say how the job is to be done."""
    return {name: value for name, value in options.items() if name not in _OF_THE_JOB}


_SOURCES: dict[bool, tuple[type, ...]] = {False: (Iterable,), True: (Iterable, AsyncIterable)}
_WAYS = {each.name for each in fields(Plan)}


def job_of(client: BaseClient[Any], requests: object, options: BatchOptions) -> Job:
    """The job that a client was asked for.

    Raises:
        BadRequestError: a setting or an option can't be right; or there are neither requests nor a journal.
        ConfigurationError: there is a budget, and the price of the model is not known.
        RuntimeError: the client was closed.
    """
    ways: dict[str, Any] = {name: value for name, value in options.items() if name in _WAYS}
    own: dict[str, Any] = {name: value for name, value in options.items() if name not in _WAYS}
    if ways.get("journal") is not None:
        ways["journal"] = _path_of(ways["journal"])
    elif requests is None:
        raise BadRequestError("batch takes requests, or the journal of a job to go on with.")
    alone = isinstance(requests, str | bytes | Mapping | BatchRequest)
    if requests is not None and (alone or not isinstance(requests, _SOURCES[client.awaits])):
        raise BadRequestError(
            f"batch takes requests one after the other, as in a list, not {type(requests).__name__}; run asks one."
        )
    asker = Asker(client.settings, client.prepare, {**client.defaults, **own}, own, trackers_here())
    return Job(Plan(**ways), asker, has_requests=requests is not None)


def _path_of(journal: object) -> Path:
    """The one path of a file, by whatever name it was given."""
    if not isinstance(journal, str | os.PathLike) or not os.fspath(journal) or "\0" in str(journal):
        raise BadRequestError(f"journal must be the path of a file, not {shown(journal)}.")
    return Path(journal).resolve()
