"""What each model can do, and what it costs: facts, and no code that acts on them.

The figures are those of the model's published page and JSON Schema. A model that is not listed here still works;
what is not known of it is simply not claimed.
"""

from dataclasses import dataclass
from typing import Literal

DEFAULT_MODEL = "@cf/meta/llama-3.3-70b-instruct-fp8-fast"
SERVICE_MAX_TOKENS = 256
"""What the service takes for ``max_tokens`` where a request names none (the schema's default)."""
DEFAULT_MAX_TOKENS = 4_096
"""The most that this package asks for where the caller names none, in place of that."""
MOST_TEXTS = 100
"""Texts of one call for embeddings (wire.md#embeddings); some models take fewer."""


@dataclass(frozen=True)
class ModelCard:
    """One model of the catalogue.

    Token counts are in the model's own tokens, prices in US dollars for a million tokens.
    """

    name: str
    context_window: int
    """Tokens that the prompt and the answer share."""
    input_price: float
    output_price: float
    function_calling: bool = False
    json_mode: bool = False
    async_batch: bool = False
    lora: bool = False
    cached_input_price: float | None = None
    """The price of prompt tokens in the model's prefix cache; None if they cost as much as the others."""

    def cost_usd(self, prompt_tokens: int, completion_tokens: int, cached_tokens: int = 0) -> float:
        """Returns the price of these tokens in US dollars.

        Args:
            prompt_tokens: All tokens of the prompt.
            completion_tokens: The tokens of the answer.
            cached_tokens: How many of the prompt's tokens were in the prefix cache. With the default of 0, the result
                is an upper bound for any cache.
        """
        cached_price = self.input_price if self.cached_input_price is None else self.cached_input_price
        cached_tokens = max(0, min(cached_tokens, prompt_tokens))
        full = (prompt_tokens - cached_tokens) * self.input_price + completion_tokens * self.output_price
        return (full + cached_tokens * cached_price) / 1_000_000


@dataclass(frozen=True)
class EmbeddingCard:
    """One embedding model, or one reranker, of the catalogue; the price is US dollars for a million tokens."""

    name: str
    max_tokens: int
    """Tokens of one text that the model reads; of a reranker, of the query and one document together."""
    input_price: float
    dimensions: int = 0
    """Numbers in a vector; 0 of a reranker, which gives none."""
    async_batch: bool = False
    pooling: bool = False
    """Whether the way in which tokens become one vector can be chosen."""
    wordpiece: bool = False
    """Whether it reads the tokens that :mod:`workersai.wordpiece` counts."""
    max_texts: int = MOST_TEXTS
    """Texts that one call may have."""
    max_call_tokens: int | None = None
    """Tokens of all texts of one call; None if no such limit is known."""
    fixed_pooling: Literal["", "mean", "cls"] = ""
    """The pooling of a model that takes no ``pooling`` field; empty if it is unknown."""
    truncate_inputs: bool = False
    """Whether the service cuts longer texts if the request says so."""
    byte_level: bool = False
    """Whether its tokens are sequences of bytes (byte-level BPE)."""

    def cost_usd(self, prompt_tokens: int, completion_tokens: int = 0) -> float:
        """The price of so many tokens, in US dollars; it writes none."""
        return (prompt_tokens + completion_tokens) * self.input_price / 1_000_000


_CARDS = (
    ModelCard(
        name="@cf/meta/llama-3.3-70b-instruct-fp8-fast",
        context_window=24_000,
        input_price=0.29,
        output_price=2.25,
        function_calling=True,
        json_mode=True,
        async_batch=True,
        lora=True,
    ),
)

CATALOG: dict[str, ModelCard] = {card.name: card for card in _CARDS}

DEFAULT_EMBEDDING_MODEL = "@cf/baai/bge-base-en-v1.5"
DEFAULT_RERANKER = "@cf/baai/bge-reranker-base"


def _english(name: str, price: float, dimensions: int) -> EmbeddingCard:
    return EmbeddingCard(name, 512, price, dimensions, async_batch=True, pooling=True, wordpiece=True)


_EMBEDDING_CARDS = (
    _english("@cf/baai/bge-small-en-v1.5", 0.020, 384),
    _english("@cf/baai/bge-base-en-v1.5", 0.067, 768),
    _english("@cf/baai/bge-large-en-v1.5", 0.204, 1024),
    EmbeddingCard(
        "@cf/baai/bge-m3",
        8_192,
        0.012,
        dimensions=1024,
        async_batch=True,
        max_call_tokens=60_000,
        fixed_pooling="cls",
        truncate_inputs=True,
    ),
    EmbeddingCard("@cf/qwen/qwen3-embedding-0.6b", 8_192, 0.012, dimensions=1024, max_texts=32, byte_level=True),
)
EMBEDDING_CATALOG: dict[str, EmbeddingCard] = {card.name: card for card in _EMBEDDING_CARDS}

RERANKER_CATALOG: dict[str, EmbeddingCard] = {DEFAULT_RERANKER: EmbeddingCard(DEFAULT_RERANKER, 512, 0.0031)}


def priced_card(model: str) -> ModelCard | EmbeddingCard | None:
    """What is known of a model of any kind, its price above all."""
    return CATALOG.get(model) or EMBEDDING_CATALOG.get(model) or RERANKER_CATALOG.get(model)


def embedding_card(model: str) -> EmbeddingCard | None:
    """What is known of an embedding model, or None."""
    return EMBEDDING_CATALOG.get(model)


def model_card(model: str) -> ModelCard | None:
    """What is known of ``model``, or None for a model that is not in the catalogue."""
    return CATALOG.get(model)
