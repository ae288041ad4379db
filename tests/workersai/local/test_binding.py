"""The route of a Worker's ``AI`` binding, asked as workerd asks; test_workerd.py has workerd itself ask."""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support import Serve
from tests.workersai.local.asking import (
    BINDING_HOST,
    MESSAGES,
    MODEL,
    PATIENCE,
    PROMPT,
    VERIFY,
    bound,
    events_of,
    origin_of,
    refusal_of,
    result_of,
    run,
)
from workersai.catalog import DEFAULT_EMBEDDING_MODEL, EMBEDDING_CATALOG
from workersai.local import Answer, CalledTool, Gate, LocalServer, Refusal
from workersai.local.minilm import Pooling
from workersai.local.scripted import Script, ScriptedEngine

ROOT = Path(__file__).parents[3]
STREAM = {**PROMPT, "stream": True}


@pytest.mark.parametrize("inputs", [PROMPT, MESSAGES], ids=["prompt", "messages"])
def test_a_run_gives_the_result_itself_and_needs_no_token(serve: Serve, inputs: dict[str, Any]) -> None:
    response = bound(serve("Hello world"), inputs)
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert response.json() == {
        "response": "Hello world",
        "tool_calls": [],
        "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7},
    }
    assert response.headers["cf-ray"]
    assert response.headers["cf-ai-req-id"]


def test_a_streamed_run_has_the_events_that_rest_has(serve: Serve) -> None:
    server = serve("It is sunny.")
    response = bound(server, STREAM)
    assert response.headers["content-type"] == "text/event-stream"
    events = [{**event, "p": ""} if isinstance(event, dict) else event for event in events_of(response.text)]
    rest = [{**event, "p": ""} if isinstance(event, dict) else event for event in events_of(run(server, STREAM).text)]
    assert events == rest
    assert events[-1] == "[DONE]"


def test_the_request_is_recorded_as_it_came(serve: Serve) -> None:
    server = serve("ok")
    bound(server, PROMPT, {"tag": "mine"}, x_session_affinity="s")
    (record,) = server.requests
    assert record.wait() == "complete"
    assert (record.method, record.path, record.query) == ("POST", "/run", {"version": "3"})
    assert record.body == {"inputs": PROMPT, "options": {"tag": "mine"}}
    assert record.headers["cf-consn-model-id"] == MODEL


def test_a_session_that_the_worker_names_tells_the_cached_tokens(echo: LocalServer) -> None:
    assert "prompt_tokens_details" in bound(echo, x_session_affinity="s").json()["usage"]
    assert "prompt_tokens_details" not in bound(echo).json()["usage"]


@pytest.mark.parametrize(
    ("inputs", "error"),
    [
        ({**PROMPT, "temperature": 6}, "AiError: 5006: Bad input: Error: '/temperature' must be <= 5"),
        ({}, "AiError: 5006: Bad input: Error: must have required property 'prompt' or 'messages'"),
        ({**PROMPT, "prompt": 5}, "AiError: 5006: Bad input: Error: '/prompt' must be string"),
        ({**PROMPT, "top": 1}, "AiError: 5006: Bad input: Error: '/top' is not a field of the prompt form"),
        ([], "AiError: 5006: Bad input: Error: '/inputs' must be object"),
    ],
)
def test_inputs_are_checked_as_over_rest(echo: LocalServer, inputs: Any, error: str) -> None:
    assert refusal_of(bound(echo, inputs)) == (400, error)
    if isinstance(inputs, dict):
        (told,) = run(echo, inputs).json()["errors"]
        assert error == f"AiError: {told['code']}: {told['message'].removeprefix('AiError: ')}"


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ([], "'/options' must be object"),
        ({"gateway": "g"}, "'/options/gateway' must be object with the string 'id'"),
        ({"gateway": {"id": 5}}, "'/options/gateway' must be object with the string 'id'"),
        ({"queueRequest": "true"}, "'/options/queueRequest' must be boolean"),
        ({"rejectIfBusy": 1}, "'/options' must be an object whose rejectIfBusy is boolean"),
    ],
)
def test_an_option_that_can_not_be_what_it_is_is_5006(echo: LocalServer, options: Any, problem: str) -> None:
    response = httpx.post(
        f"{origin_of(echo)}/run?version=3",
        json={"inputs": PROMPT, "options": options},
        headers={"host": BINDING_HOST, "cf-consn-model-id": MODEL},
        verify=VERIFY,
        timeout=PATIENCE,
    )
    assert refusal_of(response) == (400, f"AiError: 5006: Bad input: Error: {problem}")


