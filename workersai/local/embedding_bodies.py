"""What may be asked of an embedding model and of the reranker, checked as the published schemas of both say.

Keys that they do not list are ignored, or refused if the server is strict, as of a chat. Of what the schemas leave
open, an empty list of texts is refused, and an empty list of contexts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from jsonschema import Draft202012Validator

from workersai.catalog import EMBEDDING_CATALOG, RERANKER_CATALOG, EmbeddingCard
from workersai.local.engine import EngineError
from workersai.local.leniency import listed_options
from workersai.local.minilm import Pooling
from workersai.local.validation import Json, check_options, check_with
from workersai.local.vectors import Read, Reader
from workersai.local.wire import WireError, bad_input

_TEXT = {"type": "string", "minLength": 1}
_TEXTS = {"oneOf": [_TEXT, {"type": "array", "items": _TEXT}]}
_POOLING = {"type": "string", "enum": ["mean", "cls"]}
_CONTEXTS = {
    "query": _TEXT,
    "contexts": {
        "type": "array",
        "items": {"type": "object", "properties": {"text": _TEXT}, "required": ["text"]},
    },
    "top_k": {"type": "integer", "minimum": 1},
}
_INPUT = {
    "input": _TEXTS,
    "encoding_format": {"type": "string", "enum": ["float", "base64"]},
    "dimensions": {"type": "integer", "minimum": 1},
}


@dataclass(frozen=True)
class EmbeddingRequest:
    """Texts to embed, with the model that is to seem to do it."""

    texts: tuple[str, ...]
    card: EmbeddingCard
    pooling: Pooling = "mean"
    may_cut: bool = True
    """A text that is longer than the model's window is cut, and not refused."""
    dimensions: int | None = None
    """How many numbers of each vector are wanted; None for all."""

    async def result(self, reader: Reader) -> tuple[Json, Read]:
        """The result as the service writes it, and what it was made of.

        A vector is the reader's, followed by zeros up to the model's dimensions: the cosine of two stays what it is.

        Raises:
            WireError: a text is too long, or all of them together (3030).
            EngineError: the reader's vectors have more numbers than the model's.
        """
        await self._check_window(reader)
        read = await reader.embed(self.texts, self.pooling)
        size = self.card.dimensions
        for row in read.rows:
            if len(row) > size:
                raise EngineError(f"The embedder gave a vector of {len(row)} numbers: {self.card.name} has {size}.")
        wanted = self.dimensions or size
        rows = [[*row, *[0.0] * (wanted - len(row))] for row in (_shortened(row, wanted) for row in read.rows)]
        result: Json = {"shape": [len(rows), wanted], "data": rows}
        # bge-m3 reports "cls", but MiniLM was trained for the mean, so that is what its vectors are.
        pooling = self.pooling if self.card.pooling else self.card.fixed_pooling
        return ({**result, "pooling": pooling} if pooling else result), read

    async def _check_window(self, reader: Reader) -> None:
        window, most = self.card.max_tokens, self.card.max_call_tokens
        # A token has one character at least; two marks come to them.
        sizes = [len(text) + 2 for text in self.texts]
        if most is None or (sum(sizes) <= most and (self.may_cut or max(sizes) <= window)):
            return
        counts = [await reader.count_tokens(text) for text in self.texts]
        if not self.may_cut and max(counts) > window:
            raise WireError(400, 3030, f"AiError: AiError: Sequence too long: {max(counts)} > {window}")
        total = sum(min(count, window) for count in counts)
        if total > most:
            words = f"Max context reached {total} tokens but model supports only {most}"
            raise WireError(400, 3030, f"AiError: AiError: {words}")


@dataclass(frozen=True)
class RerankRequest:
    """A query, and the documents that are to be sorted by how well they fit it."""

    query: str
    documents: tuple[str, ...]
    top_k: int | None = None

    async def result(self, reader: Reader) -> tuple[Json, Read]:
        """The best ``top_k``, or all, the best first; ``id`` is the place in the request."""
        read = await reader.score(self.query, self.documents)
        scores = [{"id": place, "score": score} for place, (score,) in enumerate(read.rows)]
        scores.sort(key=lambda scored: -scored["score"])
        return {"response": scores[: self.top_k]}, read


def request_from_texts(body: Json, model: str, *, strict: bool) -> EmbeddingRequest | RerankRequest:
    """What the body of a ``/run`` asks of a model of these.

    Raises:
        WireError: the model can't be asked that (5006).
    """
    options = body.get("options", {})
    check_options(options if strict else listed_options(options))
    asked = {name: value for name, value in body.items() if name != "options"}
    if model in RERANKER_CATALOG:
        return _rerank_request(asked, strict=strict)
    return _embedding_request(asked, model, strict=strict)


