"""Checks of an embedding model and of the reranker."""

from __future__ import annotations

from workersai._doctor import shapes
from workersai._doctor.captures import Recorder
from workersai._doctor.findings import Check, Finding
from workersai._doctor.requests import DOCUMENTS, TEXTS, embedding_body, rerank_body
from workersai.catalog import DEFAULT_EMBEDDING_MODEL, DEFAULT_RERANKER, embedding_card
from workersai.protocol.embeddings import embeddings_of, reranking_from_body
from workersai.protocol.reply import result_of

_ANSWERING = 1  # the place of the document that answers the query


def vector_checks(recorder: Recorder) -> list[Check]:
    """One call of the default embedding model, and one of the reranker."""

    def embeddings() -> list[Finding]:
        model, name = DEFAULT_EMBEDDING_MODEL, "embeddings"
        capture = recorder.run(name, embedding_body(), model=model, kind="embed", form="")
        result = result_of(capture.body, capture.answered())
        card = embedding_card(model)
        dimensions = card.dimensions if card else None
        found = embeddings_of(result, capture.answered(), model, texts=len(TEXTS), dimensions=dimensions)
        counted = shapes.usage_of_result(result)
        tokens = counted[:2] if counted else (None, None)
        pooling = f", pooling {found.pooling}" if found.pooling else ""
        seen = f"{len(found.vectors)} vectors of {len(found.vectors[0]):,} dimensions{pooling}"
        return [Finding(name, "ok", seen, "", None, None, *tokens)]

    def reranker() -> list[Finding]:
        model, name = DEFAULT_RERANKER, "reranker"
        capture = recorder.run(name, rerank_body(), model=model, kind="rerank", form="")
        ranking = reranking_from_body(capture.body, capture.answered(), model, documents=len(DOCUMENTS))
        counted = shapes.usage_of_result(shapes.result_of_payload(capture.payload))
        tokens = counted[:2] if counted else (None, None)
        if ranking.results and ranking.results[0].index == _ANSWERING:
            return [Finding(name, "ok", "the right document came first", "", None, None, *tokens)]
        seen = "the wrong document came first" if ranking.results else "no scores"
        return [Finding(name, "warn", seen, "Run it again; scores of short texts vary.", None, None, *tokens)]

    return [
        Check(("embeddings",), DEFAULT_EMBEDDING_MODEL, embeddings),
        Check(("reranker",), DEFAULT_RERANKER, reranker),
    ]