def test_an_unknown_model_is_5007(echo: LocalServer) -> None:
    status, error = refusal_of(bound(echo, model="@cf/meta/nothing"))
    assert (status, error) == (400, "InferenceUpstreamError: 5007: No such model @cf/meta/nothing or task")


def test_no_model_is_3003_and_another_version_5019(echo: LocalServer) -> None:
    missing = (400, "AiError: 3003: Request is missing headers or body: cf-consn-model-id")
    assert refusal_of(bound(echo, model=None)) == missing
    deprecated = (405, "AiError: 5019: Request trying to use deprecated SDK version")
    assert refusal_of(bound(echo, path="/run?version=2")) == deprecated
    assert refusal_of(bound(echo, path="/run")) == deprecated


def test_a_body_that_is_no_json_is_5006(echo: LocalServer) -> None:
    headers = {"host": BINDING_HOST, "cf-consn-model-id": MODEL}
    response = httpx.post(
        f"{origin_of(echo)}/run?version=3", content=b"RIFF", headers=headers, verify=VERIFY, timeout=PATIENCE
    )
    assert refusal_of(response) == (400, "AiError: 5006: Bad input: Error: the body is not valid JSON")


def test_too_much_for_the_window_is_5021(serve: Serve) -> None:
    status, error = refusal_of(bound(serve("ok"), {**PROMPT, "max_tokens": 24_000}))
    assert status == 413
    assert error.startswith("AiError: 5021: The estimated number of input and maximum output tokens (24")


def test_an_engine_that_refuses_is_heard(serve: Serve) -> None:
    server = serve([Refusal(3040, "AiError: Capacity temporarily exceeded, please try again.", 429)])
    assert refusal_of(bound(server)) == (429, "AiError: 3040: Capacity temporarily exceeded, please try again.")


def test_a_stream_that_fails_on_the_way_says_so_in_an_event(serve: Serve) -> None:
    server = serve([Answer(pieces=["one"], failure=Refusal(3007, "AiError: Timeout", 408))])
    *_, last = events_of(bound(server, STREAM).text)
    assert last == {"errors": [{"code": 3007, "message": "AiError: Timeout"}], "success": False}


def test_a_worker_may_rather_be_refused_than_wait() -> None:
    gate = Gate()
    with LocalServer(ScriptedEngine([Answer("late", hold={0: gate})], slots=1)) as server:
        first: list[httpx.Response] = []
        asking = threading.Thread(target=lambda: first.append(bound(server)))
        asking.start()
        gate.wait_until_reached()
        refusal = bound(server, options={"rejectIfBusy": True})
        gate.open()
        asking.join()
    assert refusal_of(refusal) == (429, "AiError: 3040: Capacity temporarily exceeded, please try again.")
    assert first[0].json()["response"] == "late"


def test_a_batch_is_queued_and_asked_for(serve: Serve) -> None:
    server = serve(lambda request: f"{request.prompt}!")
    requests = {"requests": [{"prompt": "a", "external_reference": "A"}]}
    submitted = bound(server, requests, {"queueRequest": True}).json()
    assert submitted == {"status": "queued", "request_id": submitted["request_id"], "model": MODEL}
    while (polled := bound(server, {"request_id": submitted["request_id"]}).json()).get("status"):
        pass
    assert polled["responses"] == [{"id": 0, "result": {"response": "a!"}, "success": True, "external_reference": "A"}]


def test_a_batch_that_is_none_is_refused_as_over_rest(echo: LocalServer) -> None:
    refused = refusal_of(bound(echo, PROMPT, {"queueRequest": True}))
    assert refused == (400, "AiError: 5006: Bad input: Error: a batch has 'requests', and nothing else")
    unknown = refusal_of(bound(echo, {"request_id": "x"}))
    assert unknown == (400, "AiError: 5006: Bad input: Error: '/request_id' is of no batch that is known")


class Lengths:
    """A vector is the length of the text."""

    def embed(self, texts: Sequence[str], pooling: Pooling) -> list[list[float]]:
        return [[float(len(text))] for text in texts]


