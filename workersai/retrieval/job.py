"""The vectors of any number of texts, written once: a generator that says what to begin, and what to wait for.

The drivers of bulk work (``workersai/batch/threads.py`` and ``tasks.py``) drive it, too.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from typing import Any, Literal

from workersai.batch.parts import Told, poll, submission
from workersai.batch.steps import Begin, Ended, Hand, JobFlow, Next, Take
from workersai.calls import Call
from workersai.errors import BadRequestError, ServerError, WorkersAIError
from workersai.flows import Flow, Pause, ask
from workersai.protocol.batch import MOST_BYTES, placed
from workersai.protocol.embeddings import Embeddings, embeddings_of
from workersai.protocol.reply import ReplyHead, error_of, result_of, unreadable
from workersai.protocol.values import Usage
from workersai.retrieval.asking import Asker, Group, Text
from workersai.retrieval.options import dimensions_of

logger = logging.getLogger("workersai")

_TAKEN = 1_000  # texts that are read in one go; those of a batch
_LONGEST_INTERVAL = 30.0  # seconds
_SLOWING = 1.5
_AROUND = 100  # bytes of a batch's body, beside its items
_HOUR = 3_600


@dataclass(frozen=True)
class Ways:
    """How the vectors are asked for."""

    mode: Literal["calls", "batch"] = "calls"
    poll_interval: float = 2.0

    def __post_init__(self) -> None:
        if self.mode not in ("calls", "batch"):
            raise BadRequestError(f"mode must be 'calls' or 'batch', not {self.mode!r:.80}.")
        seconds = self.poll_interval
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds <= _HOUR:
            raise BadRequestError(f"poll_interval must be seconds above 0, at most 3,600, not {seconds!r:.80}.")


class EmbeddingJob:
    """One run over some texts; it hands over :class:`Embeddings`, each of a group of texts, in their order."""

    def __init__(self, asker: Asker, ways: Ways) -> None:
        self._asker = asker
        self._ways = ways
        self._under_way = 0
        self._ended: dict[int, Embeddings] = {}

    def checked(self, texts: Sequence[Any]) -> Sequence[Text]:
        """All the texts, so that none is sent before each is known to be right.

        Raises:
            BadRequestError: one is no string, empty, or too long.
        """
        return self._asker.texts(texts)

    def whole(self, found: list[Embeddings]) -> Embeddings:
        """Groups of texts as one; the usage is None unless that of each is known."""
        usages = [each.usage for each in found if each.usage is not None]
        known = len(usages) == len(found) > 0
        return _joined(found, self._asker.options.model, reduce(add, usages) if known else None)

    def flow(self) -> JobFlow:
        """What is to be done, step by step."""
        waiting: deque[list[Group]] = deque()
        begun = handed = taken = 0
        more = True
        while True:
            # So far ahead of what is handed over, and no further: the rest would fill the memory.
            while (more or waiting) and self._has_room(begun - handed):
                if not waiting:
                    texts: list[object] = yield Take(_TAKEN)
                    more = len(texts) == _TAKEN
                    waiting.extend(self._shares(self._asker.groups(self._asker.texts(texts, taken))))
                    taken += len(texts)
                    continue
                yield self._begin(begun, waiting.popleft())
                begun += 1
            while handed in self._ended:
                yield Hand([self._ended.pop(handed)])
                handed += 1
            if handed == begun and not more and not waiting:
                return
            if self._under_way:
                self._take_in((yield Next(None)))

    def _has_room(self, ahead: int) -> bool:
        most = self._asker.options.max_concurrency
        return self._under_way < most and ahead < 4 * most

    def _shares(self, groups: Iterable[Group]) -> Generator[list[Group], None, None]:
        """The groups of each request."""
        if self._ways.mode == "calls":
            yield from ([group] for group in groups)
            return
        share: list[Group] = []
        size = _AROUND
        for group in groups:
            if share and size + group.size >= MOST_BYTES:
                yield share
                share, size = [], _AROUND
            share.append(group)
            size += group.size
        if share:
            yield share

    def _begin(self, number: int, groups: list[Group]) -> Begin:
        self._under_way += 1
        if self._ways.mode == "calls":
            call = self._asker.call(groups[0])
            return Begin(("call", number), call, self._asked(call, groups[0]))
        # A batch takes as long as it takes: no deadline holds for it.
        call = replace(self._asker.submission(groups), deadline=None)
        return Begin(("submit", number), call, self._queued(call, groups))

    def _take_in(self, ended: list[Ended]) -> None:
        for end in ended:
            self._under_way -= 1
            if end.error is not None:
                raise end.error
            self._ended[end.key[1]] = end.value

    def _asked(self, call: Call, group: Group) -> Flow[Embeddings]:
        def read(body: bytes, head: ReplyHead) -> Embeddings:
            return self._read(result_of(body, head), head, group)

        return ask(call, read)

    def _read(self, result: Mapping[str, Any], head: ReplyHead, group: Group) -> Embeddings:
        model, texts = self._asker.options.model, len(group.texts)
        told = embeddings_of(result, head, model, texts=texts, dimensions=dimensions_of(model))
        usage = told.usage or self._asker.usage([group], billed=not head.from_cache)
        return replace(told, usage=usage, truncated=tuple(text.place for text in group.texts if text.was_cut))

    def _queued(self, call: Call, groups: list[Group]) -> Flow[Embeddings]:
        """A batch from its submission to its vectors; a group that failed in it is asked for by a call."""
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
            meter.usage = told.reply.usage or self._asker.usage(groups)
        found: list[Embeddings] = []
        for group, response in zip(groups, self._responses(told, groups), strict=True):
            found.append(response if isinstance(response, Embeddings) else (yield from self._after(response, group)))
        return _joined(found, self._asker.options.model, meter.usage)

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

    def _after(self, error: WorkersAIError, group: Group) -> Flow[Embeddings]:
        logger.info("Asking by a call for texts that failed in a batch: %s", error)
        return self._asked(self._asker.call(group), group)


def _submitted(call: Call) -> Flow[Told]:
    tries = 0
    while True:
        told = yield from submission(call)
        if isinstance(told, Told):
            return told
        if tries == call.max_retries:
            raise told.error
        tries += 1
        logger.warning("It is not known whether a batch of texts was taken; it may be billed twice: %s", told.error)


def _joined(found: list[Embeddings], model: str, usage: Usage | None) -> Embeddings:
    return Embeddings(
        [vector for each in found for vector in each.vectors],
        model,
        usage,
        tuple(place for each in found for place in each.truncated),
        _common([each.pooling for each in found]),
        next((each.request_id for each in found), None),
        _common([each.cache_status for each in found]),
    )


def _common(told: list[str | None]) -> str | None:
    """What was told of all of them alike."""
    return told[0] if len(set(told)) == 1 else None
