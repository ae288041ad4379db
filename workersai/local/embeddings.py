"""The replies to requests for embeddings and for reranking, on the native wire, as OpenAI's, and as a batch."""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable
from typing import Any

from workersai.catalog import CATALOG, EMBEDDING_CATALOG, RERANKER_CATALOG
from workersai.local.batches import Item
from workersai.local.embedding_bodies import (
    EmbeddingRequest,
    RerankRequest,
    batch_items,
    request_from_openai_texts,
    request_from_texts,
)
from workersai.local.exchange import Desk, Reply, noted
from workersai.local.openai import openai_error
from workersai.local.records import RequestRecord
from workersai.local.validation import Json
from workersai.local.vectors import Embedder, Read, Seat
from workersai.local.wire import Manner, WireError, bad_input, to_json

Writer = Callable[[Json, Read], Json]
"""From a result, and what it was made of, to the body of a reply."""


class Embeddings:
    """Answers what is asked of the embedding models and the reranker: all of them with the one reader.

    Args:
        desk: Who knows what is under way.
        embedder: The caller's own, in place of MiniLM.
        strict: Fields that the published schemas don't list are refused.
    """

    def __init__(self, desk: Desk, embedder: Embedder | None, *, strict: bool) -> None:
        self._desk = desk
        self._strict = strict
        self._seat = Seat(embedder)

    @staticmethod
    def serves(model: str) -> bool:
        """Whether ``model`` is one of these."""
        return model in EMBEDDING_CATALOG or model in RERANKER_CATALOG

    def run(self, model: str, body: Json, record: RequestRecord, *, manner: Manner) -> Reply:
        """The reply to a ``/run``.

        Args:
            model: One that is served here.
            body: What it is asked.
            record: The request.
            manner: How the result and refusals are told.

        Raises:
            WireError: the model can't be asked that (5006).
        """
        wanted = request_from_texts(body, model, strict=self._strict)
        busy = bool((body.get("options") or {}).get("rejectIfBusy"))
        return _Computed(
            self._desk, record, self._seat, wanted, _native(manner), tell=manner.error, reject_if_busy=busy
        )

    def twin(self, body: Json, record: RequestRecord) -> Reply:
        """The reply to OpenAI's ``/embeddings``.

        Raises:
            WireError: there is no such model (5007), or it can't be asked that (5006).
        """
        model = str(body.get("model", ""))
        if model in CATALOG or model in RERANKER_CATALOG:
            raise bad_input(f"'/model' {model} gives no embeddings")
        if model not in EMBEDDING_CATALOG:
            raise WireError(400, 5007, f"No such model {model} or task")
        wanted = request_from_openai_texts(body)
        write = _openai(model, in_base64=body.get("encoding_format") == "base64")
        return _Computed(self._desk, record, self._seat, wanted, write, tell=openai_error)

    def items(self, body: Json, model: str) -> list[Item]:
        """The items of a batch.

        Raises:
            WireError: the body is none, or the model takes none (5006).
        """
        return [
            Item(self._work_of(wanted), reference)
            for wanted, reference in batch_items(body, model, strict=self._strict)
        ]

    def _work_of(self, wanted: EmbeddingRequest) -> Callable[[], Any]:
        async def work() -> tuple[Json, tuple[int, int]]:
            async with self._seat.taken_by_an_item() as reader:
                result, read = await wanted.result(reader)
            return result, (read.tokens, 0)

        return work


class _Computed(Reply):
    """The reply to one request, sent whole once it is there."""

    def __init__(
        self,
        desk: Desk,
        record: RequestRecord,
        seat: Seat,
        wanted: EmbeddingRequest | RerankRequest,
        write: Writer,
        *,
        tell: Callable[[WireError], Json],
        reject_if_busy: bool = False,
    ) -> None:
        super().__init__(desk, record)
        self._seat = seat
        self._wanted = wanted
        self._write = write
        self._reject_if_busy = reject_if_busy
        self._tell = tell

    async def _answer(self) -> None:
        async with self._seat.taken(or_refuse=self._reject_if_busy) as reader:
            result, read = await self._wanted.result(reader)
        await self._whole(200, to_json(self._write(result, read)), noted(read.notes))

    async def _refuse(self, error: WireError) -> None:
        await self._whole(error.status, to_json(self._tell(error)))


def _native(manner: Manner) -> Writer:
    return lambda result, read: manner.result(result, read.notes)


def _openai(model: str, *, in_base64: bool) -> Writer:
    def written(result: Json, read: Read) -> Json:
        vectors = map(_base64, result["data"]) if in_base64 else result["data"]
        rows = [{"object": "embedding", "index": index, "embedding": row} for index, row in enumerate(vectors)]
        usage = {"prompt_tokens": read.tokens, "total_tokens": read.tokens}
        return {"object": "list", "data": rows, "model": model, "usage": usage}

    return written


def _base64(row: list[float]) -> str:
    """A vector as OpenAI's clients ask for it by themselves: 32-bit numbers, the lowest byte first."""
    return base64.b64encode(struct.pack(f"<{len(row)}f", *row)).decode()