def test_tool_calls_and_json_come_as_over_rest(serve: Serve) -> None:
    server = serve([Answer(tool_calls=(CalledTool("get_weather", {"city": "Paris"}),)), Answer(object={"rain": False})])
    called = bound(server, MESSAGES).json()
    assert (called["response"], called["tool_calls"]) == (
        None,
        [{"name": "get_weather", "arguments": {"city": "Paris"}}],
    )
    structured = bound(server, {**PROMPT, "response_format": {"type": "json_object"}}).json()
    assert structured["response"] == {"rain": False}


def test_embeddings_come_without_an_envelope_too() -> None:
    with LocalServer("chat", embedder=Lengths()) as server:
        result = bound(server, {"text": ["a", "bcd"]}, model=DEFAULT_EMBEDDING_MODEL).json()
        refused = bound(server, {"text": []}, model=DEFAULT_EMBEDDING_MODEL)
    assert result["shape"] == [2, 768]
    assert [row[0] for row in result["data"]] == [1.0, 3.0]
    assert refusal_of(refused) == (400, "AiError: 5006: Bad input: Error: '/text' must NOT have fewer than 1 items")


def test_the_catalogue_is_there_for_the_binding(echo: LocalServer) -> None:
    response = httpx.get(
        f"{origin_of(echo)}/ai-api/models/search?search=70b",
        headers={"host": BINDING_HOST},
        verify=VERIFY,
        timeout=PATIENCE,
    )
    models: Any = result_of(response)
    assert [model["name"] for model in models] == [MODEL]


CACHED = {"gateway": {"id": "g", "cacheTtl": 60}}
GATEWAY = "/ai-gateway/run?version=3"


def answers_of(server: LocalServer, *options: dict[str, Any]) -> list[str]:
    return [bound(server, PROMPT, given, path=GATEWAY).json()["response"] for given in options]


def counted() -> Script:
    """Each answer is the number of those before it."""
    numbers = count()
    return lambda _: str(next(numbers))


def test_a_gateway_keeps_a_reply_as_long_as_the_worker_says(serve: Serve) -> None:
    server = serve(counted())
    skipping = {"gateway": {"id": "g", "cacheTtl": 60, "skipCache": True}}
    keyed = {"gateway": {"id": "g", "cacheKey": "k"}}
    assert answers_of(server, CACHED, CACHED, skipping, keyed, keyed, {"gateway": {"id": "g"}}) == list("001223")
    reply = bound(server, PROMPT, CACHED, path=GATEWAY)
    assert reply.headers["cf-aig-cache-status"] == "HIT"
    assert reply.headers["cf-aig-log-id"]


def test_a_gateway_keeps_models_apart() -> None:
    with LocalServer("chat", embedder=Lengths()) as server:
        results = [bound(server, {"text": "a"}, CACHED, path=GATEWAY, model=name).json() for name in EMBEDDING_CATALOG]
    assert [result["shape"][1] for result in results] == [card.dimensions for card in EMBEDDING_CATALOG.values()]


@pytest.mark.parametrize(
    ("fault", "refusal"),
    [
        ("3040", (429, "AiError: 3040: Capacity temporarily exceeded, please try again.")),
        ("10000", (401, "InferenceUpstreamError: 10000: Authentication error")),
    ],
)
def test_a_fault_is_told_as_the_binding_tells_it(fault: str, refusal: tuple[int, str]) -> None:
    with LocalServer("ok", faults=fault) as server:
        assert refusal_of(bound(server)) == refusal


def test_a_stream_may_fail_or_come_whole_on_demand() -> None:
    with LocalServer("It is sunny.", faults=["event:3040", "whole"]) as server:
        *_, event = events_of(bound(server, STREAM).text)
        whole = bound(server, STREAM)
    assert event["errors"] == [{"code": 3040, "message": "AiError: Capacity temporarily exceeded, please try again."}]
    assert whole.headers["content-type"] == "application/json"
    assert whole.json()["response"] == "It is sunny."


@pytest.mark.parametrize("name", ["src/index.ts", "workerd.capnp", "package.json"])
def test_the_guide_shows_the_files_of_the_example(name: str) -> None:
    guide = (ROOT / "docs" / "guides" / "worker-binding.md").read_text()
    (shown,) = re.findall(rf'^```\w+ title="{re.escape(name)}"\n(.*?)^```$', guide, re.MULTILINE | re.DOTALL)
    assert shown == (ROOT / "examples" / "worker" / name).read_text()
