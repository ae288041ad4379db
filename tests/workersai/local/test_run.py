"""Whole replies of ``/ai/run``: the envelope, the native result, and each refusal with its code."""

import re
import threading
from typing import Any

import httpx
import pytest

from tests.support import Serve
from tests.workersai.local.asking import (
    MESSAGES,
    MODEL,
    PATIENCE,
    PROMPT,
    VERIFY,
    bearer,
    error_of,
    post,
    result_of,
    run,
    run_url,
)
from workersai.local import Answer, CalledTool, Gate, LocalServer, RawReply, Refusal, ScriptedEngine
from workersai.local.engine import Usage

JSON_OBJECT = {"response_format": {"type": "json_object"}}


@pytest.mark.parametrize("body", [PROMPT, MESSAGES], ids=["prompt", "messages"])
def test_a_run_gives_the_native_result_in_an_envelope(serve: Serve, body: dict[str, Any]) -> None:
    response = run(serve("Hello world"), body)
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert response.json() == {
        "result": {
            "response": "Hello world",
            "tool_calls": [],
            "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7},
        },
        "success": True,
        "errors": [],
        "messages": [],
    }


def test_each_reply_has_a_ray_of_its_own(echo: LocalServer) -> None:
    rays = {run(echo, body).headers["cf-ray"] for body in (PROMPT, PROMPT, b"broken")}
    assert len(rays) == 3
    assert all(re.fullmatch(r"[0-9a-f]{16}-LOC", ray) for ray in rays)


def test_a_tool_call_has_its_arguments_as_an_object_and_stands_without_text(serve: Serve) -> None:
    answer = Answer("I look it up.", tool_calls=(CalledTool("get_weather", {"location": "Paris"}), CalledTool("f", {})))
    result = result_of(run(serve([answer]), MESSAGES))
    assert result["response"] is None
    assert result["tool_calls"] == [
        {"name": "get_weather", "arguments": {"location": "Paris"}},
        {"name": "f", "arguments": {}},
    ]


@pytest.mark.parametrize("value", [{"a": [1, "é"]}, [], "text", 5, True, None])
def test_in_json_mode_the_response_is_the_value_itself(serve: Serve, value: Any) -> None:
    assert result_of(run(serve([Answer(object=value)]), {**PROMPT, **JSON_OBJECT}))["response"] == value


@pytest.mark.parametrize("text", ["Sure! {}", '{"a": "cut of', "NaN", "", "[" * 5_000])
def test_json_mode_that_could_not_be_met_is_5024(serve: Serve, text: str) -> None:
    status, code, message = error_of(run(serve(text), {**MESSAGES, **JSON_OBJECT}))
    assert (status, code) == (400, 5024)
    assert message == "AiError: JSON Mode couldn't be met: the answer is not JSON."


def test_json_that_max_tokens_cut_off_is_5024_and_says_so(serve: Serve) -> None:
    server = serve(lambda _: Answer('{"a": "cut of', finish_reason="length"))
    status, code, message = error_of(run(server, {**MESSAGES, **JSON_OBJECT}))
    assert (status, code) == (400, 5024)
    assert "cut off at max_tokens" in message


def test_cached_tokens_are_told_where_the_request_names_a_session(serve: Serve) -> None:
    server = serve(lambda _: Answer("ok", usage=Usage(10, 2, cached_tokens=8)))
    assert "prompt_tokens_details" not in result_of(run(server, PROMPT))["usage"]
    told = result_of(run(server, PROMPT, x_session_affinity="ses_1"))["usage"]
    assert told["prompt_tokens_details"] == {"cached_tokens": 8}


@pytest.mark.parametrize(
    "authorization", [None, "Bearer wrong", "Bearer", "Basic local-token", "local-token", "Bearer \xe9"]
)
def test_without_the_token_the_answer_is_401(echo: LocalServer, authorization: str | None) -> None:
    headers = [] if authorization is None else [(b"authorization", authorization.encode("latin-1"))]
    response = httpx.post(run_url(echo), json=PROMPT, headers=headers, verify=VERIFY, timeout=PATIENCE)
    assert error_of(response) == (401, 10000, "Authentication error")


def test_another_account_is_403(echo: LocalServer) -> None:
    url = run_url(echo).replace(echo.account_id, "another-account")
    status, code, _ = error_of(post(echo, url, PROMPT))
    assert (status, code) == (403, 10000)


