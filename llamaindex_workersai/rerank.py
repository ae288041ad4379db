"""Workers AI's reranker as a LlamaIndex node postprocessor."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from llama_index.core.callbacks import CBEventType, EventPayload
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle
from llama_index_instrumentation import get_dispatcher
from pydantic import ConfigDict
from typing_extensions import override

from workersai.connected import ConnectedReranker
from workersai.errors import BadRequestError
from workersai.protocol.embeddings import Reranking
from workersai.retrieval.asking import checked_text

_dispatcher = get_dispatcher(__name__)


class WorkersAIRerank(ConnectedReranker, BaseNodePostprocessor):
    """Keeps the nodes that answer a query best, by a reranker on Cloudflare Workers AI.

    Example:
        .. code-block:: python

            from llama_index.core.schema import NodeWithScore, TextNode

            from llamaindex_workersai import WorkersAIRerank

            nodes = [NodeWithScore(node=TextNode(text=text)) for text in ("Boats float.", "Birds fly.", "Fish swim.")]
            print(WorkersAIRerank(top_n=1).postprocess_nodes(nodes, query_str="What swims?"))

    A query engine takes it as ``node_postprocessors=[WorkersAIRerank()]``. Nodes come back the best first, with their
    new score (0 to 1), and with the retriever's in ``metadata["retrieval_score"]`` where that is asked for.

    Raises:
        pydantic.ValidationError: a field is out of its range, or there is no such field.
        workersai.errors.ConfigurationError: the account or the token is missing.
        workersai.errors.BadRequestError: from a call: the query or a node is empty; nothing was sent.
        workersai.errors.WorkersAIError: from a call.
    """

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True, hide_input_in_errors=True)

    keep_retrieval_score: bool = False
    """True: the score that a node had before stays in its metadata."""

    @classmethod
    @override
    def class_name(cls) -> str:
        """The name under which LlamaIndex stores it."""
        return "WorkersAIRerank"

    @override
    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        query = _query_of(query_bundle)
        with self._told(nodes, query) as chosen:
            chosen.extend(self._chosen(nodes, self._client.rerank(query, _texts(nodes), **self._options({}))))
        return chosen

    @override
    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        query = _query_of(query_bundle)
        with self._told(nodes, query) as chosen:
            found = await self._async_client.rerank(query, _texts(nodes), **self._options({}))
            chosen.extend(self._chosen(nodes, found))
        return chosen

    @contextmanager
    def _told(self, nodes: list[NodeWithScore], query: str) -> Iterator[list[NodeWithScore]]:
        """Tells LlamaIndex's instrumentation and callbacks; what was chosen is put into the list that it gives."""
        chosen: list[NodeWithScore] = []
        top = self.top_n or len(nodes)
        _dispatcher.event(ReRankStartEvent(query=query, nodes=nodes, top_n=top, model_name=self.model))
        payload: dict[str, Any] = {
            EventPayload.NODES: nodes,
            EventPayload.MODEL_NAME: self.model,
            EventPayload.QUERY_STR: query,
            EventPayload.TOP_K: top,
        }
        with self.callback_manager.event(CBEventType.RERANKING, payload=payload) as event:
            yield chosen
            event.on_end(payload={EventPayload.NODES: chosen})
        _dispatcher.event(ReRankEndEvent(nodes=chosen))

    def _chosen(self, nodes: list[NodeWithScore], found: Reranking) -> list[NodeWithScore]:
        return [self._scored(nodes[each.index], each.score) for each in found.results]

    def _scored(self, before: NodeWithScore, score: float) -> NodeWithScore:
        node = before.node
        if self.keep_retrieval_score:  # in a copy: the node itself is the index's
            node = node.model_copy(update={"metadata": {**node.metadata, "retrieval_score": before.score}})
        return NodeWithScore(node=node, score=score)


def _texts(nodes: list[NodeWithScore]) -> list[str]:
    texts = [node.node.get_content(metadata_mode=MetadataMode.EMBED) for node in nodes]
    for place, text in enumerate(texts):
        checked_text(text, f"nodes[{place}] ({nodes[place].node_id})")
    return texts


def _query_of(bundle: QueryBundle | None) -> str:
    if bundle is None:
        raise BadRequestError("query_str: a reranker needs the question that the nodes are to answer.")
    return bundle.query_str
