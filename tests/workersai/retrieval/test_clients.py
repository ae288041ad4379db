"""Vectors and scores over real sockets: how they are asked for, and what becomes of a text that has none."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from tests.raw_server import raw_server, reply
from tests.support import PATIENCE, Lengths, ServeLengths, connection
from tests.workersai.retrieval.conftest import RetrievalDriver
from workersai import AsyncClient, Client, CostTracker, Gateway, RateLimit, Retry, errors
from workersai.catalog import EMBEDDING_CATALOG
from workersai.local import LocalServer

QWEN = "@cf/qwen/qwen3-embedding-0.6b"
SMALL, BASE, M3 = (f"@cf/baai/bge-{name}" for name in ("small-en-v1.5", "base-en-v1.5", "m3"))


def texts_at(server: LocalServer) -> list[list[str]]:
    return [record.body["text"] for record in server.requests if "text" in (record.body or {})]


def told(vectors: Any) -> list[int]:
    return [int(vector[0]) for vector in vectors]


def test_vectors_come_in_the_order_of_the_texts(retrieval: RetrievalDriver, lengths: LocalServer) -> None:
    texts = ["x" * number for number in range(1, 351)]
    embeddings = retrieval.embed(lengths, texts)
    assert told(embeddings.vectors) == list(range(1, 351))
    assert {len(vector) for vector in embeddings.vectors} == {768}
    assert sorted(map(len, texts_at(lengths))) == [50, 100, 100, 100]
    assert embeddings.model == BASE
    assert embeddings.request_id


def test_one_text_needs_no_list(retrieval: RetrievalDriver, lengths: LocalServer) -> None:
    assert told(retrieval.embed(lengths, "four").vectors) == [4]


def test_texts_and_documents_may_come_from_a_table_or_a_generator(
    retrieval: RetrievalDriver, lengths: LocalServer
) -> None:
    column = pd.Series(["one", "three"])
    for texts in (column, column.to_numpy(), ("one", "three"), (text for text in column)):
        assert told(retrieval.embed(lengths, texts).vectors) == [3, 5]
    assert len(retrieval.rerank(lengths, "a", column).results) == 2


def test_no_texts_are_no_vectors(retrieval: RetrievalDriver, lengths: LocalServer) -> None:
    assert retrieval.embed(lengths, []).vectors == []
    assert retrieval.corpus(lengths, []) == []
    assert not lengths.requests


@pytest.mark.parametrize(("model", "dimensions"), [(SMALL, 384), (BASE, 768), (M3, 1024)])
def test_each_model_has_its_dimensions(
    retrieval: RetrievalDriver, lengths: LocalServer, model: str, dimensions: int
) -> None:
    assert len(retrieval.embed(lengths, ["a"], model=model).vectors[0]) == dimensions


def test_the_pooling_is_sent_and_told(retrieval: RetrievalDriver, lengths: LocalServer) -> None:
    chosen = retrieval.embed(lengths, ["a"], pooling="cls")
    assert (chosen.pooling, chosen.vectors[0][1]) == ("cls", 1.0)
    default = retrieval.embed(lengths, ["a"])
    assert (default.pooling, default.vectors[0][1]) == ("mean", 0.0)
    assert [("pooling" in record.body) for record in lengths.requests] == [True, False]


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["a", ""], r"texts\[1\] is empty"),
        (["a", " \n"], r"texts\[1\] is empty"),
        ("", r"texts\[0\] is empty"),
        (["a", None], r"texts\[1\] must be a string, not NoneType"),
        ([*["a"] * 150, "word " * 600], r"texts\[150\] has 602 tokens, and .*bge-base-en-v1.5 reads 512"),
        (7, "texts must be strings in a list or another iterable, not int"),
        (b"a", "texts must be strings in a list or another iterable, not bytes"),
        ({"a": 1}, "texts must be strings in a list or another iterable, not dict"),
    ],
)
def test_a_text_that_has_no_vector_is_told_before_any_is_sent(
    retrieval: RetrievalDriver, lengths: LocalServer, texts: Any, message: str
) -> None:
    with pytest.raises(errors.BadRequestError, match=message):
        retrieval.embed(lengths, texts)
    assert not lengths.requests


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "@cf/meta/llama-3.3-70b-instruct-fp8-fast"}, "model: must be an embedding model"),
        ({"model": "@cf/baai/bge-reranker-base"}, "model: must be an embedding model"),
        ({"model": "bge"}, "model: must be a model's full name, which begins with @, as in '@cf/baai/bge"),
        ({"pooling": "max"}, "pooling: "),
        ({"model": M3, "pooling": "mean"}, "pooling: @cf/baai/bge-m3 takes none; it always uses 'cls'"),
        ({"model": QWEN, "pooling": "cls"}, "pooling: @cf/qwen/qwen3-embedding-0.6b takes none. Leave"),
        ({"model": QWEN, "truncate": True}, "truncate: .* has no option to cut texts. Split texts of more than 8,192"),
        ({"max_concurrency": 0}, "max_concurrency: "),
        ({"poling": "cls"}, "Did you mean pooling"),
        ({"temperature": 1}, "temperature is no option"),
        ({"timeout": -1}, "timeout: "),
    ],
)
def test_an_option_that_cant_be_right_is_told_by_its_name(
    retrieval: RetrievalDriver, lengths: LocalServer, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(errors.BadRequestError, match=message):
        retrieval.embed(lengths, ["a"], **options)
    assert not lengths.requests


WRONG_WAYS = [{"mode": "auto"}, *({"poll_interval": wrong} for wrong in (0, True, 10**400, 10**5_000, float("nan")))]


@pytest.mark.parametrize("options", WRONG_WAYS, ids=range(len(WRONG_WAYS)))
def test_a_corpus_has_its_own_options(lengths: LocalServer, options: dict[str, Any]) -> None:
    with Client(**connection(lengths)) as client, pytest.raises(errors.BadRequestError, match=next(iter(options))):
        client.embed_corpus(["a"], **options)


def test_an_overlong_text_is_cut_only_on_request(retrieval: RetrievalDriver, lengths: LocalServer) -> None:
    embeddings = retrieval.embed(lengths, ["short", "word " * 600], truncate=True)
    assert embeddings.truncated == (1,)
    assert texts_at(lengths)[0][1] == "word " * 509 + "word"


def test_bge_m3_reads_what_the_others_refuse_and_is_told_to_cut(
    retrieval: RetrievalDriver, lengths: LocalServer
) -> None:
    assert told(retrieval.embed(lengths, ["word " * 600], model=M3).vectors) == [3000]
    retrieval.embed(lengths, ["a"], model=M3, truncate=True)
    assert [record.body.get("truncate_inputs") for record in lengths.requests] == [None, True]


@pytest.mark.parametrize("mode", ["calls", "batch"])
def test_what_is_too_long_for_bge_m3_says_what_to_do(
    retrieval: RetrievalDriver, lengths: LocalServer, mode: str
) -> None:
    with pytest.raises(errors.BadRequestError, match=r"one of texts\[100\] to texts\[101\] .*truncate=True") as caught:
        retrieval.corpus(lengths, ["a"] * 101 + ["word " * 8_193], model=M3, mode=mode)
    assert "Sequence too long: 8193 > 8192" in caught.value.message


@contextmanager
def answered(body: bytes, status: str = "200 OK") -> Iterator[Client]:
    """A client of a server that answers every request with that."""
    with (
        raw_server(lambda connected, _: connected.sendall(reply(body, status=status))) as server,
        Client(**server.account) as client,
    ):
        yield client


@pytest.mark.parametrize("options", [{"model": QWEN}, {"model": M3, "truncate": True}])
def test_a_text_that_cannot_be_cut_is_refused_without_that_advice(options: dict[str, Any]) -> None:
    refused = b'{"errors": [{"code": 3030, "message": "AiError: Sequence too long: 9003 > 8192"}], "success": false}'
    with (
        answered(refused, "400 Bad Request") as client,
        pytest.raises(errors.BadRequestError, match=r"texts\[0\] to texts\[0\] whole: split it\. AiError"),
    ):
        client.embed(["a"], **options)


@pytest.mark.parametrize("model", [M3, BASE])
def test_the_tokens_that_the_service_reports_are_counted(model: str) -> None:
    size = EMBEDDING_CATALOG[model].dimensions
    metric = {"cost_metric_name_1": "input_tokens", "cost_metric_value_1": 20, "neurons": 0.0215}
    count = {"meta": metric} if model == M3 else {"usage": {"prompt_tokens": 20, "total_tokens": 20}}
    body = json.dumps({"result": {"data": [[0.5] * size], **count}, "success": True}).encode()
    with answered(body) as client, CostTracker(budget=1) as cost:
        usage = client.embed(["a"], model=model).usage
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens) == (20, 0)
    assert (usage.neurons is not None) == (model == M3)
    assert (cost.prompt_tokens, cost.unpriced_calls) == (20, 0)
    assert cost.cost_usd == pytest.approx(20 * EMBEDDING_CATALOG[model].input_price / 1e6)


def test_the_scores_of_a_reranker_may_come_in_any_order() -> None:
    scores = [{"id": 1, "score": 0.64}, {"id": 0, "score": 0.73}]
    usage = {"prompt_tokens": 12, "completion_tokens": 0, "total_tokens": 12}
    body = json.dumps({"result": {"response": scores, "usage": usage}, "success": True}).encode()
    with answered(body) as client, CostTracker() as cost:
        found = client.rerank("a", ["b", "c"])
    assert [each.index for each in found.results] == [0, 1]
    assert (cost.prompt_tokens, cost.unpriced_calls) == (12, 0)


def test_the_pooling_that_a_model_always_uses_is_left_out(retrieval: RetrievalDriver, lengths: LocalServer) -> None:
    assert retrieval.embed(lengths, ["a"], model=M3, pooling="cls").pooling == "cls"
    assert "pooling" not in lengths.requests[0].body


@pytest.mark.parametrize("mode", ["calls", "batch"])
def test_groups_are_filled_by_tokens_as_well_as_by_number(
    retrieval: RetrievalDriver, lengths: LocalServer, mode: str
) -> None:
    texts = ["word " * 2_000] * 13  # 10,003 tokens at most, each
    assert retrieval.corpus(lengths, texts, model=M3, mode=mode, max_concurrency=1)
    bodies = [record.body for record in lengths.requests if "text" in record.body or "requests" in record.body]
    calls = [item["text"] for body in bodies for item in body.get("requests", [body])]
    assert [len(call) for call in calls] == [5, 5, 3]


def test_qwen_takes_32_texts(retrieval: RetrievalDriver, lengths: LocalServer) -> None:
    assert len(retrieval.embed(lengths, ["a"] * 70, model=QWEN, max_concurrency=1).vectors) == 70
    assert [len(texts) for texts in texts_at(lengths)] == [32, 32, 6]


def test_the_clients_own_options_hold_but_for_the_model_and_the_rate_limit(lengths: LocalServer) -> None:
    defaults: dict[str, Any] = {"gateway": "gw", "temperature": 1, "rate_limit": RateLimit(1, 1000, name="generation")}
    with Client(**connection(lengths), **defaults) as client:
        client.embed(["a"])
        client.embed(["b"])
    assert [record.headers["cf-aig-gateway-id"] for record in lengths.requests] == ["gw", "gw"]
    assert all("temperature" not in record.body for record in lengths.requests)


def test_a_failure_is_tried_again_and_told(retrieval: RetrievalDriver, serve_lengths: ServeLengths) -> None:
    heard: list[Retry] = []
    assert told(retrieval.embed(serve_lengths(["3040"]), ["a"], on_retry=heard.append).vectors) == [1]
    assert [retry.error.code for retry in heard] == [3040]


def test_a_failure_that_stays_is_raised(retrieval: RetrievalDriver, serve_lengths: ServeLengths) -> None:
    with pytest.raises(errors.RateLimitError):
        retrieval.embed(serve_lengths("3040"), ["a"] * 500, max_retries=0)


def test_a_closed_client_asks_for_no_vectors(lengths: LocalServer) -> None:
    client = Client(**connection(lengths))
    client.close()
    for ask in (client.embed, client.embed_corpus):
        with pytest.raises(RuntimeError, match="was closed"):
            ask(["a"])
    with pytest.raises(RuntimeError, match="was closed"):
        client.rerank("a", ["b"])


def test_a_cost_tracker_counts_what_the_english_models_read(retrieval: RetrievalDriver, lengths: LocalServer) -> None:
    with CostTracker(budget=1) as cost:
        embeddings = retrieval.embed(lengths, ["Why is the sky blue?"] * 150)
    assert (cost.calls, cost.prompt_tokens, cost.completion_tokens) == (2, 150 * 8, 0)
    assert cost.cost_usd == pytest.approx(150 * 8 * 0.067 / 1e6)
    assert embeddings.usage is not None
    assert embeddings.usage.cost_usd == pytest.approx(cost.cost_usd)


def test_the_english_models_tokens_are_told_with_and_without_a_cost_tracker(
    retrieval: RetrievalDriver, lengths: LocalServer
) -> None:
    used = retrieval.embed(lengths, ["a b c", "word " * 100]).usage
    assert used is not None
    assert used.prompt_tokens == 5 + 102


def test_a_deadline_is_that_of_all_requests(retrieval: RetrievalDriver, lengths: LocalServer) -> None:
    with pytest.raises(errors.APITimeoutError, match="longer than its deadline of 1e-05 s"):
        retrieval.embed(lengths, ["a"] * 500, deadline=0.00001)
    assert len(retrieval.embed(lengths, ["a"] * 500, deadline=60).vectors) == 500


def test_a_budget_that_could_be_passed_sends_nothing(retrieval: RetrievalDriver, lengths: LocalServer) -> None:
    with CostTracker(budget=1e-9), pytest.raises(errors.BudgetExceededError):
        retrieval.embed(lengths, ["a"] * 50)
    assert not lengths.requests


LIGATURE = "\ufdfa" * 100  # 300 bytes, which the tokenizer of bge-m3 and of the reranker spells in 1,800 characters


def test_a_budget_allows_for_texts_with_more_tokens_than_bytes(
    retrieval: RetrievalDriver, lengths: LocalServer
) -> None:
    with CostTracker(budget=1_000 * 0.012e-6), pytest.raises(errors.BudgetExceededError, match=r"1,803 tokens of text"):
        retrieval.embed(lengths, [LIGATURE], model=M3)
    for query, documents in ((LIGATURE, ["a"]), ("a", [LIGATURE]), ("a" * 100, ["b"] * 10)):
        with CostTracker(budget=1_000 * 0.0031e-6), pytest.raises(errors.BudgetExceededError):
            retrieval.rerank(lengths, query, documents)
    with CostTracker(budget=1_000 * 0.0031e-6):
        retrieval.rerank(lengths, "a" * 50, ["b"] * 10)
    assert len(lengths.requests) == 1


def test_what_a_gateway_has_in_its_cache_costs_nothing(retrieval: RetrievalDriver, lengths: LocalServer) -> None:
    gateway = Gateway("gw", cache_ttl=60)
    with CostTracker() as cost:
        asked, kept = (retrieval.embed(lengths, ["a b c"], gateway=gateway) for _ in range(2))
        retrieval.rerank(lengths, "a", ["b"], gateway=gateway)
        again = retrieval.rerank(lengths, "a", ["b"], gateway=gateway)
    assert (asked.cache_status, kept.cache_status, again.cache_status) == ("MISS", "HIT", "HIT")
    assert kept.usage is not None
    assert (kept.usage.prompt_tokens, kept.usage.cost_usd) == (5, 0)
    assert (cost.calls, cost.unpriced_calls, cost.prompt_tokens) == (4, 1, 10)
    assert cost.saved_usd == pytest.approx(5 * 0.067 / 1e6)


def test_one_cache_key_gives_each_text_its_own_vector(retrieval: RetrievalDriver, lengths: LocalServer) -> None:
    gateway = Gateway("g", cache_key="k")
    texts = ["x" * number for number in range(1, 151)]
    for status in ("MISS", "HIT"):
        found = retrieval.embed(lengths, texts, gateway=gateway)
        assert (told(found.vectors), found.cache_status) == (list(range(1, 151)), status)
    assert told(retrieval.embed(lengths, "xx", gateway=gateway, model=SMALL).vectors) == [2]
    for document, query in itertools.product(("a", "aa"), ("b", "bb")):
        assert retrieval.rerank(lengths, query, [document], gateway=gateway).cache_status == "MISS"
    keys = [record.headers["cf-aig-cache-key"] for record in lengths.requests]
    assert len(keys) == 9
    assert len(set(keys)) == 7
    assert all(key.startswith(("k.embed.", "k.rerank.")) for key in keys)


def test_polls_of_a_batch_go_past_a_gateways_cache(retrieval: RetrievalDriver, lengths: LocalServer) -> None:
    retrieval.corpus(lengths, ["a"], mode="batch", gateway=Gateway("gw", cache_ttl=60))
    assert {record.headers.get("cf-aig-skip-cache") for record in lengths.requests} == {"true"}


def test_what_nobody_counts_is_unpriced(retrieval: RetrievalDriver, lengths: LocalServer) -> None:
    with CostTracker() as cost:
        retrieval.embed(lengths, ["a"], model=M3)
        retrieval.rerank(lengths, "a", ["a", "b"])
    assert (cost.calls, cost.unpriced_calls) == (2, 2)


@pytest.mark.parametrize("mode", ["calls", "batch"])
def test_a_corpus_comes_in_order(retrieval: RetrievalDriver, lengths: LocalServer, mode: str) -> None:
    vectors = retrieval.corpus(lengths, ("x" * number for number in range(1, 2351)), mode=mode, model=SMALL)
    assert told(vectors) == list(range(1, 2351))
    parts = [record.body["requests"] for record in lengths.requests if "requests" in (record.body or {})]
    assert sorted(map(len, parts)) == ([4, 10, 10] if mode == "batch" else [])
    assert len(texts_at(lengths)) == (0 if mode == "batch" else 24)


def test_a_corpus_is_read_no_further_than_needed(lengths: LocalServer) -> None:
    read = itertools.count()
    with (
        Client(**connection(lengths)) as client,
        closing(client.embed_corpus((f"text {next(read)}" for _ in range(1_000_000)), max_concurrency=1)) as vectors,
    ):
        assert told(itertools.islice(vectors, 3)) == [6, 6, 6]
    assert next(read) <= 2_000


def test_a_text_of_a_corpus_that_has_no_vector_is_told_with_its_place(
    retrieval: RetrievalDriver, lengths: LocalServer
) -> None:
    with pytest.raises(errors.BadRequestError, match=r"texts\[1200\] is empty"):
        retrieval.corpus(lengths, [*["a"] * 1200, "", *["a"] * 1200])
    assert sum(map(len, texts_at(lengths))) == 1200, "those before it were asked for"


def test_texts_that_failed_in_a_batch_are_asked_for_by_a_call(
    retrieval: RetrievalDriver, serve_lengths: ServeLengths, caplog: pytest.LogCaptureFixture
) -> None:
    lengths = serve_lengths("item:3040@0.5")
    with caplog.at_level(logging.INFO, "workersai"):
        vectors = retrieval.corpus(lengths, ["x" * number for number in range(1, 951)], mode="batch")
    assert told(vectors) == list(range(1, 951))
    assert len(texts_at(lengths)) >= 1
    assert "failed in a batch" in caplog.text


def test_a_corpus_may_come_from_an_async_iterable(lengths: LocalServer) -> None:
    async def texts() -> AsyncIterator[str]:
        for number in range(1, 131):
            yield "x" * number

    async def main() -> list[list[float]]:
        async with AsyncClient(**connection(lengths)) as client:
            return [vector async for vector in client.embed_corpus(texts())]

    assert told(asyncio.run(main())) == list(range(1, 131))


@pytest.mark.parametrize("texts", ["a text", b"bytes", 7, None, {"a": "text"}, np.array("a"), np.array([["a"]])])
def test_a_corpus_is_texts_one_after_the_other(lengths: LocalServer, texts: Any) -> None:
    with Client(**connection(lengths)) as client, pytest.raises(errors.BadRequestError, match="texts must be strings"):
        client.embed_corpus(texts)


class Held(Lengths):
    """Waits with its vectors until it is let go."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.let_go = threading.Event()

    def embed(self, texts: Sequence[str], pooling: str) -> list[list[float]]:
        self.asked.set()
        self.let_go.wait(PATIENCE)
        return super().embed(texts, pooling)