def batch_items(body: Json, model: str, *, strict: bool) -> Iterator[tuple[EmbeddingRequest, str | None]]:
    """The requests of an Async Batch of texts, with their references.

    Raises:
        WireError: the body is no such batch, or the model takes none (5006).
    """
    if model in RERANKER_CATALOG:
        raise bad_input(f"{model} takes no batch")
    if strict and body.keys() != {"requests"}:
        raise bad_input("a batch has 'requests', and nothing else")
    requests = body.get("requests")
    if not isinstance(requests, list) or not all(isinstance(item, dict) for item in requests):
        raise bad_input("'/requests' must be array of objects")
    if not requests:
        raise bad_input("'/requests' must NOT have fewer than 1 items")
    for index, item in enumerate(requests):
        place, reference = f"/requests/{index}", item.get("external_reference")
        if not isinstance(reference, str | None):
            raise bad_input(f"'{place}/external_reference' must be string")
        asked = {name: value for name, value in item.items() if name != "external_reference"}
        yield _embedding_request(asked, model, place, strict=strict), reference


def request_from_openai_texts(body: Json) -> EmbeddingRequest:
    """What the body of OpenAI's ``/embeddings`` asks for. What else OpenAI's clients send is left unread.

    Raises:
        WireError: it can't be served (5006).
    """
    card = EMBEDDING_CATALOG[body["model"]]
    # To OpenAI's clients, a null is the same as nothing.
    sent = {name: value for name, value in body.items() if value is not None}
    asked = _checked(sent, _INPUT, required="input", strict=False)
    size = int(asked["dimensions"]) if "dimensions" in asked else None
    if size is not None and size > card.dimensions:
        raise bad_input(f"'/dimensions' must be <= {card.dimensions}")
    texts = _texts(asked["input"], "/input", card)
    return EmbeddingRequest(texts, card, may_cut=not card.truncate_inputs, dimensions=size)


def _embedding_request(body: Json, model: str, place: str = "", *, strict: bool) -> EmbeddingRequest:
    card = EMBEDDING_CATALOG[model]
    body = _checked(body, _fields(card), required="text", place=place, strict=strict)
    return EmbeddingRequest(
        _texts(body["text"], f"{place}/text", card),
        card,
        pooling=body.get("pooling", "mean"),
        may_cut=not card.truncate_inputs or body.get("truncate_inputs", False),
    )


def _fields(card: EmbeddingCard) -> Mapping[str, Any]:
    """The fields of a model's published schema that are served here."""
    fields: dict[str, Any] = {"text": _TEXTS}
    if card.pooling:
        fields["pooling"] = _POOLING
    if card.truncate_inputs:
        fields["truncate_inputs"] = {"type": "boolean"}
    return fields


def _rerank_request(body: Json, *, strict: bool) -> RerankRequest:
    body = _checked(body, _CONTEXTS, required="query contexts", strict=strict)
    if not body["contexts"]:
        raise bad_input("'/contexts' must NOT have fewer than 1 items")
    top_k = int(body["top_k"]) if "top_k" in body else None  # to JSON Schema, 2.0 is an integer, too
    return RerankRequest(body["query"], tuple(context["text"] for context in body["contexts"]), top_k)


def _checked(body: Json, fields: Mapping[str, Any], *, required: str, place: str = "", strict: bool) -> Json:
    """The part of a body that has these fields."""
    # What is missing is told first: a prompt for an embedding model is a body without a text.
    schema = {"type": "object", "properties": fields, "required": required.split()}
    check_with(Draft202012Validator(schema), body, place)
    unknown = body.keys() - fields.keys()
    if strict and unknown:
        raise bad_input(f"'{place}/{min(unknown)}' is not a field of this model's input")
    return {name: value for name, value in body.items() if name in fields}


def _shortened(row: list[float], size: int) -> list[float]:
    """The first numbers of a vector, at the length that it had, as OpenAI shortens its own."""
    if len(row) <= size:
        return row
    part = row[:size]
    length = math.hypot(*part)
    return [number * math.hypot(*row) / length for number in part] if length else part


def _texts(given: str | list[str], place: str, card: EmbeddingCard) -> tuple[str, ...]:
    texts = (given,) if isinstance(given, str) else tuple(given)
    if not texts:
        raise bad_input(f"'{place}' must NOT have fewer than 1 items")
    if len(texts) > card.max_texts:
        raise bad_input(f"'{place}' must NOT have more than {card.max_texts} items")
    return texts
