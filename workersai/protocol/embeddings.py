"""Texts -> vectors, and documents -> scores: what is sent, and every shape in which the service answers.

The shapes are those of wire.md#embeddings, of the models' published schemas, and of the OpenAI-compatible
twin, which some routes answer with.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from workersai.checks import is_number
from workersai.protocol.reply import ReplyHead, result_of, unreadable, usage_of
from workersai.protocol.values import Usage

Vector = list[float]

_MOST_METRICS = 4  # cost metrics of a reply; one was seen


@dataclass(frozen=True)
class Embeddings:
    """The vectors of some texts, in their order.

    ``usage`` is what the service reported (in ``usage``, or in ``meta`` for bge-m3), else what was counted here, else
    None. ``truncated`` are the places of the texts that were cut to the model's limit. ``pooling`` is what the service
    says it used.
    """

    vectors: Sequence[Vector]
    model: str
    usage: Usage | None = None
    truncated: tuple[int, ...] = ()
    pooling: str | None = None
    request_id: str | None = None
    cache_status: str | None = None


@dataclass(frozen=True)
class Ranked:
    """A document's place in the list that was given, and its score: how well it answers the query, from 0 to 1."""

    index: int
    score: float


@dataclass(frozen=True)
class Reranking:
    """Documents by their score, the best first.

    ``usage`` is None where the service told none; ``cache_status`` is what an AI Gateway says of its cache.
    """

    results: Sequence[Ranked]
    model: str
    usage: Usage | None = None
    request_id: str | None = None
    cache_status: str | None = None


def embeddings_of(
    result: Mapping[str, Any], head: ReplyHead, model: str, *, texts: int, dimensions: int | None
) -> Embeddings:
    """The vectors in the result of a reply.

    Args:
        result: What stands in the envelope.
        head: The reply's.
        model: What was asked.
        texts: How many texts it was asked for.
        dimensions: How long each vector must be, if that is known.

    Raises:
        ServerError: a vector is missing, is no list of finite numbers, or has another length; the places that the
            reply names for them are not those of the texts.
    """
    found = result.get("data")
    if found is None:
        found = result.get("response")  # bge-m3's schema has it for contexts; beside data, it is null
    if not isinstance(found, list):
        raise unreadable("has no list of vectors", head)
    if len(found) != texts:
        raise unreadable(f"has {len(found)} vectors for {texts} texts", head)
    vectors = _in_order(found, head)
    for index, vector in enumerate(vectors):
        if not _is_vector(vector):
            raise unreadable(f"has, for text {index}, no list of finite numbers", head)
        wanted = dimensions or len(vectors[0])
        if len(vector) != wanted:
            raise unreadable(f"has a vector of {len(vector)} numbers for text {index}, where {wanted} are due", head)
    pooling = result.get("pooling")
    return Embeddings(
        vectors,
        model,
        _usage_in(result, head, model),
        pooling=pooling if isinstance(pooling, str) else None,
        request_id=head.request_id,
        cache_status=head.cache_status,
    )


def _usage_in(result: Mapping[str, Any], head: ReplyHead, model: str) -> Usage | None:
    """Returns the tokens and neurons that a result reports; None without a count of tokens.

    The English bge models have ``usage``. bge-m3 has the tokens as a cost metric in ``meta``, with the neurons.
    """
    meta = result.get("meta")
    meta = meta if isinstance(meta, dict) else {}
    own = meta.get("neurons")
    neurons = float(own) if is_number(own) and own >= 0 else head.neurons
    for given in (result.get("usage"), {"prompt_tokens": _input_tokens(meta)}):
        billed = not head.from_cache
        usage = usage_of(given, model, billed=billed, neurons=neurons if billed else None)
        if usage is not None and usage.total_tokens:  # each text has a token at least, so 0 is no count
            return usage
    return None


def _input_tokens(meta: Mapping[str, Any]) -> Any:
    """The metric of the input tokens: the one of that name, or the first if none is named."""
    for number in range(1, _MOST_METRICS + 1):
        if meta.get(f"cost_metric_name_{number}", "input_tokens") == "input_tokens":
            return meta.get(f"cost_metric_value_{number}")
    return None


def _in_order(found: list[Any], head: ReplyHead) -> list[Any]:
    """The vectors as they stand, or out of OpenAI's objects, which name their places: all of them, or none."""
    if not all(isinstance(entry, dict) for entry in found):
        return found
    places = [entry.get("index") for entry in found]
    vectors = [entry.get("embedding") for entry in found]
    if all(place is None for place in places):
        return vectors
    by_place: dict[int, Any] = {}
    for number, (place, vector) in enumerate(zip(places, vectors, strict=True)):
        if place is None:
            raise unreadable(f"has no index for vector {number}, but one for others", head)
        if type(place) is not int or not 0 <= place < len(found):
            expected = f"a whole number from 0 to {len(found) - 1} was expected"
            raise unreadable(f"has the index {place!r:.50} for vector {number}, where {expected}", head)
        if place in by_place:
            raise unreadable(f"has the index {place} for two vectors", head)
        by_place[place] = vector
    return [by_place[place] for place in range(len(found))]


def _is_vector(vector: Any) -> bool:
    if not isinstance(vector, list) or not vector or not {float, int}.issuperset(map(type, vector)):
        return False
    try:
        return all(map(math.isfinite, vector))
    except OverflowError:  # an integer of hundreds of digits
        return False


def reranking_from_body(
    body: bytes, head: ReplyHead, model: str, *, documents: int, most: int | None = None
) -> Reranking:
    """The scores in a whole reply, the best first, and no more than ``most``.

    Raises:
        WorkersAIError: the failure that it tells of; :class:`ServerError` for one that can't be read.
    """
    result = result_of(body, head)
    found = result.get("response")
    if found is None:
        found = result.get("data")
    if not isinstance(found, list):
        raise unreadable("has no list of scores", head)
    ranked = [_ranked(entry, documents, head) for entry in found]
    if len({each.index for each in ranked}) != len(ranked):
        raise unreadable("scores a document twice", head)
    best_first = sorted(ranked, key=lambda each: (-each.score, each.index))
    usage = _usage_in(result, head, model)
    return Reranking(tuple(best_first[:most]), model, usage, head.request_id, head.cache_status)


def _ranked(entry: Any, documents: int, head: ReplyHead) -> Ranked:
    index, score = (entry.get("id"), entry.get("score")) if isinstance(entry, dict) else (None, None)
    if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < documents:
        raise unreadable("scores a document that was not sent", head)
    if not is_number(score):
        raise unreadable(f"has no score for document {index}", head)
    return Ranked(index, float(score))
