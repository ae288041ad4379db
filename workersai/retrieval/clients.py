"""What both clients offer for retrieval. The work is in ``job.py``; here it is only driven."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Generator, Iterable, Mapping, Sequence
from contextlib import aclosing, closing
from typing import Any, TypeVar, cast

import httpx
from typing_extensions import Unpack

from workersai.calls import BaseClient, Call
from workersai.errors import BadRequestError
from workersai.flows import Flow, ask
from workersai.jobs.tasks import Tasks, results_in_tasks
from workersai.jobs.threads import results_in_threads
from workersai.protocol.embeddings import Embeddings, Reranking, Vector, reranking_from_body
from workersai.protocol.reply import ReplyHead
from workersai.retrieval.asking import Asker, rerank_call
from workersai.retrieval.job import EmbeddingJob
from workersai.retrieval.options import CorpusOptions, EmbedOptions, RankOptions, Ways

T = TypeVar("T")


class RetrievalClient(BaseClient[httpx.Client]):
    """Vectors and scores for sync callers."""

    def _pump(self, call: Call, flow: Flow[T]) -> T:
        raise NotImplementedError

    def embed(self, texts: str | Iterable[str], /, **options: Unpack[EmbedOptions]) -> Embeddings:
        """The vectors of texts, in their order.

        Each request has up to 100 texts, and several run at once. The client's own options hold for them, too,
        but neither its ``model`` nor its ``rate_limit``: the service counts text generation apart, and takes 3,000
        requests for embeddings a minute (wire.md#limits). A ``deadline`` is that of all the requests together.

        Args:
            texts: One text or several, in a list, a column of a table or the like; all are checked before any is sent.
            **options: Those of :class:`~workersai.retrieval.EmbeddingOptions`, and ``on_retry``.

        Raises:
            BadRequestError: a text is empty, or over the model's limit; or an option can't be right. Nothing was sent.
            RuntimeError: the client was closed.
            WorkersAIError: a request failed; see :mod:`workersai.errors` for the kinds.
        """
        job, checked = _whole_job(self, texts, options)
        return job.whole(list(results_in_threads(job.flow(), checked, self._pump)))

    def embed_corpus(self, texts: Iterable[str], /, **options: Unpack[CorpusOptions]) -> Generator[Vector, None, None]:
        """The vectors of any number of texts, in their order, one after the other.

        This is for more than fits the memory: texts are read up to 8,000 ahead of the vector that is handed over (or
        100 for each of ``max_concurrency``, if that is more). There is no journal: what was handed over is the caller's
        to keep. What fails, fails in its turn, after the vectors of the texts before it. A ``deadline`` is that of each
        request; for the Async Batch API there is none.

        Args:
            texts: Any iterable of texts. Each is checked when it is read, some time before its turn.
            **options: Those of :meth:`embed`, ``mode`` and ``poll_interval``; see
                :class:`~workersai.retrieval.CorpusOptions`.

        Raises:
            BadRequestError: an option can't be right; on the way: a text is empty or too long, told with its place.
            WorkersAIError: on the way: a request failed.
        """
        job = _job(self, texts, options)
        return self._corpus(job, texts)

    def _corpus(self, job: EmbeddingJob, texts: Iterable[str]) -> Generator[Vector, None, None]:
        with closing(results_in_threads(job.flow(), texts, self._pump)) as groups:
            for found in groups:
                yield from found.vectors

    def rerank(self, query: str, documents: Iterable[str], /, **options: Unpack[RankOptions]) -> Reranking:
        """The documents by how well they answer a query, the best first.

        Args:
            query: What was asked.
            documents: What may answer it. Those that are longer than the reranker reads are judged by their beginnings;
                a warning in the log says which.
            **options: Those of :class:`~workersai.retrieval.RerankOptions`, and ``on_retry``.

        Raises:
            BadRequestError: the query or a document is empty; or an option can't be right. Nothing was sent.
            RuntimeError: the client was closed.
            WorkersAIError: the request failed.
        """
        documents = _listed(documents, "documents")
        call = _rerank_call(self, query, documents, options)
        if not documents:
            return Reranking((), call.asked.model)
        return self._pump(call, _scores(call, len(documents), options.get("top_n")))


class AsyncRetrievalClient(BaseClient[httpx.AsyncClient]):
    """Vectors and scores for asyncio."""

    async def _pump(self, call: Call, flow: Flow[T]) -> T:
        raise NotImplementedError

    async def embed(self, texts: str | Iterable[str], /, **options: Unpack[EmbedOptions]) -> Embeddings:
        """The vectors of texts, in their order; see :meth:`workersai.Client.embed`."""
        job, checked = _whole_job(self, texts, options)
        return job.whole([found async for found in results_in_tasks(job.flow(), checked, Tasks(self._pump))])

    def embed_corpus(
        self, texts: Iterable[str] | AsyncIterable[str], /, **options: Unpack[CorpusOptions]
    ) -> AsyncGenerator[Vector, None]:
        """The vectors of any number of texts, which may come from an async iterable, too.

        See :meth:`workersai.Client.embed_corpus`.
        """
        return self._corpus(_job(self, texts, options), texts)

    async def _corpus(
        self, job: EmbeddingJob, texts: Iterable[str] | AsyncIterable[str]
    ) -> AsyncGenerator[Vector, None]:
        async with aclosing(results_in_tasks(job.flow(), texts, Tasks(self._pump))) as groups:
            async for found in groups:
                for vector in found.vectors:
                    yield vector

    async def rerank(self, query: str, documents: Iterable[str], /, **options: Unpack[RankOptions]) -> Reranking:
        """The documents by how well they answer a query; see :meth:`workersai.Client.rerank`."""
        documents = _listed(documents, "documents")
        call = _rerank_call(self, query, documents, options)
        if not documents:
            return Reranking((), call.asked.model)
        return await self._pump(call, _scores(call, len(documents), options.get("top_n")))


def _whole_job(
    client: BaseClient[Any], texts: str | Iterable[str], options: EmbedOptions
) -> tuple[EmbeddingJob, Sequence[Any]]:
    """The job for texts that are all there, each of them checked."""
    texts = [texts] if isinstance(texts, str) else _listed(texts, "texts")
    job = _job(client, texts, cast("CorpusOptions", options))
    return job, job.checked(texts)


def _job(client: BaseClient[Any], texts: object, options: CorpusOptions) -> EmbeddingJob:
    client.check_open()
    taken = (Iterable, AsyncIterable) if client.awaits else (Iterable,)
    _check_plain(texts, "texts", taken)
    ways: dict[str, Any] = {name: options[name] for name in ("mode", "poll_interval") if name in options}
    rest = {name: value for name, value in options.items() if name not in ways}
    return EmbeddingJob(Asker(client, rest), Ways(**ways))


def _rerank_call(client: BaseClient[Any], query: str, documents: list[str], options: RankOptions) -> Call:
    client.check_open()
    return rerank_call(client, query, documents, options)


def _listed(texts: Iterable[str], name: str) -> list[str]:
    _check_plain(texts, name, (Iterable,))
    return list(texts)


def _check_plain(texts: object, name: str, taken: tuple[type, ...]) -> None:
    """Fails for what would be read as other texts than are meant: letters, keys, the names of columns."""
    if hasattr(texts, "columns"):
        raise BadRequestError(f"{name} is a table ({type(texts).__name__}): give one of its columns.")
    no_list = getattr(texts, "ndim", 1) != 1  # NumPy's arrays of none or of several
    if isinstance(texts, str | bytes | Mapping) or no_list or not isinstance(texts, taken):
        raise BadRequestError(f"{name} must be strings in a list or another iterable, not {type(texts).__name__}.")


def _scores(call: Call, documents: int, most: int | None) -> Flow[Reranking]:
    def read(body: bytes, head: ReplyHead) -> Reranking:
        return reranking_from_body(body, head, call.asked.model, documents=documents, most=most)

    return ask(call, read)