@pytest.mark.parametrize("model", ["@cf/meta/no-such-model", "llama", MODEL + "/", MODEL.upper()])
def test_an_unknown_model_is_5007(echo: LocalServer, model: str) -> None:
    assert error_of(post(echo, run_url(echo, model), PROMPT)) == (400, 5007, f"No such model {model} or task")


def test_a_model_name_may_be_percent_encoded(echo: LocalServer) -> None:
    assert result_of(post(echo, run_url(echo, MODEL.replace("@", "%40").replace("/", "%2F")), PROMPT))


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", f"/run/{MODEL}"),
        ("PUT", f"/run/{MODEL}"),
        ("OPTIONS", f"/run/{MODEL}"),
        ("POST", "/models/search"),
        ("GET", "/v1/chat/completions"),
        ("GET", "/v1/embeddings"),
        ("GET", "/models/search/"),
        ("GET", "/nowhere"),
    ],
)
def test_an_unknown_route_and_a_wrong_method_are_7003(echo: LocalServer, method: str, path: str) -> None:
    url = f"{echo.base_url}/accounts/{echo.account_id}/ai{path}"
    status, code, message = error_of(httpx.request(method, url, headers=bearer(echo), verify=VERIFY, timeout=PATIENCE))
    assert (status, code) == (404, 7003)
    assert message == f"Could not route to {method} /accounts/{echo.account_id}/ai{path}"


def test_the_window_holds_exactly_24_000_tokens(echo: LocalServer) -> None:
    # The script counts words, and 4 tokens for the message around them.
    words = "w " * (24_000 - 1_000 - 4)
    assert run(echo, {"prompt": words, "max_tokens": 1_000}).status_code == 200
    assert error_of(run(echo, {"prompt": words, "max_tokens": 1_001})) == (
        413,
        5021,
        (
            "AiError: The estimated number of input and maximum output tokens (24001) exceeded this model context "
            "window limit (24000)"
        ),
    )


def test_the_default_of_256_tokens_counts_for_the_window(echo: LocalServer) -> None:
    words = "w " * (24_000 - 256 - 4)
    assert run(echo, {"messages": [{"role": "user", "content": words}]}).status_code == 200
    assert error_of(run(echo, {"messages": [{"role": "user", "content": words + "w"}]}))[1] == 5021


def test_a_request_that_may_not_wait_is_refused_while_all_slots_are_taken() -> None:
    gate = Gate()
    engine = ScriptedEngine([Answer("first", hold={0: gate}), "second", "third"], slots=1)
    answers: list[str] = []
    with LocalServer(engine) as server:
        eager = {**PROMPT, "options": {"rejectIfBusy": True}}
        ask = lambda: answers.append(result_of(run(server, PROMPT))["response"])  # noqa: E731
        first, second = threading.Thread(target=ask), threading.Thread(target=ask)
        first.start()
        gate.wait_until_reached()
        second.start()
        status, code, message = error_of(run(server, eager))
        assert (status, code) == (429, 3040)
        assert "Capacity temporarily exceeded" in message
        gate.open()
        first.join()
        second.join()
        assert sorted(answers) == ["first", "second"]
        assert result_of(run(server, eager))["response"] == "third"


def test_a_lora_is_3039(echo: LocalServer) -> None:
    for body in (PROMPT, MESSAGES):
        status, code, message = error_of(run(echo, {**body, "lora": "my-finetune"}))
        assert (status, code) == (400, 3039)
        assert "my-finetune" in message


def test_a_scripted_refusal_is_sent_as_it_is(serve: Serve) -> None:
    assert error_of(run(serve([Refusal(3036, "no more neurons", 429)]), PROMPT)) == (429, 3036, "no more neurons")


def test_a_raw_reply_is_sent_byte_for_byte_whatever_was_asked_for(serve: Serve) -> None:
    page = RawReply([b"<html>", b"\xff</html>"], 502, "text/html", {"Retry-After": "7"})
    server = serve([page, page])
    for body in (PROMPT, {**PROMPT, "stream": True}):
        response = run(server, body)
        assert (response.status_code, response.content) == (502, b"<html>\xff</html>")
        assert (response.headers["content-type"], response.headers["retry-after"]) == ("text/html", "7")
        assert response.headers["cf-ray"]


def test_a_text_that_utf_8_can_not_hold_is_still_answered(serve: Serve) -> None:
    assert result_of(run(serve("half \ud83d a pair"), PROMPT))["response"] == "half ? a pair"
