"""Embeddings and reranking as LangChain's own classes call them."""

from __future__ import annotations

import asyncio
import pickle
from typing import Any

import pytest
from langchain_classic.embeddings import CacheBackedEmbeddings
from langchain_classic.retrievers import ContextualCompressionRetriever
from langchain_core import exceptions as langchain
from langchain_core.documents import Document
from langchain_core.stores import InMemoryByteStore
from langchain_core.vectorstores import InMemoryVectorStore
from pydantic import ValidationError

from langchain_workersai import ChatWorkersAI, WorkersAIEmbeddings, WorkersAILLM, WorkersAIRerank
from tests.support import ServeLengths, connection
from workersai import errors
from workersai.local import LocalServer


def lengths_of(vectors: list[list[float]]) -> list[int]:
    return [int(vector[0]) for vector in vectors]


def test_documents_and_queries_have_vectors(lengths: LocalServer) -> None:
    embeddings = WorkersAIEmbeddings(**connection(lengths))
    texts = ["x" * number for number in range(1, 151)]
    assert lengths_of(embeddings.embed_documents(texts)) == list(range(1, 151))
    assert lengths_of(asyncio.run(embeddings.aembed_documents(texts))) == list(range(1, 151))
    assert lengths_of([embeddings.embed_query("four")]) == [4]
    assert lengths_of([asyncio.run(embeddings.aembed_query("four"))]) == [4]
    assert embeddings.embed_documents([]) == []
    assert embeddings.dimensions == 768


def test_an_instruction_stands_before_queries_alone(lengths: LocalServer) -> None:
    embeddings = WorkersAIEmbeddings(query_instruction="Find: ", **connection(lengths))
    assert lengths_of([embeddings.embed_query("four")]) == [10]
    assert lengths_of([asyncio.run(embeddings.aembed_query("four"))]) == [10]
    assert lengths_of(embeddings.embed_documents(["four"])) == [4]


def test_an_empty_query_is_an_error_whatever_the_instruction(lengths: LocalServer) -> None:
    embeddings = WorkersAIEmbeddings(query_instruction="Find: ", **connection(lengths))
    with pytest.raises(errors.BadRequestError, match="query is empty"):
        embeddings.embed_query("")


def test_a_corpus_comes_vector_by_vector(lengths: LocalServer) -> None:
    embeddings = WorkersAIEmbeddings(**connection(lengths))
    texts = ["x" * number for number in range(1, 121)]
    corpus = embeddings.embed_corpus(iter(texts), mode="batch", poll_interval=0.01)
    assert lengths_of(list(corpus)) == list(range(1, 121))
    wrong: Any = {"mode": "nope"}
    for method in (embeddings.embed_corpus, embeddings.aembed_corpus):
        with pytest.raises(errors.BadRequestError, match="mode"):
            method(texts, **wrong)

    async def main() -> list[list[float]]:
        return [vector async for vector in embeddings.aembed_corpus(texts)]

    assert lengths_of(asyncio.run(main())) == list(range(1, 121))


def test_a_vector_store_takes_it(lengths: LocalServer) -> None:
    store = InMemoryVectorStore.from_texts(["a", "bb", "ccc"], WorkersAIEmbeddings(**connection(lengths)))
    assert len(store.similarity_search("a", k=2)) == 2


def test_its_errors_are_langchains_too(serve_lengths: ServeLengths) -> None:
    embeddings = WorkersAIEmbeddings(max_retries=0, **connection(serve_lengths("3040")))
    with pytest.raises(langchain.ModelRateLimitError):
        embeddings.embed_documents(["a"])
    with pytest.raises(langchain.ModelRateLimitError):
        asyncio.run(embeddings.aembed_query("a"))
    with pytest.raises(langchain.ModelInvalidRequestError, match=r"texts\[1\] is empty"):
        embeddings.embed_documents(["a", ""])


@pytest.mark.parametrize("field", [{"model": "@cf/meta/llama-3.3-70b-instruct-fp8-fast"}, {"pooling": "max"}, {"a": 1}])
def test_a_field_that_cant_be_right_is_told(lengths: LocalServer, field: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(field))):
        WorkersAIEmbeddings(**connection(lengths), **field)


