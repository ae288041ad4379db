"""Vectors of texts, and documents by how well they answer a query: what retrieval needs of the service."""

from workersai.protocol.embeddings import Embeddings, Ranked, Reranking
from workersai.retrieval.options import (
    CorpusOptions,
    EmbeddingOptions,
    EmbedOptions,
    Pooling,
    RankOptions,
    RerankOptions,
    dimensions_of,
)

__all__ = [
    "CorpusOptions",
    "EmbedOptions",
    "EmbeddingOptions",
    "Embeddings",
    "Pooling",
    "RankOptions",
    "Ranked",
    "RerankOptions",
    "Reranking",
    "dimensions_of",
]
