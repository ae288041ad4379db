"""The catalogue route's replies: the models that the package knows, in the shape of ``/ai/models/search``."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from workersai.catalog import CATALOG, ModelCard
from workersai.local.wire import bad_input, envelope

_TASK = "Text Generation"
_PER_PAGE = 20
_MOST_DIGITS = 9


def search_models(query: Mapping[str, str]) -> dict[str, Any]:
    """The models that ``task`` and ``search`` pick, ``per_page`` of them (default 20) from ``page`` (from 1).

    Raises:
        WireError: ``page`` or ``per_page`` is no positive number (5006).
    """
    page, per_page = _positive(query, "page", 1), _positive(query, "per_page", _PER_PAGE)
    found = [model for model in map(_model, CATALOG.values()) if _fits(model, query)]
    shown = found[(page - 1) * per_page : page * per_page]
    counts = {"page": page, "per_page": per_page, "count": len(shown), "total_count": len(found)}
    return {**envelope(shown), "result_info": counts}


def _positive(query: Mapping[str, str], name: str, default: int) -> int:
    value = query.get(name, str(default))
    if not value.isascii() or not value.isdigit() or len(value) > _MOST_DIGITS or int(value) < 1:
        raise bad_input(f"'/{name}' must be >= 1")
    return int(value)


def _fits(model: Mapping[str, Any], query: Mapping[str, str]) -> bool:
    if query.get("task", model["task"]["name"]) != model["task"]["name"]:
        return False
    return query.get("search", "").lower() in model["name"].lower()


def _model(card: ModelCard) -> dict[str, Any]:
    able = {"function_calling": card.function_calling, "async_queue": card.async_batch, "lora": card.lora}
    prices = [
        {"unit": "per M input tokens", "price": card.input_price, "currency": "USD"},
        {"unit": "per M output tokens", "price": card.output_price, "currency": "USD"},
    ]
    return {
        # The same for each server, as an id should be.
        "id": str(uuid.uuid5(uuid.NAMESPACE_URL, card.name)),
        "name": card.name,
        "task": {"name": _TASK},
        "properties": [
            {"property_id": "context_window", "value": str(card.context_window)},
            {"property_id": "price", "value": prices},
            *({"property_id": name, "value": "true"} for name, can in able.items() if can),
        ],
    }
