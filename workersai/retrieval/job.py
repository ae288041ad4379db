"""The vectors of any number of texts, written once: a generator that says what to begin, and what to wait for.

It is a job as bulk work is, and driven by the same (``workersai/jobs``).
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from itertools import count
from operator import add
from typing import Any, Literal

from workersai.billing import may_have_been_billed
from workersai.calls import Call
from workersai.catalog import MOST_TEXTS
from workersai.errors import BadRequestError, ContextWindowExceededError, ServerError, WorkersAIError
from workersai.flows import Flow, Pause, another_try, ask
from workersai.jobs.parts import Told, poll, submission
from workersai.jobs.steps import Begin, Ended, Hand, JobFlow, Key, Next, Take
from workersai.protocol.batch import MOST_BYTES, placed
from workersai.protocol.embeddings import Embeddings, embeddings_of
from workersai.protocol.reply import ReplyHead, error_of, result_of, unreadable
from workersai.protocol.values import Usage
from workersai.retrieval.asking import Asker, Group, Text
from workersai.retrieval.long_texts import explain_too_long
from workersai.retrieval.options import Ways, dimensions_of

logger = logging.getLogger("workersai")

_TAKEN = 1_000  # texts that are read in one go; those of a batch
_MOST_AHEAD = 8_000  # texts; as many vectors of 1,024 numbers take a quarter of a gigabyte
_LONGEST_INTERVAL = 30.0  # seconds
_SLOWING = 1.5
_AROUND = 100  # bytes of a batch's body, beside its items


@dataclass
class _Share:
    """The groups of one request, and what has come for them."""

    groups: list[Group]
    found: dict[int, Embeddings] = field(default_factory=dict)
    """By the place of their group."""
    usages: list[Usage | None] = field(default_factory=list)
    missing: int = 1
    """Requests that are still to end: its own, and a call for each group that failed in a batch."""
    error: WorkersAIError | None = None

    @property
    def texts(self) -> int:
        return sum(len(group.texts) for group in self.groups)

    @property
    def has_ended(self) -> bool:
        return self.missing == 0 or self.error is not None

    def joined(self, model: str) -> Embeddings:
        return _joined([self.found[place] for place in range(len(self.groups))], model, self.usages)


@dataclass(frozen=True)
class _Answered:
    """What a batch gave: for each group the vectors, or how it failed; and the tokens of those that have them."""

    found: list[Embeddings | WorkersAIError]
    usage: Usage | None


class EmbeddingJob:
    """One run over some texts; it hands over :class:`Embeddings`, each of a group of texts, in their order."""

    def __init__(self, asker: Asker, ways: Ways) -> None:
        self._asker = asker
        self._ways = ways
        self._under_way = 0
        self._ahead = 0  # texts that were taken, and whose vectors were not handed over
        self._again: deque[tuple[_Share, int]] = deque()  # what failed in a batch: the place of a group in its share
        self._asked_for: dict[Key, tuple[_Share, int]] = {}
        self._failed = False
        self._numbers = count()

    def checked(self, texts: Sequence[Any]) -> Sequence[Text]:
        """All the texts, so that none is sent before each is known to be right; and the deadline is that of them all.

        Raises:
            BadRequestError: one is no string, empty, or too long.
        """
        self._asker.begin_deadline()
        found, failure = self._asker.texts(texts)
        if failure is not None:
            raise failure
        return found

    def whole(self, found: list[Embeddings]) -> Embeddings:
        """Groups of texts as one; the usage is None unless that of each is known."""
        return _joined(found, self._asker.options.model, [each.usage for each in found])

    def flow(self) -> JobFlow:
        """What is to be done, step by step.

        What fails is raised in its turn: the vectors of the texts before it are handed over first.
        """
        waiting: deque[_Share] = deque()
        begun: deque[_Share] = deque()
        taken = 0
        more, failure = True, None
        while True:
            while self._again and self._has_turn():
                yield self._call(*self._again.popleft())
            # So far ahead of what is handed over, and no further: the rest would fill the memory.
            while (more or waiting) and self._has_room() and not self._failed:
                if not waiting:
                    given: list[object] = yield Take(_TAKEN)
                    texts, failure = self._asker.texts(given, taken)
                    more = len(given) == _TAKEN and failure is None
                    waiting.extend(self._shares(self._asker.groups(texts)))
                    taken += len(given)
                    continue
                yield self._begin(waiting[0])
                begun.append(waiting.popleft())
            while begun and begun[0].has_ended:
                yield self._hand(begun.popleft())
            if not (begun or more or waiting):
                break
            if self._under_way:
                self._take_in((yield Next(None)))
        if failure is not None:
            raise failure

    def _has_turn(self) -> bool:
        return self._under_way < self._asker.options.max_concurrency

    def _has_room(self) -> bool:
        return self._has_turn() and self._ahead < max(_MOST_AHEAD, self._asker.options.max_concurrency * MOST_TEXTS)

    def _shares(self, groups: Iterable[Group]) -> Generator[_Share, None, None]:
        """The groups of each request."""
        if self._ways.mode == "calls":
            yield from (_Share([group]) for group in groups)
            return
        share: list[Group] = []
        size = _AROUND
        for group in groups:
            if share and size + group.size >= MOST_BYTES:
                yield _Share(share)
                share, size = [], _AROUND
            share.append(group)
            size += group.size
        if share:
            yield _Share(share)

    def _begin(self, share: _Share) -> Begin:
        self._ahead += share.texts
        if self._ways.mode == "calls":
            return self._call(share, 0)
        # A batch takes as long as it takes: no deadline holds for it.
        call = replace(self._asker.submission(share.groups), deadline=None)
        return self._started("submit", call, self._queued(call, share.groups), share, 0)

    def _call(self, share: _Share, place: int) -> Begin:
        group = share.groups[place]
        call = self._asker.call(group)
        return self._started("call", call, self._asked(call, group), share, place)

    def _started(
        self, kind: Literal["call", "submit"], call: Call, flow: Flow[Any], share: _Share, place: int
    ) -> Begin:
        key: Key = (kind, next(self._numbers))
        self._asked_for[key] = (share, place)
        self._under_way += 1
        return Begin(key, call, flow)

    def _take_in(self, ended: list[Ended]) -> None:
        for end in ended:
            self._under_way -= 1
            share, place = self._asked_for.pop(end.key)
            share.missing -= 1
            if end.error is not None:
                share.error, self._failed = end.error, True
            elif isinstance(end.value, _Answered):
                self._take_in_batch(share, end.value)
            else:
                share.found[place] = end.value
                share.usages.append(end.value.usage)

    def _take_in_batch(self, share: _Share, answered: _Answered) -> None:
        share.usages.append(answered.usage)
        for place, found in enumerate(answered.found):
            if isinstance(found, Embeddings):
                share.found[place] = found
                continue
            logger.info("Asking by a call for texts that failed in a batch: %s", found)
            share.missing += 1
            self._again.append((share, place))

    def _hand(self, share: _Share) -> Hand:
        if share.error is not None:
            raise share.error
        self._ahead -= share.texts
        return Hand([share.joined(self._asker.options.model)])

    def _asked(self, call: Call, group: Group) -> Flow[Embeddings]:
        def read(body: bytes, head: ReplyHead) -> Embeddings:
            return self._read(result_of(body, head), head, group)

        try:
            return (yield from ask(call, read))
        except (BadRequestError, ContextWindowExceededError) as error:
            texts, options = group.texts, self._asker.options
            explain_too_long(error, (texts[0].place, texts[-1].place), options, self._asker.card)
            raise

    def _read(self, result: Mapping[str, Any], head: ReplyHead, group: Group) -> Embeddings:
        model, texts = self._asker.options.model, len(group.texts)
        told = embeddings_of(result, head, model, texts=texts, dimensions=dimensions_of(model))
        usage = told.usage or self._asker.usage([group], billed=not head.from_cache)
        return replace(told, usage=usage, truncated=tuple(text.place for text in group.texts if text.was_cut))

    def _queued(self, call: Call, groups: list[Group]) -> Flow[_Answered]:
        """A batch from its submission to its vectors."""
        with call.meter() as meter:
            told = yield from _submitted(call)
            seconds = self._ways.poll_interval
            while told.reply.responses is None:
                if told.reply.failed or told.reply.request_id is None:
                    raise ServerError(f"A batch of {len(groups)} requests came to nothing: {told.reply.status}.")
                yield Pause(seconds)
                seconds = min(seconds * _SLOWING, _LONGEST_INTERVAL)
                again = yield from poll(self._asker.poll(told.reply.request_id, groups))
                reply = again.reply
                told = replace(again, reply=replace(reply, request_id=reply.request_id or told.reply.request_id))
            found = self._responses(told, groups)
            usages = [each.usage for each in found if isinstance(each, Embeddings)]
            meter.usage = told.reply.usage or (_sum(usages) if usages else self._asker.usage(()))
            failures = [each for each in found if isinstance(each, WorkersAIError)]
            meter.usage_is_total = told.reply.usage is not None or not any(map(may_have_been_billed, failures))
        return _Answered(found, meter.usage)

    def _responses(self, told: Told, groups: list[Group]) -> list[Embeddings | WorkersAIError]:
        responses = placed(told.reply.responses or (), [str(place) for place in range(len(groups))])
        return [self._response(response, told, group) for response, group in zip(responses, groups, strict=True)]

    def _response(self, response: object, told: Told, group: Group) -> Embeddings | WorkersAIError:
        result = response.get("result") if isinstance(response, dict) else None
        if error := error_of(response, told.head):
            return error
        if not isinstance(result, dict):
            return unreadable("left a group of texts out", told.head)
        try:
            return self._read(result, told.head, group)
        except WorkersAIError as failure:
            return failure


def _submitted(call: Call) -> Flow[Told]:
    tries = 0
    while True:
        told = yield from submission(call)
        if isinstance(told, Told):
            return told
        logger.warning("It is not known whether the service took a batch of texts: %s", told.error)
        if not (yield from another_try(call, told.error, tries)):
            raise told.error
        with call.meter():
            pass  # the batch that the service may have taken: the budgets must have room for it and for the next one
        logger.warning("The batch is sent again, and may be billed twice.")
        tries += 1


def _sum(usages: list[Usage | None]) -> Usage | None:
    """The usage of all together; None unless each is known."""
    known = [usage for usage in usages if usage is not None]
    return reduce(add, known) if len(known) == len(usages) > 0 else None


def _joined(found: list[Embeddings], model: str, usages: list[Usage | None]) -> Embeddings:
    return Embeddings(
        [vector for each in found for vector in each.vectors],
        model,
        _sum(usages),
        tuple(place for each in found for place in each.truncated),
        _common([each.pooling for each in found]),
        next((each.request_id for each in found), None),
        _common([each.cache_status for each in found]),
    )


def _common(told: list[str | None]) -> str | None:
    """What was told of all of them alike."""
    return told[0] if len(set(told)) == 1 else None
