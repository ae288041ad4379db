"""The catalogue route's replies: the models that the package knows, in the shape of ``/ai/models/search``."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from typing import Any

from workersai.catalog import CATALOG, EMBEDDING_CATALOG, RERANKER_CATALOG, EmbeddingCard, ModelCard
from workersai.local.wire import bad_input, envelope

_GENERATION, _EMBEDDING, _RERANKING = "Text Generation", "Text Embeddings", "Text Classification"
_PER_PAGE = 20
_MOST_DIGITS = 9


def search_models(query: Mapping[str, str]) -> dict[str, Any]:
    """The models that ``task`` and ``search`` pick, ``per_page`` of them (default 20) from ``page`` (from 1).

    Raises:
        WireError: ``page`` or ``per_page`` is no positive number (5006).
    """
    page, per_page = _positive(query, "page", 1), _positive(query, "per_page", _PER_PAGE)
    found = [model for model in _models() if _fits(model, query)]
    shown = found[(page - 1) * per_page : page * per_page]
    counts = {"page": page, "per_page": per_page, "count": len(shown), "total_count": len(found)}
    return {**envelope(shown), "result_info": counts}


def listed_models() -> dict[str, Any]:
    """The same models as OpenAI's clients list them; when each was made is not known."""
    listed = [
        {"id": name, "object": "model", "created": 0, "owned_by": name.split("/")[1]}
        for name in (model["name"] for model in _models())
    ]
    return {"object": "list", "data": listed}


def _positive(query: Mapping[str, str], name: str, default: int) -> int:
    value = query.get(name, str(default))
    if not value.isascii() or not value.isdigit() or len(value) > _MOST_DIGITS or int(value) < 1:
        raise bad_input(f"'/{name}' must be >= 1")
    return int(value)


def _fits(model: Mapping[str, Any], query: Mapping[str, str]) -> bool:
    if query.get("task", model["task"]["name"]) != model["task"]["name"]:
        return False
    return query.get("search", "").lower() in model["name"].lower()


def _models() -> Iterator[dict[str, Any]]:
    yield from map(_generator, CATALOG.values())
    yield from map(_reader, (*EMBEDDING_CATALOG.values(), *RERANKER_CATALOG.values()))


def _generator(card: ModelCard) -> dict[str, Any]:
    able = {"function_calling": card.function_calling, "async_queue": card.async_batch, "lora": card.lora}
    prices = [_price("input", card.input_price), _price("output", card.output_price)]
    return _model(card.name, _GENERATION, {"context_window": str(card.context_window), "price": prices, **_told(able)})


def _reader(card: EmbeddingCard) -> dict[str, Any]:
    """An embedding model, or the reranker, which has no dimensions."""
    sizes = {"max_input_tokens": str(card.max_tokens), "price": [_price("input", card.input_price)]}
    if card.dimensions:
        sizes["output_dimensions"] = str(card.dimensions)
    task = _EMBEDDING if card.dimensions else _RERANKING
    return _model(card.name, task, {**sizes, **_told({"async_queue": card.async_batch})})


def _model(name: str, task: str, properties: Mapping[str, Any]) -> dict[str, Any]:
    return {
        # The same for each server, as an id should be.
        "id": str(uuid.uuid5(uuid.NAMESPACE_URL, name)),
        "name": name,
        "task": {"name": task},
        "properties": [{"property_id": key, "value": value} for key, value in properties.items()],
    }


def _price(tokens: str, price: float) -> dict[str, Any]:
    return {"unit": f"per M {tokens} tokens", "price": price, "currency": "USD"}


def _told(able: Mapping[str, bool]) -> dict[str, str]:
    return {name: "true" for name, can in able.items() if can}
