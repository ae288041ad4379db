"""The samples of batches, embeddings and the reranker, through the clients and both frameworks."""

from __future__ import annotations

import json
from typing import Any

import pytest
from langchain_core.documents import Document
from llama_index.core.base.llms.types import CompletionResponse
from llama_index.core.schema import NodeWithScore, TextNode

from langchain_workersai import ChatWorkersAI, WorkersAIEmbeddings
from langchain_workersai import WorkersAIRerank as LangChainRerank
from llamaindex_workersai import WorkersAI, WorkersAIEmbedding
from llamaindex_workersai import WorkersAIRerank as LlamaIndexRerank
from tests.raw_server import raw_server, reply
from tests.samples import Sample, of_kinds, sent
from workersai import Client, CostTracker
from workersai.catalog import EMBEDDING_CATALOG

QUEUED = b'{"result":{"status":"queued","request_id":"r-1","model":"m"},"success":true,"errors":[],"messages":[]}'
JOB: dict[str, Any] = {"mode": "batch", "rate_limit": None, "poll_interval": 0.01}


def name_of(value: object) -> str | None:
    return value.name if isinstance(value, Sample) else None


@pytest.mark.parametrize("sample", of_kinds("batch"), ids=name_of)
def test_a_batch_is_read(sample: Sample) -> None:
    def handle(connected: Any, request: bytes) -> None:
        connected.sendall(reply(sample.body if b'"request_id"' in request else QUEUED))

    expected = sample.expect["texts"]
    with raw_server(handle) as server:
        with Client(**server.account, model=sample.model) as client:
            results = list(client.batch(["hi"], **JOB))
        assert [result.text for result in results] == expected
        chat = ChatWorkersAI(**server.account, model=sample.model)
        assert [message.text for message in chat.batch_api(["hi"], **JOB)] == expected
        llm = WorkersAI(**server.account, model=sample.model)
        responses = llm.batch_api(["hi"], **JOB)
        assert [response.text for response in responses if isinstance(response, CompletionResponse)] == expected


class Padded(Sample):
    """The samples' vectors are shortened to three numbers: zeros stand for the others."""

    @property
    def body(self) -> bytes:
        """What the service would send."""
        payload = json.loads(super().body)
        result, dimensions = payload["result"], EMBEDDING_CATALOG[self.model].dimensions
        assert dimensions is not None
        result["data"] = [[*vector, *[0.0] * (dimensions - len(vector))] for vector in result["data"]]
        result["shape"] = [len(result["data"]), dimensions]
        return json.dumps(payload).encode()


@pytest.mark.parametrize("sample", of_kinds("embed"), ids=name_of)
def test_embeddings_are_read(sample: Sample) -> None:
    texts = ["some text"] * sample.expect["vectors"]
    with sent(Padded(**sample.model_dump())) as server, CostTracker() as cost:
        with Client(**server.account) as client:
            embeddings = client.embed(texts, model=sample.model)
        assert len(embeddings.vectors) == len(texts)
        assert [cost.prompt_tokens, cost.completion_tokens] == sample.expect["usage"]
        langchain = WorkersAIEmbeddings(**server.account, model=sample.model)
        assert langchain.embed_documents(texts) == [list(vector) for vector in embeddings.vectors]
        llamaindex = WorkersAIEmbedding(**server.account, model=sample.model)
        assert llamaindex.get_text_embedding_batch(texts) == [list(vector) for vector in embeddings.vectors]


@pytest.mark.parametrize("sample", of_kinds("rerank"), ids=name_of)
def test_a_reranking_is_read(sample: Sample) -> None:
    documents = [f"document {number}" for number in range(len(sample.expect["order"]))]
    ordered = [documents[number] for number in sample.expect["order"]]
    with sent(sample) as server, CostTracker() as cost:
        with Client(**server.account) as client:
            ranking = client.rerank("query", documents)
        assert [entry.index for entry in ranking.results] == sample.expect["order"]
        assert [cost.prompt_tokens, cost.completion_tokens] == sample.expect["usage"]
        langchain = LangChainRerank(**server.account, top_n=len(documents))
        found = langchain.compress_documents([Document(text) for text in documents], "query")
        assert [document.page_content for document in found] == ordered
        llamaindex = LlamaIndexRerank(**server.account, top_n=len(documents))
        nodes = [NodeWithScore(node=TextNode(text=text), score=0.5) for text in documents]
        assert [node.text for node in llamaindex.postprocess_nodes(nodes, query_str="query")] == ordered
