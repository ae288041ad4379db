"""Workers AI's reranker as a LangChain document compressor."""

from __future__ import annotations

from collections.abc import Sequence

from langchain_core.callbacks import Callbacks
from langchain_core.documents import BaseDocumentCompressor, Document
from pydantic import ConfigDict
from typing_extensions import override

from langchain_workersai.errors import langchain_errors
from workersai.connected import ConnectedReranker
from workersai.protocol.embeddings import Reranking


class WorkersAIRerank(ConnectedReranker, BaseDocumentCompressor):
    """Keeps the documents that answer a query best, by a reranker on Cloudflare Workers AI.

    Example:
        .. code-block:: python

            from langchain_core.documents import Document

            from langchain_workersai import WorkersAIRerank

            documents = [Document("Boats float."), Document("Birds fly."), Document("Fish swim.")]
            print(WorkersAIRerank(top_n=1).compress_documents(documents, "What swims?"))

    It fits ``langchain_classic``'s ``ContextualCompressionRetriever(base_compressor=..., base_retriever=...)``. The
    documents come back as copies, the best first, with ``relevance_score`` (0 to 1) in their metadata.

    Raises:
        pydantic.ValidationError: a field is out of its range, or there is no such field.
        workersai.errors.ConfigurationError: the account or the token is missing.
        workersai.errors.BadRequestError: from a call: the query or a document is empty; nothing was sent.
        workersai.errors.WorkersAIError: from a call; each is LangChain's own error as well.
    """

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True, hide_input_in_errors=True)

    @override
    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> Sequence[Document]:
        """The best documents for a query, the best first."""
        with langchain_errors():
            found = self._client.rerank(query, _texts(documents), **self._options({}))
        return _chosen(documents, found)

    @override
    async def acompress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> Sequence[Document]:
        """The best documents for a query, the best first."""
        with langchain_errors():
            found = await self._async_client.rerank(query, _texts(documents), **self._options({}))
        return _chosen(documents, found)


def _texts(documents: Sequence[Document]) -> list[str]:
    return [document.page_content for document in documents]


def _chosen(documents: Sequence[Document], found: Reranking) -> list[Document]:
    return [
        documents[each.index].model_copy(
            update={"metadata": {**documents[each.index].metadata, "relevance_score": each.score}}
        )
        for each in found.results
    ]
