"""Workers AI's embedding models for LlamaIndex."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Generator, Iterable, Mapping
from typing import Any

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.utils import get_tqdm_iterable
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
    ``model``. Each request has up to 100 texts, several run at once, and the vectors come in order. LlamaIndex splits
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
    """Texts that LlamaIndex hands over at once; they are sent in requests of up to 100."""

    @model_validator(mode="before")
    @classmethod
    def _named(cls, data: Any) -> Any:
        return _named(data) if isinstance(data, dict) else data

    @model_validator(mode="after")
    def _named_alike(self) -> Self:
        self.__dict__["model_name"] = self.model
        return self

    @override
    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name in ("model", "model_name"):
            self.__dict__ |= {"model": value, "model_name": value}

    @override
    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        copy = super().model_copy(update=None if update is None else _named(update), deep=deep)
        copy.model_name = copy.model
        return copy

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

    @override
    async def aget_text_embedding_batch(
        self, texts: list[str], show_progress: bool = False, **kwargs: Any
    ) -> list[list[float]]:
        """The vectors of texts, in their order; so many requests at once as ``max_concurrency`` says.

        LlamaIndex asks for all of its batches at once, each of which is several requests: here they come one after the
        other, or as many at once as ``num_workers`` says.
        """
        taken = self.embed_batch_size * (self.num_workers or 1)
        parts = [texts[start : start + taken] for start in range(0, len(texts), taken)]
        found: list[list[float]] = []
        for part in get_tqdm_iterable(parts, show_progress, "Generating embeddings"):
            found += await super().aget_text_embedding_batch(part, **kwargs)
        return found

    def embed_corpus(self, texts: Iterable[str], **kwargs: Unpack[CorpusOptions]) -> Generator[list[float], None, None]:
        """The vectors of more texts than fit the memory, one after the other; ``mode="batch"`` uses the Batch API.

        Arguments and errors are those of :meth:`workersai.Client.embed_corpus`. LlamaIndex's callbacks and
        instrumentation are not told.
        """
        return self._client.embed_corpus(texts, **self._options(kwargs))

    def aembed_corpus(
        self, texts: Iterable[str] | AsyncIterable[str], **kwargs: Unpack[CorpusOptions]
    ) -> AsyncGenerator[list[float], None]:
        """The same for asyncio; the texts may come from an async iterable, too."""
        return self._async_client.embed_corpus(texts, **self._options(kwargs))


def _named(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Fields with the model under the name that it has everywhere else, too."""
    return {"model": fields["model_name"], **fields} if "model_name" in fields else dict(fields)
