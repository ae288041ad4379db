"""From what a caller gives to rows of the journal: each request is checked before any is sent."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

from workersai.batch.journal import Outcome
from workersai.batch.records import BATCH_INPUT, SHAPING, error_to_json, metadata_to_json, request_to_json
from workersai.batch.tables import Row
from workersai.batch.values import BatchRequest
from workersai.calls import Call
from workersai.catalog import ModelCard
from workersai.checks import shown
from workersai.errors import BadRequestError, WorkersAIError
from workersai.options import CallOptions
from workersai.protocol.batch import BatchInput, bytes_of, item_of, room, unfit_for_batch
from workersai.protocol.request import Input
from workersai.protocol.values import Message

Mode = Literal["auto", "batch", "calls"]
RequestLike = BatchRequest | Input | Mapping[str, Any]
"""A text, messages, a :class:`BatchRequest`, or a dict with ``prompt`` or ``messages`` and, beside it,
``external_reference``, ``metadata`` and options."""

_PROBLEMS_TOLD = 5
_OF_THE_JOB = {*CallOptions.model_fields, "on_retry"} - set(SHAPING) | {"model", BATCH_INPUT}


def request_of(source: Any) -> BatchRequest:
    """A request from what describes it.

    Raises:
        BadRequestError: it is none.
    """
    if isinstance(source, BatchRequest):
        request = source
    elif isinstance(source, str | list | tuple):
        request = BatchRequest(source)
    elif isinstance(source, Mapping):
        rest = dict(source)
        inputs = [rest.pop(name) for name in ("prompt", "messages") if name in rest]
        if len(inputs) != 1:
            raise BadRequestError("a dict has either prompt or messages.")
        own = {name: rest.pop(name) for name in ("external_reference", "metadata") if rest.get(name) is not None}
        request = BatchRequest(inputs[0], **own, options=rest)
    else:
        raise BadRequestError(f"a request is a text, messages, a BatchRequest or a dict, not {type(source).__name__}.")
    reference = request.external_reference
    if reference is not None and not (isinstance(reference, str) and reference):
        raise BadRequestError(f"external_reference must be a string, and not empty; got {shown(reference)}.")
    if not isinstance(request.input, str | list | tuple) or not all(
        isinstance(message, Message | Mapping) for message in ([] if isinstance(request.input, str) else request.input)
    ):
        raise BadRequestError("a request asks a text, or a list of messages (workersai.Message, or dicts).")
    if not isinstance(request.metadata, Mapping) or not isinstance(request.options, Mapping):
        raise BadRequestError("metadata and options must be dicts.")
    for name in request.options:
        if name in _OF_THE_JOB:
            raise BadRequestError(f"{name} is an option of the whole job, not of one request.")
    return request


class CallMaker(Protocol):
    """What makes the calls of a job (:class:`workersai.batch.plan.Asker`)."""

    def call(self, request: BatchRequest) -> Call:
        """The request as a single call."""

    @property
    def card(self) -> ModelCard | None:
        """What is known of the model."""

    @property
    def batch_input(self) -> BatchInput:
        """How conversations stand in the items of its batches."""


class Reader:
    """Reads the requests of a job, in order.

    Args:
        asker: What makes the calls of the job; it fails if a request can't be one.
        mode: How the rows are to be sent.
        keep_invalid: Whether a request that can't be sent is to be a result, in place of refusing all of them.
    """

    def __init__(self, asker: CallMaker, *, mode: Mode, keep_invalid: bool) -> None:
        self._asker = asker
        self._mode = mode
        card = asker.card
        # Of a model that the catalog doesn't list nothing is known: it is asked in batches only on request.
        self._batches = mode == "batch" or (mode == "auto" and card is not None and card.async_batch)
        self._keep_invalid = keep_invalid
        self._hash = hashlib.sha256()
        self._problems = 0
        self._told: list[str] = []
        self.count = 0

    @property
    def digest(self) -> str:
        """A fingerprint of all requests so far."""
        return self._hash.hexdigest()

    def skim(self, sources: Sequence[Any]) -> None:
        """Takes requests that were read before, for the fingerprint."""
        for source in sources:
            try:
                self._texts(source)
            except WorkersAIError as error:
                self._problem(self.count, error)
                self.count += 1

    def read(self, sources: Sequence[Any]) -> tuple[list[Row], list[Outcome]]:
        """The rows of these requests, and the outcomes of those that can't be sent."""
        rows, outcomes = [], []
        for source in sources:
            number, batched, failure = self.count, False, None
            try:
                request, texts = self._texts(source)
                batched = self._may_batch(self._asker.call(request), texts[0])
            except WorkersAIError as error:
                failure = error
            if failure is not None and not (self._keep_invalid and self.count > number):
                self.count = number + 1
                self._problem(number, failure)
                continue
            rows.append(Row(number, *texts, batched))
            if failure is not None:
                outcomes.append(Outcome(number, error=error_to_json(failure)))
        return rows, outcomes

    def check(self) -> None:
        """Fails if there were requests that can't be sent.

        Raises:
            BadRequestError: there were; it tells of the first of them, each with its row.
        """
        if self._problems:
            told = " ".join(self._told)
            more = self._problems - len(self._told)
            others = f" So it is with {more:,} more." if more else ""
            raise BadRequestError(f"Nothing was sent, since not every request can be. {told}{others}")

    def _problem(self, number: int, error: WorkersAIError) -> None:
        self._problems += 1
        if len(self._told) < _PROBLEMS_TOLD:
            self._told.append(f"Row {number + 1:,} (requests[{number}]): {error.message}")

    def _texts(self, source: Any) -> tuple[BatchRequest, tuple[str, str, str | None]]:
        """The request with its reference, itself and its metadata as the journal has them."""
        request = request_of(source)
        try:
            texts = (
                request.external_reference or f"row-{self.count + 1}",
                request_to_json(request),
                metadata_to_json(request.metadata),
            )
            "".join(filter(None, texts)).encode()
        except UnicodeEncodeError as error:
            half = error.object[error.start : error.end]
            raise BadRequestError(
                f"its text holds {half!r}, half of a surrogate pair, which is no character."
            ) from None
        except (TypeError, ValueError) as error:
            if isinstance(error, WorkersAIError):
                raise
            raise BadRequestError(f"it can't be kept as JSON: {error}.") from None
        self._hash.update(json.dumps(texts).encode())
        self.count += 1
        return request, texts

    def _may_batch(self, call: Call, reference: str) -> bool:
        """Whether a row goes in a batch.

        Raises:
            BadRequestError: it has to, and can't.
        """
        if not self._batches:
            return False
        body = json.loads(call.request.content)
        form = self._asker.batch_input
        unfit = unfit_for_batch(body, form)
        if unfit is None and bytes_of(item_of(body, reference, form)) > room():
            unfit = "it is larger than a whole batch may be"
        if unfit is not None and self._mode == "batch":
            raise BadRequestError(f"{unfit}. mode='auto' sends such a request as a single call.")
        # The schema lists it for a batch, but not all that is asked of it was seen there: a call is sure.
        return unfit is None and (self._mode == "batch" or "response_format" not in body)
