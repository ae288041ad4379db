"""What both clients offer for retrieval. The work is in ``job.py``; here it is only driven."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Generator, Iterable, Sequence
from contextlib import aclosing, closing
from typing import TYPE_CHECKING, Any, TypeVar, cast

import httpx
from typing_extensions import Unpack

from workersai.calls import BaseClient, Call
from workersai.errors import BadRequestError
from workersai.flows import Flow, ask
from workersai.protocol.embeddings import Embeddings, Reranking, Vector, reranking_from_body
from workersai.protocol.reply import ReplyHead
from workersai.retrieval.asking import Asker, rerank_call
from workersai.retrieval.options import CorpusOptions, EmbedOptions, RankOptions

if TYPE_CHECKING:
    from workersai.retrieval.job import EmbeddingJob

T = TypeVar("T")


class RetrievalClient(BaseClient[httpx.Client]):
    """Vectors and scores for sync callers."""

    def _pump(self, call: Call, flow: Flow[T]) -> T:
        raise NotImplementedError

    def embed(self, texts: str | Sequence[str], /, **options: Unpack[EmbedOptions]) -> Embeddings:
        """The vectors of texts, in their order.

        They are asked for 100 at a time, several such requests at once. The client's own options hold for them, too,
        but neither its ``model`` nor its ``rate_limit``: the service counts text generation apart, and takes 3,000
        requests for embeddings a minute (wire page, "Errors").

        Args:
            texts: One text or several; all are checked before any is sent.
            **options: Those of :class:`~workersai.retrieval.EmbeddingOptions`, and ``on_retry``.

        Raises:
            BadRequestError: a text is empty, or over the model's limit; or an option can't be right. Nothing was sent.
            RuntimeError: the client was closed.
            WorkersAIError: a request failed; see :mod:`workersai.errors` for the kinds.
        """
        from workersai.batch.threads import results_in_threads  # noqa: PLC0415 - SQLite comes with it

        job, checked = _whole_job(self, texts, options)
        return job.whole(list(results_in_threads(job.flow(), checked, self._pump)))

    def embed_corpus(self, texts: Iterable[str], /, **options: Unpack[CorpusOptions]) -> Generator[Vector, None, None]:
        """The vectors of any number of texts, in their order, one after the other.

        The texts are read as they are needed, and neither they nor the vectors are held: this is for more than fits
        the memory. There is no journal: what was handed over is the caller's to keep.

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
        from workersai.batch.threads import results_in_threads  # noqa: PLC0415

        with closing(results_in_threads(job.flow(), texts, self._pump)) as groups:
            for found in groups:
                yield from found.vectors

    def rerank(self, query: str, documents: Sequence[str], /, **options: Unpack[RankOptions]) -> Reranking:
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
        call = _rerank_call(self, query, documents, options)
        return Reranking((), call.asked.model) if not documents else self._pump(call, _scores(call, len(documents)))


class AsyncRetrievalClient(BaseClient[httpx.AsyncClient]):
    """Vectors and scores for asyncio."""

    async def _pump(self, call: Call, flow: Flow[T]) -> T:
        raise NotImplementedError

    async def embed(self, texts: str | Sequence[str], /, **options: Unpack[EmbedOptions]) -> Embeddings:
        """The vectors of texts, in their order; see :meth:`workersai.Client.embed`."""
        from workersai.batch.tasks import Tasks, results_in_tasks  # noqa: PLC0415 - SQLite comes with it

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
        from workersai.batch.tasks import Tasks, results_in_tasks  # noqa: PLC0415

        async with aclosing(results_in_tasks(job.flow(), texts, Tasks(self._pump))) as groups:
            async for found in groups:
                for vector in found.vectors:
                    yield vector

    async def rerank(self, query: str, documents: Sequence[str], /, **options: Unpack[RankOptions]) -> Reranking:
        """The documents by how well they answer a query; see :meth:`workersai.Client.rerank`."""
        call = _rerank_call(self, query, documents, options)
        if not documents:
            return Reranking((), call.asked.model)
        return await self._pump(call, _scores(call, len(documents)))


def _whole_job(
    client: BaseClient[Any], texts: str | Sequence[str], options: EmbedOptions
) -> tuple[EmbeddingJob, Sequence[Any]]:
    """The job for texts that are all there, each of them checked."""
    texts = [texts] if isinstance(texts, str) else texts
    if not isinstance(texts, Sequence) or isinstance(texts, bytes):
        raise BadRequestError(f"texts must be a string, or a list of them, not {type(texts).__name__}.")
    job = _job(client, texts, cast("CorpusOptions", options))
    return job, job.checked(texts)


def _job(client: BaseClient[Any], texts: object, options: CorpusOptions) -> EmbeddingJob:
    from workersai.retrieval.job import EmbeddingJob, Ways  # noqa: PLC0415 - SQLite comes with it

    client.check_open()
    taken = (Iterable, AsyncIterable) if client.awaits else (Iterable,)
    if isinstance(texts, str | bytes) or not isinstance(texts, taken):
        raise BadRequestError(f"texts must be texts one after the other, not {type(texts).__name__}.")
    ways: dict[str, Any] = {name: options[name] for name in ("mode", "poll_interval") if name in options}
    rest = {name: value for name, value in options.items() if name not in ways}
    return EmbeddingJob(Asker(client, rest), Ways(**ways))


def _rerank_call(client: BaseClient[Any], query: str, documents: Sequence[str], options: RankOptions) -> Call:
    client.check_open()
    if isinstance(documents, str | bytes) or not isinstance(documents, Sequence):
        raise BadRequestError(f"documents must be a list of strings, not {type(documents).__name__}.")
    return rerank_call(client, query, documents, options)


def _scores(call: Call, documents: int) -> Flow[Reranking]:
    def read(body: bytes, head: ReplyHead) -> Reranking:
        return reranking_from_body(body, head, call.asked.model, documents=documents)

    return ask(call, read)
