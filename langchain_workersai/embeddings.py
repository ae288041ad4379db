"""Workers AI's embedding models for LangChain."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Generator, Iterable
from contextlib import aclosing

from langchain_core.embeddings import Embeddings
from pydantic import ConfigDict
from typing_extensions import Unpack, override

from langchain_workersai.errors import langchain_errors
from workersai.connected import ConnectedEmbedder
from workersai.retrieval import CorpusOptions


class WorkersAIEmbeddings(ConnectedEmbedder, Embeddings):
    """Vectors from an embedding model on Cloudflare Workers AI.

    Setup:
        ``pip install 'workersai[langchain]'``, and set ``CLOUDFLARE_ACCOUNT_ID`` and ``CLOUDFLARE_API_TOKEN``.

    Example:
        .. code-block:: python

            from langchain_core.vectorstores import InMemoryVectorStore

            from langchain_workersai import WorkersAIEmbeddings

            embeddings = WorkersAIEmbeddings(model="@cf/baai/bge-small-en-v1.5")
            store = InMemoryVectorStore.from_texts(["Boats float.", "Birds fly."], embeddings)
            print(store.similarity_search("What swims?", k=1))

    The fields are those of :class:`workersai.retrieval.EmbeddingOptions`. Each request has up to 100 texts, several
    run at once, and the vectors come in order.

    Raises:
        pydantic.ValidationError: a field is out of its range, or there is no such field.
        workersai.errors.ConfigurationError: the account or the token is missing.
        workersai.errors.BadRequestError: from a call: a text is empty, or over the model's limit; nothing was sent.
        workersai.errors.WorkersAIError: from a call; each is LangChain's own error as well.
    """

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True, hide_input_in_errors=True)

    @override
    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """The vectors of texts, in their order."""
        with langchain_errors():
            return list(self._client.embed(texts, **self._options({})).vectors)

    @override
    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """The vectors of texts, in their order."""
        with langchain_errors():
            return list((await self._async_client.embed(texts, **self._options({}))).vectors)

    @override
    def embed_query(self, text: str) -> list[float]:
        """The vector of a question, with ``query_instruction`` before it."""
        with langchain_errors():
            return self._client.embed(self._query(text), **self._options({})).vectors[0]

    @override
    async def aembed_query(self, text: str) -> list[float]:
        """The vector of a question, with ``query_instruction`` before it."""
        with langchain_errors():
            return (await self._async_client.embed(self._query(text), **self._options({}))).vectors[0]

    def embed_corpus(self, texts: Iterable[str], **kwargs: Unpack[CorpusOptions]) -> Generator[list[float], None, None]:
        """The vectors of more texts than fit the memory, one after the other; ``mode="batch"`` uses the Batch API.

        Arguments and errors are those of :meth:`workersai.Client.embed_corpus`.
        """
        with langchain_errors():
            return _in_langchains_errors(self._client.embed_corpus(texts, **self._options(kwargs)))

    def aembed_corpus(
        self, texts: Iterable[str] | AsyncIterable[str], **kwargs: Unpack[CorpusOptions]
    ) -> AsyncGenerator[list[float], None]:
        """The same for asyncio; the texts may come from an async iterable, too."""
        with langchain_errors():
            return _in_langchains_errors_async(self._async_client.embed_corpus(texts, **self._options(kwargs)))


def _in_langchains_errors(vectors: Generator[list[float], None, None]) -> Generator[list[float], None, None]:
    with langchain_errors():
        yield from vectors


async def _in_langchains_errors_async(vectors: AsyncGenerator[list[float], None]) -> AsyncGenerator[list[float], None]:
    with langchain_errors():
        async with aclosing(vectors):
            async for vector in vectors:
                yield vector