TABLES = [pd.DataFrame({"text": ["a"]}), pa.table({"text": ["a"]})]


@pytest.mark.parametrize("table", TABLES, ids=["pandas", "arrow"])
def test_the_names_of_columns_are_not_embedded(retrieval: RetrievalDriver, lengths: LocalServer, table: Any) -> None:
    for ask in (retrieval.embed, retrieval.corpus):
        with pytest.raises(errors.BadRequestError, match=r"texts is a table .*: give one of its columns"):
            ask(lengths, table)
    with pytest.raises(errors.BadRequestError, match="documents is a table"):
        retrieval.rerank(lengths, "query", table)
    assert not lengths.requests


def test_a_cancelled_task_asks_for_no_more() -> None:
    held = Held()
    with LocalServer("no text", embedder=held) as server:

        async def main() -> None:
            async with AsyncClient(**connection(server)) as client:
                task = asyncio.ensure_future(client.embed(["a"] * 5_000, max_concurrency=2))
                assert await asyncio.to_thread(held.asked.wait, 30)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task

        asyncio.run(main())
        held.let_go.set()
        assert len(server.requests) <= 2


def test_documents_come_with_the_best_first(retrieval: RetrievalDriver, lengths: LocalServer) -> None:
    found = retrieval.rerank(lengths, "what swims?", ["birds fly", "fish swim", "boats float"], top_n=2)
    assert len(found.results) == 2
    assert found.results[0].score >= found.results[1].score
    body = lengths.requests[-1].body
    assert body["query"] == "what swims?"
    assert body["contexts"][1] == {"text": "fish swim"}
    assert body["top_k"] == 2


