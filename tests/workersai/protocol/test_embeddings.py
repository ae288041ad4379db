"""Every shape in which vectors and scores come, and what is none."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workersai.errors import RateLimitError, ServerError, WorkersAIError
from workersai.protocol.embeddings import Embeddings, embeddings_of, reranking_from_body
from workersai.protocol.reply import ReplyHead, result_of

HEAD = ReplyHead(status=200, headers={"cf-ray": "8c5-LOC"})
MODEL = "@cf/baai/bge-base-en-v1.5"


def read(result: Any, *, texts: int = 2, dimensions: int | None = 3) -> Embeddings:
    body = json.dumps({"result": result, "success": True, "errors": [], "messages": []}).encode()
    return embeddings_of(result_of(body, HEAD), HEAD, MODEL, texts=texts, dimensions=dimensions)


VECTORS = [[0.5, -1.0, 0.25], [1, 0, 0]]


def at(index: Any) -> dict[str, Any]:
    """A vector of OpenAI's shape, with the place that it names."""
    return {"object": "embedding", "embedding": VECTORS[0], "index": index}


@pytest.mark.parametrize(
    "result",
    [
        {"shape": [2, 3], "data": VECTORS, "pooling": "cls"},
        {"response": VECTORS, "shape": [2, 3]},
        {"data": [{"embedding": VECTORS[1], "index": 1}, {"embedding": VECTORS[0], "index": 0}]},
        {"data": [{"embedding": VECTORS[0]}, {"embedding": VECTORS[1]}]},
    ],
    ids=["native", "bge-m3", "openai", "openai without places"],
)
def test_vectors_are_read_in_every_shape(result: dict[str, Any]) -> None:
    embeddings = read(result)
    assert list(embeddings.vectors) == VECTORS
    assert embeddings.pooling == result.get("pooling")
    assert embeddings.request_id == "8c5-LOC"
    assert embeddings.usage is None


def test_the_usage_is_kept_where_the_service_tells_it() -> None:
    usage = read({"data": VECTORS, "usage": {"prompt_tokens": 7, "total_tokens": 7}}).usage
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens) == (7, 0)
    assert usage.cost_usd == pytest.approx(7 * 0.067 / 1e6)


META_TWO = {"cost_metric_name_2": "input_tokens", "cost_metric_value_2": 6}
M3_META = {"cost_metric_name_1": "input_tokens", "cost_metric_value_1": 20, "neurons": 0.0215}


@pytest.mark.parametrize(
    ("counts", "tokens", "neurons"),
    [
        ({"response": None, "meta": M3_META}, 20, 0.0215),
        ({"usage": {"prompt_tokens": 0, "total_tokens": 0}, "meta": M3_META}, 20, 0.0215),
        ({"usage": {"prompt_tokens": 7}, "meta": M3_META}, 7, 0.0215),
        ({"usage": {"prompt_tokens": 7}, "meta": {"neurons": "many"}}, 7, None),
        ({"meta": {"cost_metric_value_1": 5}}, 5, None),
        ({"meta": {"cost_metric_name_1": "pixels", "cost_metric_value_1": 9, **META_TWO}}, 6, None),
        ({"meta": {"cost_metric_name_1": "pixels", "cost_metric_value_1": 9}}, None, None),
        ({"meta": {**M3_META, "cost_metric_value_1": -1}}, None, None),
        ({"meta": {**M3_META, "cost_metric_value_1": "20"}}, None, None),
        ({"meta": [20]}, None, None),
        ({"meta": {}}, None, None),
        ({"usage": {"prompt_tokens": 0}}, None, None),
    ],
)
def test_the_tokens_of_bge_m3_are_read_from_its_meta(
    counts: dict[str, Any], tokens: int | None, neurons: float | None
) -> None:
    usage = read({"data": VECTORS, **counts}).usage
    assert (usage.prompt_tokens if usage else None, usage.neurons if usage else None) == (tokens, neurons)


def test_the_neurons_may_stand_in_a_header() -> None:
    head = ReplyHead(200, {"cf-ai-neurons": "0.5"})
    result = {"data": VECTORS, "usage": {"prompt_tokens": 7}}
    usage = embeddings_of(result, head, MODEL, texts=2, dimensions=3).usage
    assert usage is not None
    assert usage.neurons == 0.5


def test_a_reply_from_a_gateways_cache_has_tokens_and_no_neurons() -> None:
    head = ReplyHead(200, {"cf-aig-cache-status": "HIT"})
    usage = embeddings_of({"data": VECTORS, "meta": M3_META}, head, MODEL, texts=2, dimensions=3).usage
    assert usage is not None
    assert (usage.prompt_tokens, usage.cost_usd, usage.neurons) == (20, 0, None)


