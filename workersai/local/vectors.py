"""Who turns texts into vectors and scores: MiniLM, loaded at the first request, or an object of the caller's own."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from workersai.local.engine import EngineError
from workersai.local.exchange import BUSY
from workersai.local.minilm import MOST_TOKENS, Array, MiniLM, Pooling, cut, portions

logger = logging.getLogger("workersai.local")

# Digits behind the point of a number of a vector, which is as exact as a 32-bit number of its size.
_DIGITS = 8


class Embedder(Protocol):
    """What :class:`~workersai.local.LocalServer` asks for vectors in place of its own model."""

    def embed(self, texts: Sequence[str], pooling: Pooling) -> Sequence[Sequence[float]]:
        """One vector a text, of as many numbers as the model of the request has, or fewer: zeros follow.

        It is called in a thread; closing the server waits for it. What it raises is told as a failure of the server.
        """


@dataclass(frozen=True)
class Read:
    """What came of reading texts: a row of numbers a text, the tokens that were read, and what there is to tell."""

    rows: list[list[float]]
    tokens: int
    notes: tuple[str, ...] = ()


class Reader(Protocol):
    """The server's side of either."""

    async def embed(self, texts: Sequence[str], pooling: Pooling) -> Read:
        """A vector for each text."""

    async def score(self, query: str, documents: Sequence[str]) -> Read:
        """One number for each document, from 0 to 1."""

    async def count_tokens(self, text: str) -> int:
        """The tokens of a text, uncut."""


class Given:
    """A caller's own :class:`Embedder`; its tokens are the words of a text, its score is the cosine of two vectors."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder

    async def embed(self, texts: Sequence[str], pooling: Pooling) -> Read:
        """Its vectors.

        Raises:
            EngineError: they are not one a text, or not finite.
        """
        rows = [list(map(float, row)) for row in await asyncio.to_thread(self._embedder.embed, texts, pooling)]
        if len(rows) != len(texts):
            raise EngineError(
                f"The embedder gave {len(rows)} vectors for {len(texts)} texts: it must give one for each."
            )
        for place, row in enumerate(rows):
            if not all(map(math.isfinite, row)):
                raise EngineError(f"The embedder gave a vector for text {place} with a number that is not finite.")
        return Read(rows, sum(len(text.split()) for text in texts))

    async def score(self, query: str, documents: Sequence[str]) -> Read:
        """The cosines; one below 0 counts as 0."""
        read = await self.embed([query, *documents], "mean")
        first, *rest = read.rows
        return Read([[_share(_cosine(first, row))] for row in rest], read.tokens)

    async def count_tokens(self, text: str) -> int:
        """The words."""
        return len(text.split())


class LazyMiniLM:
    """MiniLM, which is loaded when it is first asked, and works in a thread, portion by portion.

    A vector is the mean of the tokens' states, or the first of them for ``cls``, and has length 1. MiniLM was trained
    for ``mean``; what ``cls`` gives is worth less.

    MiniLM is no reranker, which would read the query and a document together. A score is a late interaction of the two
    in its place: for each token of the query the cosine with the nearest token of the document, and the mean of those;
    the marks [CLS] and [SEP] are left out, and a score below 0 counts as 0. On the text of ``benchmarks/retrieval.py``
    it sorts better than the cosine of two vectors, and as well as the mean of both.
    """

    def __init__(self) -> None:
        self._model: MiniLM | None = None

    async def embed(self, texts: Sequence[str], pooling: Pooling) -> Read:
        """The vectors, 384 numbers each.

        Raises:
            EngineError: the model is not installed; the message says what to do.
        """
        model = await self._loaded()
        tokens = await asyncio.to_thread(model.tokens, texts)
        found = model.vectors(await self._states(model, tokens), pooling)
        return Read(found.astype(float).round(_DIGITS).tolist(), _read_of(tokens), _notes(tokens))

    async def score(self, query: str, documents: Sequence[str]) -> Read:
        """The scores.

        Raises:
            EngineError: as from :meth:`embed`.
        """
        model = await self._loaded()
        tokens = await asyncio.to_thread(model.tokens, [query, *documents])
        asked, *rest = (model.unit(state[1:-1]) for state in await self._states(model, tokens))
        scores = [_nearest(asked, document) for document in rest]
        return Read([[round(_share(score), _DIGITS)] for score in scores], _read_of(tokens), _notes(tokens))

    async def count_tokens(self, text: str) -> int:
        """The tokens of a text, with its two marks."""
        model = await self._loaded()
        return len((await asyncio.to_thread(model.tokens, [text]))[0])

    async def _loaded(self) -> MiniLM:
        if self._model is None:
            self._model = await asyncio.to_thread(MiniLM)
        return self._model

    async def _states(self, model: MiniLM, tokens: Sequence[Sequence[int]]) -> list[Array]:
        """The states; between two portions, a client that has left ends the work."""
        found: list[Array] = []
        for portion in portions([cut(text) for text in tokens]):
            found += await asyncio.to_thread(model.states, portion)
        return found


class Seat:
    """One reader, and one request at a time.

    Of all batches, one item waits for it: a call comes after that, and before all others.
    """

    def __init__(self, embedder: Embedder | None) -> None:
        self._reader: Reader = LazyMiniLM() if embedder is None else Given(embedder)
        self._seat = asyncio.Semaphore(1)
        self._items = asyncio.Semaphore(1)

    @asynccontextmanager
    async def taken(self, *, or_refuse: bool) -> AsyncIterator[Reader]:
        """The reader; waits for it, or refuses with 3040 if it is busy."""
        if or_refuse and self._seat.locked():
            raise BUSY
        async with self._seat:
            yield self._reader

    @asynccontextmanager
    async def taken_by_an_item(self) -> AsyncIterator[Reader]:
        """The reader for an item of a batch."""
        async with self._items, self._seat:
            yield self._reader


def _read_of(tokens: Sequence[Sequence[int]]) -> int:
    return sum(min(len(text), MOST_TOKENS) for text in tokens)


def _notes(tokens: Sequence[Sequence[int]]) -> tuple[str, ...]:
    longer = [len(text) for text in tokens if len(text) > MOST_TOKENS]
    if not longer:
        return ()
    note = (
        f"all-MiniLM-L6-v2 reads {MOST_TOKENS} tokens of a text at most: {len(longer)} of {len(tokens)} texts were "
        f"cut, the longest of them from {max(longer)} tokens."
    )
    logger.warning(note)
    return (note,)


def _nearest(query: Array, document: Array) -> float:
    # Of a text without a word, there is no token to compare.
    return float((query @ document.T).max(axis=1).mean()) if len(query) and len(document) else 0.0


def _cosine(one: Sequence[float], other: Sequence[float]) -> float:
    size = math.hypot(*one) * math.hypot(*other)
    return math.fsum(a * b for a, b in zip(one, other, strict=True)) / size if size else 0.0


def _share(score: float) -> float:
    return min(1.0, max(0.0, score))
