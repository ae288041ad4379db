"""The Async Batch API: what was submitted is answered in the background, and kept to be asked for."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from workersai.local.dialects import DialectName, run_dialect
from workersai.local.engine import EngineError, GenerationRequest, RawReply
from workersai.local.exchange import Desk, collected, opening
from workersai.local.faults import Fault, refusal
from workersai.local.wire import WireError, bad_input, error_envelope, wire_error_from

_KEPT = 1_000
_LOST = "lost"  # the value of the fault ``item`` that leaves an item out of the reply


Work = Callable[[], Awaitable[tuple[dict[str, Any], tuple[int, int]]]]
"""Makes the result of an item that is no text of the engine's, and tells the tokens read and written."""


@dataclass(frozen=True)
class Item:
    """One request of a batch, or why it can't be answered."""

    wanted: GenerationRequest | Work | WireError
    reference: str | None


@dataclass
class _Batch:
    model: str
    status: str = "queued"
    responses: list[dict[str, Any]] = field(default_factory=list)
    tokens: list[int] = field(default_factory=lambda: [0, 0])

    def reply(self, request_id: str) -> dict[str, Any]:
        if self.status != "done":
            return {"status": self.status, "request_id": request_id, "model": self.model}
        prompt, completion = self.tokens
        total = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
        return {"responses": self.responses, "usage": total}

    def count(self, prompt: int, completion: int) -> None:
        self.tokens[0] += prompt
        self.tokens[1] += completion


class Batches:
    """The batches of a server, the last 1,000 of them.

    Args:
        desk: Whose engine answers.
        delay: Seconds that a batch stays queued.
        dialect: The shape of the items' results.
    """

    def __init__(self, desk: Desk, *, delay: float, dialect: DialectName) -> None:
        self._desk = desk
        self._dialect = dialect
        self._delay = delay
        self._batches: dict[str, _Batch] = {}
        self._dice = random.Random(2)  # noqa: S311 - the same order each time

    def submit(self, items: list[Item], model: str, fault: Fault | None) -> dict[str, Any]:
        """Takes a batch on; the result of the reply."""
        while len(self._batches) >= _KEPT:
            self._batches.pop(next(iter(self._batches)))
        request_id, batch = str(uuid.uuid4()), _Batch(model)
        self._batches[request_id] = batch
        task = asyncio.ensure_future(self._answer(batch, items, fault))
        self._desk.under_way.add(task)
        task.add_done_callback(self._desk.under_way.discard)
        return batch.reply(request_id)

    def poll(self, request_id: Any, model: str) -> dict[str, Any]:
        """How far a batch is, or its answers, in the order in which they were ready.

        Raises:
            WireError: there is no such batch of that model (5006).
        """
        batch = self._batches.get(request_id) if isinstance(request_id, str) else None
        if batch is None or batch.model != model:
            raise bad_input("'/request_id' is of no batch that is known")
        return batch.reply(str(request_id))

    async def _answer(self, batch: _Batch, items: list[Item], fault: Fault | None) -> None:
        await asyncio.sleep(self._delay)
        order = list(enumerate(items))
        self._dice.shuffle(order)  # no order is promised (wire.md#batch)
        if fault is not None and fault.kind == "item":
            order = list(self._failing(order, fault))
        batch.status = "running"
        waiting = deque(order)
        await asyncio.gather(*(self._work(batch, waiting) for _ in range(min(self._desk.engine.slots, len(order)))))
        batch.status = "done"

    def _failing(self, items: list[tuple[int, Item]], fault: Fault) -> Iterator[tuple[int, Item]]:
        """The items, some of them with the failure, or without those that are to be lost."""
        for index, item in items:
            if self._dice.random() >= fault.share:
                yield index, item
            elif fault.value != _LOST:
                status, words = refusal(int(fault.value))
                yield index, Item(WireError(status, int(fault.value), words), item.reference)

    async def _work(self, batch: _Batch, waiting: deque[tuple[int, Item]]) -> None:
        while waiting:
            index, item = waiting.popleft()
            try:
                result, tokens = await self._result(item.wanted)
                batch.count(*tokens)
                told = {"result": result, "success": True}
            except Exception as error:  # noqa: BLE001 - a script may raise anything: it is told, as of a single call
                told = {"result": {}, "success": False, "errors": error_envelope(wire_error_from(error))["errors"]}
            named = {} if item.reference is None else {"external_reference": item.reference}
            batch.responses.append({"id": index, **told, **named})

    async def _result(self, wanted: GenerationRequest | Work | WireError) -> tuple[dict[str, Any], tuple[int, int]]:
        if isinstance(wanted, WireError):
            raise wanted
        if not isinstance(wanted, GenerationRequest):
            return await wanted()
        engine = self._desk.engine
        async with self._desk.seat(or_refuse=False), aclosing(engine.generate(wanted)) as events:
            begun = await opening(events)
            if isinstance(begun.first, RawReply):
                raise EngineError("a raw reply is no item of a batch.")
            answer = await collected(begun, events)
        tokens = (answer.end.usage.prompt_tokens, answer.end.usage.completion_tokens)
        result = run_dialect(self._dialect, wanted).whole(answer)["result"]
        # A native item has no usage of its own (wire.md#batch).
        return ({"response": result["response"]} if self._dialect == "native" else result), tokens


def items_of(body: Mapping[str, Any]) -> Iterator[tuple[Mapping[str, Any], str | None]]:
    """The prompt form of each item of a checked batch, and its reference."""
    for item in body["requests"]:
        yield (
            {name: value for name, value in item.items() if name != "external_reference"},
            item.get("external_reference"),
        )