@pytest.mark.parametrize(
    ("result", "told"),
    [
        ({"data": None}, "no list of vectors"),
        ({"shape": [2, 3]}, "no list of vectors"),
        ({"data": VECTORS[:1]}, "1 vectors for 2 texts"),
        ({"data": [*VECTORS, VECTORS[0]]}, "3 vectors for 2 texts"),
        ({"data": [VECTORS[0], [1.0, 2.0]]}, "2 numbers for text 1, where 3 are due"),
        ({"data": [VECTORS[0], [1.0, None, 2.0]]}, "for text 1, no list of finite numbers"),
        ({"data": [VECTORS[0], "abc"]}, "for text 1, no list of finite numbers"),
        ({"data": [VECTORS[0], [1.0, True, 2.0]]}, "for text 1, no list of finite numbers"),
        ({"data": [VECTORS[0], []]}, "for text 1, no list of finite numbers"),
        ({"data": [VECTORS[0], [1.0, 10**400, 2.0]]}, "for text 1, no list of finite numbers"),
        ({"data": [at(0), at(0)]}, "has the index 0 for two vectors"),
        ({"data": [at(0), at(2)]}, "has the index 2 for vector 1, where a whole number from 0 to 1 was expected"),
        ({"data": [at(0), at(-1)]}, "has the index -1 for vector 1"),
        ({"data": [at("1"), at("0")]}, "has the index '1' for vector 0"),
        ({"data": [at(1.0), at(0.0)]}, "has the index 1.0 for vector 0"),
        ({"data": [at(index=True), at(index=False)]}, "has the index True for vector 0"),
        ({"data": [at(1), {"embedding": VECTORS[0]}]}, "has no index for vector 1, but one for others"),
        ({"data": [at(None), at(0)]}, "has no index for vector 0, but one for others"),
    ],
)
def test_a_reply_without_a_vector_for_each_text_is_an_error(result: dict[str, Any], told: str) -> None:
    with pytest.raises(ServerError, match=told) as caught:
        read(result)
    assert caught.value.request_id == "8c5-LOC"


@given(st.lists(st.integers(-2, 5) | st.none() | st.sampled_from(["0", 1.0, True, 10**30]), min_size=1, max_size=5))
def test_vectors_come_in_the_order_of_their_places_or_not_at_all(places: list[Any]) -> None:
    data = [{"embedding": [float(number)], "index": place} for number, place in enumerate(places)]
    are_right = all(type(place) is int for place in places) and sorted(places) == list(range(len(places)))
    are_absent = all(place is None for place in places)
    if not (are_right or are_absent):
        with pytest.raises(ServerError, match="index"):
            read({"data": data}, texts=len(places), dimensions=1)
        return
    vectors = read({"data": data}, texts=len(places), dimensions=1).vectors
    assert [int(vector[0]) for vector in vectors] == [
        places.index(place) if are_right else place for place in range(len(places))
    ]


def test_a_vector_that_is_not_finite_is_an_error() -> None:
    with pytest.raises(ServerError, match="finite"):
        embeddings_of({"data": [[1.0, float("nan")]]}, HEAD, MODEL, texts=1, dimensions=2)


def test_vectors_of_an_unlisted_model_must_be_of_one_length() -> None:
    assert len(read({"data": [[1.0] * 5, [2.0] * 5]}, dimensions=None).vectors) == 2
    with pytest.raises(ServerError, match="4 numbers for text 1, where 5"):
        read({"data": [[1.0] * 5, [2.0] * 4]}, dimensions=None)


def scores(result: Any, documents: int = 3) -> list[tuple[int, float]]:
    body = json.dumps({"result": result, "success": True, "errors": [], "messages": []}).encode()
    return [(each.index, each.score) for each in reranking_from_body(body, HEAD, MODEL, documents=documents).results]


def test_scores_come_with_the_best_document_first() -> None:
    assert scores({"response": [{"id": 1, "score": 0.1}, {"id": 0, "score": 0.9}]}) == [(0, 0.9), (1, 0.1)]


@pytest.mark.parametrize(
    ("response", "told"),
    [
        (None, "no list of scores"),
        ([{"id": 3, "score": 0.5}], "a document that was not sent"),
        ([{"id": "0", "score": 0.5}], "a document that was not sent"),
        ([{"id": 0, "score": None}], "no score for document 0"),
        ([{"id": 0, "score": 10**400}], "no score for document 0"),
        ([{"id": 0, "score": 0.5}, {"id": 0, "score": 0.4}], "a document twice"),
        (["x"], "a document that was not sent"),
    ],
)
def test_a_reply_without_scores_is_an_error(response: Any, told: str) -> None:
    with pytest.raises(ServerError, match=told):
        scores({"response": response})


def test_a_failure_in_the_envelope_is_told_as_one() -> None:
    body = b'{"result":{},"success":false,"errors":[{"code":3040,"message":"busy"}]}'
    with pytest.raises(RateLimitError, match="busy"):
        reranking_from_body(body, HEAD, MODEL, documents=1)


def test_no_more_scores_are_given_than_were_asked_for() -> None:
    body = json.dumps({"result": {"response": [{"id": place, "score": 0.1 * place} for place in range(5)]}}).encode()
    found = reranking_from_body(body, HEAD, MODEL, documents=5, most=2)
    assert [each.index for each in found.results] == [4, 3]


HUGE = st.integers(10**309, 10**310)
JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | HUGE | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)
FIELDS = st.sampled_from(["data", "response", "usage", "pooling", "shape"])


@given(st.dictionaries(FIELDS, JSON), st.integers(1, 3))
def test_nothing_but_our_own_errors_comes_of_any_reply(result: dict[str, Any], texts: int) -> None:
    with contextlib.suppress(WorkersAIError):
        found = embeddings_of(result, HEAD, MODEL, texts=texts, dimensions=None)
        assert len(found.vectors) == texts
    with contextlib.suppress(WorkersAIError):
        scored = reranking_from_body(json.dumps({"result": result}).encode(), HEAD, MODEL, documents=texts)
        assert {each.index for each in scored.results} <= set(range(texts))
