"""The Async Batch API of the local server, as wire.md#batch has it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support import Serve
from tests.workersai.local.asking import error_of, post, run_url
from workersai.local import LocalServer
from workersai.local.engine import GenerationRequest, RawReply
from workersai.local.scripted import Answer, Gate, Refusal, ScriptedAnswer

QUEUED = "?queueRequest=true"


def submit(server: LocalServer, *items: dict[str, Any]) -> str:
    result = post(server, run_url(server) + QUEUED, {"requests": list(items)}).json()["result"]
    assert result["status"] == "queued"
    return str(result["request_id"])


def poll(server: LocalServer, request_id: str) -> dict[str, Any]:
    result: dict[str, Any] = post(server, run_url(server) + QUEUED, {"request_id": request_id}).json()["result"]
    return result


def done(server: LocalServer, request_id: str) -> dict[str, Any]:
    """The answers; each poll is a round over the socket, in which the server goes on with the batch."""
    for _ in range(10_000):
        result = poll(server, request_id)
        if "responses" in result:
            return result
    raise AssertionError(result)


def test_a_batch_is_queued_then_running_then_done(serve: Serve) -> None:
    gate = Gate()
    server = serve(lambda request: Answer(str(request.prompt), hold={0: gate}))
    request_id = submit(server, {"prompt": "a b", "external_reference": "first"})
    gate.wait_until_reached()
    assert poll(server, request_id)["status"] == "running"
    gate.open()
    assert done(server, request_id) == {
        "responses": [{"id": 0, "result": {"response": "a b"}, "success": True, "external_reference": "first"}],
        "usage": {"prompt_tokens": 6, "completion_tokens": 2, "total_tokens": 8},
    }


def test_a_delayed_batch_stays_queued() -> None:
    with LocalServer("never", batch_delay=1000) as server:
        request_id = submit(server, {"prompt": "a"})
        assert poll(server, request_id)["status"] == "queued"


def test_answers_come_in_no_order_and_are_kept(serve: Serve) -> None:
    server = serve(lambda request: str(request.prompt))
    request_id = submit(server, *({"prompt": f"p{number}"} for number in range(50)))
    responses = done(server, request_id)["responses"]
    ids = [response["id"] for response in responses]
    assert ids != sorted(ids)
    assert sorted(ids) == list(range(50))
    assert all(response["result"]["response"] == f"p{response['id']}" for response in responses)
    assert poll(server, request_id)["responses"] == responses


def test_one_item_fails_and_the_others_do_not(serve: Serve) -> None:
    def script(request: GenerationRequest) -> ScriptedAnswer:
        answers: dict[str, ScriptedAnswer] = {"refused": Refusal(3040, "no capacity", 429), "raw": RawReply(b"x")}
        return answers.get(str(request.prompt), "fine")

    items = [{"prompt": "refused"}, {"prompt": "raw"}, {"prompt": "x " * 30_000}, {"prompt": "good"}]
    server = serve(script)
    by_id = {response["id"]: response for response in done(server, submit(server, *items))["responses"]}
    codes = [by_id[index]["errors"][0]["code"] for index in range(3)]
    assert codes == [3040, 5000, 5021]
    assert [by_id[index]["success"] for index in range(4)] == [False, False, False, True]


@pytest.mark.parametrize(("fault", "failed", "lost"), [("item:3007@0.5", True, False), ("item:lost@0.5", False, True)])
def test_items_fail_on_request(fault: str, failed: bool, lost: bool) -> None:
    with LocalServer("fine", faults=fault) as server:
        request_id = submit(server, *({"prompt": "x"} for _ in range(40)))
        responses = done(server, request_id)["responses"]
        assert any(not response["success"] for response in responses) == failed
        assert (len(responses) < 40) == lost


def test_json_mode_answers_with_the_object(serve: Serve) -> None:
    server = serve(lambda _: Answer(object={"a": 1}))
    item = {"prompt": "x", "response_format": {"type": "json_object"}}
    assert done(server, submit(server, item))["responses"][0]["result"] == {"response": {"a": 1}}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"requests": []}, "fewer than 1 items"),
        ({"prompt": "hi"}, "a batch has 'requests'"),
        ({"requests": [{"prompt": ""}]}, "'/requests/0/prompt' must NOT have fewer"),
        ({"requests": [{"prompt": "a"}, {}]}, "'/requests/1' must have required property 'prompt'"),
        ({"requests": [{"messages": []}]}, "required property 'prompt'"),
        ({"requests": [{"prompt": "a", "top_k": 3}]}, "'/requests/0/top_k' is not a field"),
        ({"requests": [{"prompt": "a", "frequency_penalty": -1}]}, "'/requests/0/frequency_penalty' must be >= 0"),
        ({"requests": [{"prompt": "a", "stream": True}]}, "does not stream"),
        ({"requests": [{"prompt": "a", "max_tokens": 0}]}, "'/requests/0/max_tokens' must be >= 1"),
        ({"request_id": "768f"}, "'/request_id' is of no batch"),
        ({"request_id": 5}, "'/request_id' is of no batch"),
    ],
)
def test_a_batch_that_the_service_would_not_take_is_refused(serve: Serve, body: dict[str, Any], words: str) -> None:
    server = serve("never")
    status, code, message = error_of(post(server, run_url(server) + QUEUED, body))
    assert (status, code) == (400, 5006)
    assert words in message


def test_a_batch_without_the_query_is_refused(serve: Serve) -> None:
    server = serve("never")
    _, code, message = error_of(post(server, run_url(server), {"requests": [{"prompt": "hi"}]}))
    assert code == 5006
    assert "queueRequest=true" in message


def test_closing_the_server_ends_its_batches() -> None:
    gate = Gate()
    with LocalServer(lambda _: Answer("late", hold={0: gate})) as server:
        submit(server, {"prompt": "a"})
        gate.wait_until_reached()
