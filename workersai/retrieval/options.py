"""The settings of a request for vectors, or for scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from workersai.catalog import (
    CATALOG,
    DEFAULT_EMBEDDING_MODEL,
    DEFAULT_RERANKER,
    EMBEDDING_CATALOG,
    RERANKER_CATALOG,
    embedding_card,
)
from workersai.checks import is_number, shown
from workersai.errors import BadRequestError
from workersai.options import RequestOptions, SharedOptions, checked_model
from workersai.retries import OnRetry

Pooling = Literal["mean", "cls"]

_HOUR = 3_600  # seconds


def _checked_embedder(name: str) -> str:
    if name in CATALOG or name in RERANKER_CATALOG:
        raise ValueError(f"must be an embedding model, as {', '.join(EMBEDDING_CATALOG)}")
    return checked_model(name, DEFAULT_EMBEDDING_MODEL)


def _checked_reranker(name: str) -> str:
    if name in CATALOG or name in EMBEDDING_CATALOG:
        raise ValueError(f"must be a reranker, as {', '.join(RERANKER_CATALOG)}")
    return checked_model(name, DEFAULT_RERANKER)


class EmbeddingOptions(RequestOptions):
    """The settings of a request for vectors."""

    model: Annotated[str, AfterValidator(_checked_embedder)] = DEFAULT_EMBEDDING_MODEL
    """The model's full name: ``@cf/baai/bge-small-en-v1.5`` (384 numbers a vector), ``bge-base-en-v1.5`` (768, the
    default), ``bge-large-en-v1.5`` (1,024), ``bge-m3`` (1,024; many languages, texts up to 8,192 tokens), or
    ``@cf/qwen/qwen3-embedding-0.6b`` (1,024; many languages, texts up to 8,192 tokens)."""

    pooling: Pooling | None = None
    """How a text's tokens become one vector. Default: ``"mean"`` (the service's).

    ``"cls"`` is better for longer texts, as the models' pages say. Vectors of the two don't mix. ``bge-m3`` always uses
    ``"cls"`` and takes no such field: ``"cls"`` is left out of the request, and ``"mean"`` raises BadRequestError."""

    truncate: bool = False
    """True: a text over the model's limit is cut to it. By default it is an error.

    The tokens of the English bge models are counted here, so the error is raised before anything is sent. For
    ``bge-m3``, the service counts. ``qwen3-embedding-0.6b`` has no such option, and raises BadRequestError for it."""

    max_concurrency: Annotated[int, Field(ge=1, le=1_000)] = 8
    """Requests at once, of up to 100 texts each (``qwen3-embedding-0.6b``: 32; ``bge-m3``: up to 60,000 tokens)."""


class RerankOptions(RequestOptions):
    """The settings of a request for scores."""

    model: Annotated[str, AfterValidator(_checked_reranker)] = DEFAULT_RERANKER
    """The reranker's full name; ``@cf/baai/bge-reranker-base`` by default."""

    top_n: Annotated[int | None, Field(ge=1)] = None
    """How many documents to give back, the best ones; by default all. On the wire it is ``top_k``, which elsewhere is a
    setting of sampling."""


class EmbedOptions(SharedOptions, total=False):
    """The keyword arguments of ``embed``: the fields of :class:`EmbeddingOptions`, and ``on_retry``."""

    model: str
    pooling: Pooling | None
    truncate: bool
    max_concurrency: int
    on_retry: OnRetry | None


class CorpusOptions(EmbedOptions, total=False):
    """Those of ``embed_corpus``, which can use the Async Batch API."""

    mode: Literal["calls", "batch"]
    """``"calls"``, the default: requests of up to 100 texts. ``"batch"``: the Async Batch API, 1,000 texts in a batch,
    for which the service takes its time; a batch may be sent twice, and is then billed twice, where it is not known
    whether the service took it: the log tells of it as a warning."""

    poll_interval: float
    """Seconds until a batch is first asked for, 2 by default; later polls are further apart, up to 30 seconds."""


@dataclass(frozen=True)
class Ways:
    """How the vectors of a corpus are asked for: the settings of :class:`CorpusOptions` that are its own."""

    mode: Literal["calls", "batch"] = "calls"
    poll_interval: float = 2.0

    def __post_init__(self) -> None:
        if self.mode not in ("calls", "batch"):
            raise BadRequestError(f"mode must be 'calls' or 'batch', not {shown(self.mode)}.")
        seconds = self.poll_interval
        if not (is_number(seconds) and 0 < seconds <= _HOUR):
            raise BadRequestError(f"poll_interval must be seconds above 0, at most 3,600, not {shown(seconds)}.")


class RankOptions(SharedOptions, total=False):
    """The keyword arguments of ``rerank``: the fields of :class:`RerankOptions`, and ``on_retry``."""

    model: str
    top_n: int | None
    on_retry: OnRetry | None


def dimensions_of(model: str) -> int | None:
    """Numbers in a vector of a model; None for one that the catalog doesn't list."""
    card = embedding_card(model)
    return None if card is None else card.dimensions
