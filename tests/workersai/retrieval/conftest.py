"""One way to ask for vectors and scores, sync or async."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

import pytest

from tests.support import connection
from workersai import AsyncClient, Client, Embeddings, Reranking
from workersai.local import LocalServer


class RetrievalDriver(Protocol):
    """One face of the clients, as a test calls it."""

    def embed(self, server: LocalServer, texts: Any, **options: Any) -> Embeddings:
        """All vectors."""

    def corpus(self, server: LocalServer, texts: Any, **options: Any) -> list[list[float]]:
        """All vectors of a corpus."""

    def rerank(self, server: LocalServer, query: Any, documents: Any, **options: Any) -> Reranking:
        """The scores."""


class Sync:
    def embed(self, server: LocalServer, texts: Any, **options: Any) -> Embeddings:
        with Client(**connection(server)) as client:
            return client.embed(texts, **options)

    def corpus(self, server: LocalServer, texts: Any, **options: Any) -> list[list[float]]:
        with Client(**connection(server)) as client:
            return list(client.embed_corpus(texts, **{"poll_interval": 0.01, **options}))

    def rerank(self, server: LocalServer, query: Any, documents: Any, **options: Any) -> Reranking:
        with Client(**connection(server)) as client:
            return client.rerank(query, documents, **options)


class Async:
    def embed(self, server: LocalServer, texts: Any, **options: Any) -> Embeddings:
        async def main() -> Embeddings:
            async with AsyncClient(**connection(server)) as client:
                return await client.embed(texts, **options)

        return asyncio.run(main())

    def corpus(self, server: LocalServer, texts: Any, **options: Any) -> list[list[float]]:
        async def main() -> list[list[float]]:
            async with AsyncClient(**connection(server)) as client:
                return [vector async for vector in client.embed_corpus(texts, **{"poll_interval": 0.01, **options})]

        return asyncio.run(main())

    def rerank(self, server: LocalServer, query: Any, documents: Any, **options: Any) -> Reranking:
        async def main() -> Reranking:
            async with AsyncClient(**connection(server)) as client:
                return await client.rerank(query, documents, **options)

        return asyncio.run(main())


@pytest.fixture(params=[Sync(), Async()], ids=["sync", "async"])
def retrieval(request: pytest.FixtureRequest) -> RetrievalDriver:
    """Each test that takes it runs once with either face."""
    given: RetrievalDriver = request.param
    return given