def test_neither_repr_nor_pickle_holds_the_token(lengths: LocalServer, monkeypatch: pytest.MonkeyPatch) -> None:
    embeddings = WorkersAIEmbeddings(pooling="cls", **connection(lengths))
    token = lengths.api_token
    stored = pickle.dumps(embeddings)
    assert token not in repr(embeddings)
    assert token.encode() not in stored
    monkeypatch.setenv("CLOUDFLARE_API_TOKEN", token)
    loaded = pickle.loads(stored)  # noqa: S301 - our own
    assert loaded.embed_query("four")[1] == 1.0


DOCUMENTS = [Document("aaaa", metadata={"page": 1}), Document("b"), Document("cc")]


def test_the_reranker_keeps_the_best_documents(lengths: LocalServer) -> None:
    rerank = WorkersAIRerank(top_n=2, **connection(lengths))
    for found in (
        rerank.compress_documents(DOCUMENTS, "q"),
        asyncio.run(rerank.acompress_documents(DOCUMENTS, "q")),
    ):
        assert len(found) == 2
        scores = [document.metadata["relevance_score"] for document in found]
        assert scores == sorted(scores, reverse=True)
    assert "relevance_score" not in DOCUMENTS[0].metadata
    assert lengths.requests[0].body["top_k"] == 2


def test_the_reranker_keeps_all_on_request_and_none_of_none(lengths: LocalServer) -> None:
    rerank = WorkersAIRerank(top_n=None, **connection(lengths))
    assert rerank.top_n is None
    found = rerank.compress_documents(DOCUMENTS, "q")
    assert {document.page_content for document in found} == {"aaaa", "b", "cc"}
    assert next(document for document in found if document.page_content == "aaaa").metadata["page"] == 1
    assert list(rerank.compress_documents([], "q")) == []


def test_langchains_compressing_retriever_takes_both(minilm: LocalServer) -> None:
    texts = ["The boat house opens at nine.", "Dogs are welcome on deck.", "The last ferry leaves at six."]
    store = InMemoryVectorStore.from_texts(texts, WorkersAIEmbeddings(**connection(minilm)))
    retriever = ContextualCompressionRetriever(
        base_compressor=WorkersAIRerank(top_n=1, **connection(minilm)), base_retriever=store.as_retriever()
    )
    question = "When does the last boat go?"
    for (found,) in (retriever.invoke(question), asyncio.run(retriever.ainvoke(question))):
        assert found.page_content == texts[2]
        assert 0 < found.metadata["relevance_score"] <= 1


def test_langchains_cache_of_vectors_takes_it(lengths: LocalServer) -> None:
    embeddings = WorkersAIEmbeddings(**connection(lengths))
    cached = CacheBackedEmbeddings.from_bytes_store(
        embeddings, InMemoryByteStore(), namespace=embeddings.model, key_encoder="sha256"
    )
    for _ in range(2):
        assert lengths_of(cached.embed_documents(["a", "bb"])) == [1, 2]
    assert len(lengths.requests) == 1


def test_the_rerankers_errors_are_langchains_too(lengths: LocalServer) -> None:
    with pytest.raises(langchain.ModelInvalidRequestError, match=r"documents\[0\] is empty"):
        WorkersAIRerank(**connection(lengths)).compress_documents([Document("")], "q")


@pytest.mark.parametrize("kind", [ChatWorkersAI, WorkersAILLM, WorkersAIEmbeddings, WorkersAIRerank])
def test_a_misspelt_field_is_told_with_the_right_one(kind: Any) -> None:
    with pytest.raises(ValidationError, match=r"(?s)modle.*Extra inputs are not permitted. Did you mean model\?"):
        kind(account_id="a", api_token="t", modle="@cf/x/y")
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        kind(account_id="a", api_token="t", zzz=1)
    with pytest.raises(ValidationError) as error:
        kind(account_id="a", api_tokn="secret")
    assert "secret" not in f"{error.value!s} {error.value.errors()}"


@pytest.mark.parametrize("kind", [WorkersAIEmbeddings, WorkersAIRerank])
def test_its_fields_have_a_json_schema(kind: Any) -> None:
    assert {"model", "gateway", "timeout"} <= kind.model_json_schema()["properties"].keys()