def test_no_documents_need_no_request(retrieval: RetrievalDriver, lengths: LocalServer) -> None:
    assert retrieval.rerank(lengths, "a", []).results == ()
    assert not lengths.requests


@pytest.mark.parametrize(
    ("query", "documents", "options", "message"),
    [
        ("", ["a"], {}, "query is empty"),
        (None, ["a"], {}, "query must be a string"),
        ("a", ["a", ""], {}, r"documents\[1\] is empty"),
        ("a", "abc", {}, "documents must be strings in a list or another iterable, not str"),
        ("a", ["b"], {"top_n": 0}, "top_n: "),
        ("a", ["b"], {"model": BASE}, "model: must be a reranker"),
        ("a", ["b"], {"top_k": 3}, "top_k is no option"),
    ],
)
def test_what_cant_be_ranked_is_told_before_it_is_sent(
    retrieval: RetrievalDriver, lengths: LocalServer, query: Any, documents: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(errors.BadRequestError, match=message):
        retrieval.rerank(lengths, query, documents, **options)
    assert not lengths.requests


def test_documents_that_are_not_read_to_their_end_are_told_of(
    retrieval: RetrievalDriver, lengths: LocalServer, caplog: pytest.LogCaptureFixture
) -> None:
    retrieval.rerank(lengths, "a", ["short", "word " * 600])
    assert "1 of the documents are longer (the first is documents[1])" in caplog.text


@pytest.mark.model
def test_the_local_model_knows_what_belongs_together(retrieval: RetrievalDriver, minilm: LocalServer) -> None:
    one, same, other = retrieval.embed(minilm, ["A boat on the sea.", "A ship sails.", "Tax law of 1992."]).vectors
    dot = [sum(a * b for a, b in zip(one, each, strict=True)) for each in (same, other)]
    assert dot[0] > dot[1] + 0.2
    best = retrieval.rerank(minilm, "What sails?", ["Tax law of 1992.", "A ship on the sea."]).results[0]
    assert best.index == 1
