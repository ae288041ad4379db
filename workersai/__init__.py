"""Cloudflare Workers AI from Python: one small transport, which knows no framework."""

from workersai import errors
from workersai._version import __version__
from workersai.async_client import AsyncClient
from workersai.catalog import (
    CATALOG,
    DEFAULT_EMBEDDING_MODEL,
    DEFAULT_MODEL,
    DEFAULT_RERANKER,
    EMBEDDING_CATALOG,
    RERANKER_CATALOG,
    EmbeddingCard,
    ModelCard,
    embedding_card,
    model_card,
)
from workersai.client import Client
from workersai.costs import CostTracker
from workersai.errors import WorkersAIError
from workersai.gateway import Gateway
from workersai.options import CallOptions
from workersai.pacing import RateLimit
from workersai.protocol.embeddings import Embeddings, Ranked, Reranking
from workersai.protocol.values import (
    Completion,
    Delta,
    InvalidToolCall,
    Message,
    Tool,
    ToolCall,
    ToolCallDelta,
    Trimmed,
    Usage,
)
from workersai.retries import Retry
from workersai.service import Service, ensure_service
from workersai.settings import Settings
from workersai.tokens import count_tokens
from workersai.tracing import instrument, uninstrument

__all__ = [
    "CATALOG",
    "DEFAULT_EMBEDDING_MODEL",
    "DEFAULT_MODEL",
    "DEFAULT_RERANKER",
    "EMBEDDING_CATALOG",
    "RERANKER_CATALOG",
    "AsyncClient",
    "CallOptions",
    "Client",
    "Completion",
    "CostTracker",
    "Delta",
    "EmbeddingCard",
    "Embeddings",
    "Gateway",
    "InvalidToolCall",
    "Message",
    "ModelCard",
    "Ranked",
    "RateLimit",
    "Reranking",
    "Retry",
    "Service",
    "Settings",
    "Tool",
    "ToolCall",
    "ToolCallDelta",
    "Trimmed",
    "Usage",
    "WorkersAIError",
    "__version__",
    "count_tokens",
    "embedding_card",
    "ensure_service",
    "errors",
    "instrument",
    "model_card",
    "uninstrument",
]
