"""Embeddings and reranking as LlamaIndex's own classes call them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from llama_index.core import Document, VectorStoreIndex
from llama_index.core.callbacks import CallbackManager, CBEventType, LlamaDebugHandler
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index_instrumentation import get_dispatcher
from llama_index_instrumentation.base import BaseEvent
from llama_index_instrumentation.event_handlers import BaseEventHandler
from pydantic import Field, ValidationError

from llamaindex_workersai import WorkersAIEmbedding, WorkersAIRerank
from tests.support import connection
from workersai import errors
from workersai.local import LocalServer

BASE = "@cf/baai/bge-base-en-v1.5"


def lengths_of(vectors: list[list[float]]) -> list[int]:
    return [int(vector[0]) for vector in vectors]


def test_texts_and_queries_have_vectors(lengths: LocalServer) -> None:
    model = WorkersAIEmbedding(**connection(lengths))
    texts = ["x" * number for number in range(1, 151)]
    assert lengths_of(model.get_text_embedding_batch(texts)) == list(range(1, 151))
    assert lengths_of(asyncio.run(model.aget_text_embedding_batch(texts))) == list(range(1, 151))
    assert lengths_of([model.get_text_embedding("four"), model.get_query_embedding("q")]) == [4, 1]
    assert lengths_of([asyncio.run(model.aget_text_embedding("four"))]) == [4]
    assert lengths_of([asyncio.run(model.aget_query_embedding("q"))]) == [1]
    assert max(len(record.body["text"]) for record in lengths.requests) == 100


@pytest.mark.parametrize(("workers", "begun_before_the_first_end"), [(None, 1), (2, 2)])
def test_batches_of_async_calls_come_one_after_the_other_or_as_many_at_once_as_workers(
    lengths: LocalServer, workers: int | None, begun_before_the_first_end: int
) -> None:
    debug = LlamaDebugHandler(print_trace_on_end=False)
    model = WorkersAIEmbedding(
        **connection(lengths), embed_batch_size=30, num_workers=workers, callback_manager=CallbackManager([debug])
    )
    texts = ["x" * number for number in range(1, 151)]
    assert lengths_of(asyncio.run(model.aget_text_embedding_batch(texts))) == list(range(1, 151))
    told = [event.id_ for event in debug.get_events(CBEventType.EMBEDDING)]
    assert len(told) == 10
    begun = next(number for number in range(10) if told[number] in told[:number])
    assert begun == begun_before_the_first_end


def test_the_model_has_llamaindexs_name_as_well(lengths: LocalServer) -> None:
    named = WorkersAIEmbedding(model_name="@cf/baai/bge-small-en-v1.5", **connection(lengths))
    assert named.model == named.model_name == "@cf/baai/bge-small-en-v1.5"
    assert WorkersAIEmbedding(**connection(lengths)).model_name == BASE
    assert WorkersAIEmbedding.class_name() == "WorkersAIEmbedding"


def test_both_names_go_on_meaning_the_same(lengths: LocalServer) -> None:
    small, large = "@cf/baai/bge-small-en-v1.5", "@cf/baai/bge-large-en-v1.5"
    model = WorkersAIEmbedding(**connection(lengths))
    model.model = small
    assert (model.model_name, len(model.get_text_embedding("a"))) == (small, 384)
    model.model_name = large
    assert (model.model, len(model.get_text_embedding("a"))) == (large, 1024)
    for update in ({"model": small}, {"model_name": small}):
        copy = model.model_copy(update=update)
        assert copy.model == copy.model_name == small
    assert model.model == model.model_name == large


def test_an_instruction_stands_before_queries_alone(lengths: LocalServer) -> None:
    model = WorkersAIEmbedding(query_instruction="Find: ", **connection(lengths))
    assert lengths_of([model.get_query_embedding("four"), model.get_text_embedding("four")]) == [10, 4]


def test_an_index_takes_it(lengths: LocalServer) -> None:
    index = VectorStoreIndex.from_documents(
        [Document(text="One. " * 300)],
        embed_model=WorkersAIEmbedding(**connection(lengths)),
        transformations=[SentenceSplitter(chunk_size=200, chunk_overlap=0)],
    )
    assert len(index.as_retriever(similarity_top_k=2).retrieve("one?")) == 2


def test_chunks_of_llamaindexs_own_size_are_told_to_be_too_long(lengths: LocalServer) -> None:
    model = WorkersAIEmbedding(**connection(lengths))
    with pytest.raises(errors.BadRequestError, match=r"texts\[0\] has [\d,]+ tokens, and .* reads 512: split it"):
        VectorStoreIndex.from_documents(
            [Document(text="A word. " * 2000)], embed_model=model, transformations=[SentenceSplitter()]
        )
    assert not lengths.requests


def test_a_corpus_comes_vector_by_vector(lengths: LocalServer) -> None:
    model = WorkersAIEmbedding(**connection(lengths))
    texts = ["x" * number for number in range(1, 121)]
    assert lengths_of(list(model.embed_corpus(iter(texts), mode="batch", poll_interval=0.01))) == list(range(1, 121))
    wrong: Any = {"mode": "nope"}
    for method in (model.embed_corpus, model.aembed_corpus):
        with pytest.raises(errors.BadRequestError, match="mode"):
            method(texts, **wrong)

    async def main() -> list[list[float]]:
        return [vector async for vector in model.aembed_corpus(texts)]

    assert lengths_of(asyncio.run(main())) == list(range(1, 121))


def test_it_is_stored_without_its_token(lengths: LocalServer, monkeypatch: pytest.MonkeyPatch) -> None:
    model = WorkersAIEmbedding(pooling="cls", **connection(lengths))
    stored = model.to_dict()
    assert lengths.api_token not in str(stored)
    assert lengths.api_token not in str(model.to_payload())
    monkeypatch.setenv("CLOUDFLARE_API_TOKEN", lengths.api_token)
    assert WorkersAIEmbedding.from_dict(stored).get_query_embedding("four")[:2] == [4.0, 1.0]


@pytest.mark.parametrize("field", [{"pooling": "max"}, {"embed_batch_size": 0}, {"modell": "x"}])
def test_a_field_that_cant_be_right_is_told(lengths: LocalServer, field: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(field))):
        WorkersAIEmbedding(**connection(lengths), **field)


class Heard(BaseEventHandler):
    """Keeps the names of the events."""

    names: list[str] = Field(default_factory=list)

    def handle(self, event: BaseEvent, **kwargs: Any) -> None:
        self.names.append(type(event).__name__)


@pytest.fixture
def heard() -> Iterator[Heard]:
    handler = Heard()
    root = get_dispatcher()
    root.add_event_handler(handler)
    yield handler
    root.event_handlers.remove(handler)


def nodes() -> list[NodeWithScore]:
    return [NodeWithScore(node=TextNode(text=text), score=0.1) for text in ("aaaa", "b", "cc")]


def test_the_reranker_keeps_the_best_nodes(lengths: LocalServer) -> None:
    rerank = WorkersAIRerank(top_n=2, **connection(lengths))
    for found in (
        rerank.postprocess_nodes(nodes(), query_str="q"),
        asyncio.run(rerank.apostprocess_nodes(nodes(), query_str="q")),
    ):
        assert len(found) == 2
        assert found[0].get_score() >= found[1].get_score()
        assert "retrieval_score" not in found[0].metadata
    assert rerank.postprocess_nodes([], query_str="q") == []


def test_the_score_before_is_kept_on_request_and_in_a_copy(lengths: LocalServer) -> None:
    before = nodes()
    rerank = WorkersAIRerank(keep_retrieval_score=True, **connection(lengths))
    assert [node.metadata["retrieval_score"] for node in rerank.postprocess_nodes(before, query_str="q")] == [0.1] * 3
    assert not before[0].metadata


def test_a_node_without_a_text_is_named(lengths: LocalServer) -> None:
    blank = NodeWithScore(node=TextNode(text=" ", id_="page-7"))
    with pytest.raises(errors.BadRequestError, match=r"nodes\[3\] \(page-7\) is empty"):
        WorkersAIRerank(**connection(lengths)).postprocess_nodes([*nodes(), blank], query_str="q")
    assert not lengths.requests


def test_a_reranker_needs_a_question(lengths: LocalServer) -> None:
    with pytest.raises(errors.BadRequestError, match="query_str"):
        WorkersAIRerank(**connection(lengths)).postprocess_nodes(nodes())


def test_callbacks_and_instrumentation_are_told(lengths: LocalServer, heard: Heard) -> None:
    debug = LlamaDebugHandler(print_trace_on_end=False)
    manager = CallbackManager([debug])
    WorkersAIEmbedding(callback_manager=manager, **connection(lengths)).get_text_embedding_batch(["a"])
    WorkersAIRerank(callback_manager=manager, **connection(lengths)).postprocess_nodes(nodes(), query_str="q")
    assert heard.names == ["EmbeddingStartEvent", "EmbeddingEndEvent", "ReRankStartEvent", "ReRankEndEvent"]
    kinds = {event.event_type for event in debug.get_events()}
    assert {CBEventType.EMBEDDING, CBEventType.RERANKING} <= kinds
