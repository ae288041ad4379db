"""Workers AI's embedding models for LlamaIndex."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from contextlib import aclosing
from typing import Any

from llama_index.core.base.embeddings.base import BaseEmbedding
from pydantic import ConfigDict, Field, model_validator
from typing_extensions import Self, Unpack, override

from workersai.catalog import DEFAULT_EMBEDDING_MODEL, MOST_TEXTS
from workersai.connected import ConnectedEmbedder
from workersai.retrieval import CorpusOptions

_AT_ONCE = 8 * MOST_TEXTS


class WorkersAIEmbedding(ConnectedEmbedder, BaseEmbedding):
    """Vectors from an embedding model on Cloudflare Workers AI.

    Setup:
        ``pip install 'workersai[llamaindex]'``, and set ``CLOUDFLARE_ACCOUNT_ID`` and ``CLOUDFLARE_API_TOKEN``.

    Example:
        .. code-block:: python

            from llama_index.core import Document, VectorStoreIndex

            from llamaindex_workersai import WorkersAIEmbedding

            embedding = WorkersAIEmbedding(model="@cf/baai/bge-small-en-v1.5")
            index = VectorStoreIndex.from_documents([Document(text="Boats float.")], embed_model=embedding)
            print(index.as_retriever().retrieve("What swims?"))

    The fields are those of :class:`workersai.retrieval.EmbeddingOptions`; ``model_name`` is LlamaIndex's name for
    ``model``. Texts go 100 at a time, several requests at once, and their vectors come in order. LlamaIndex splits
    texts into chunks of 1,024 tokens, where the English bge models read 512: set ``Settings.chunk_size = 400``, or use
    ``bge-m3``.

    Raises:
        pydantic.ValidationError: a field is out of its range, or there is no such field.
        workersai.errors.ConfigurationError: the account or the token is missing.
        workersai.errors.BadRequestError: from a call: a text is empty, or over the model's limit; nothing was sent.
        workersai.errors.WorkersAIError: from a call.
    """

    model_config = ConfigDict(
        extra="forbid",
        arbitrary_types_allowed=True,
        hide_input_in_errors=True,
        protected_namespaces=("pydantic_model_",),
    )

    model_name: str = DEFAULT_EMBEDDING_MODEL
    """What ``model`` is."""

    embed_batch_size: int = Field(default=_AT_ONCE, gt=0, le=2048)
    """Texts that LlamaIndex hands over at once; they are sent 100 at a time."""

    @model_validator(mode="before")
    @classmethod
    def _named(cls, data: Any) -> Any:
        if isinstance(data, dict) and "model_name" in data:
            return {"model": data["model_name"], **data}
        return data

    @model_validator(mode="after")
    def _named_alike(self) -> Self:
        self.__dict__["model_name"] = self.model
        return self

    @classmethod
    @override
    def class_name(cls) -> str:
        """The name under which LlamaIndex stores it."""
        return "WorkersAIEmbedding"

    @override
    def _get_query_embedding(self, query: str) -> list[float]:
        return self._client.embed(self._query(query), **self._options({})).vectors[0]

    @override
    async def _aget_query_embedding(self, query: str) -> list[float]:
        return (await self._async_client.embed(self._query(query), **self._options({}))).vectors[0]

    @override
    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    @override
    async def _aget_text_embedding(self, text: str) -> list[float]:
        return (await self._aget_text_embeddings([text]))[0]

    @override
    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return list(self._client.embed(texts, **self._options({})).vectors)

    @override
    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return list((await self._async_client.embed(texts, **self._options({}))).vectors)

    def embed_corpus(self, texts: Iterable[str], **kwargs: Unpack[CorpusOptions]) -> Iterator[list[float]]:
        """The vectors of more texts than fit the memory, one after the other; ``mode="batch"`` uses the Batch API.

        Arguments and errors are those of :meth:`workersai.Client.embed_corpus`. LlamaIndex's callbacks and
        instrumentation are not told.
        """
        return self._client.embed_corpus(texts, **self._options(kwargs))

    async def aembed_corpus(
        self, texts: Iterable[str] | AsyncIterable[str], **kwargs: Unpack[CorpusOptions]
    ) -> AsyncIterator[list[float]]:
        """The same for asyncio; the texts may come from an async iterable, too."""
        async with aclosing(self._async_client.embed_corpus(texts, **self._options(kwargs))) as vectors:
            async for vector in vectors:
                yield vector
