"""The OpenAI-compatible twin, and the catalogue of models."""

import json
from typing import Any

import httpx
import pytest

from tests.support import Serve
from tests.workersai.local.asking import MESSAGES, MODEL, PATIENCE, VERIFY, bearer, chat, events_of, post, twin_url
from workersai.catalog import CATALOG, EMBEDDING_CATALOG, RERANKER_CATALOG
from workersai.local import Answer, CalledTool, LocalServer, Refusal
from workersai.local.engine import GenerationRequest, Usage

STREAM = {**MESSAGES, "stream": True}
CALL = CalledTool("get_weather", {"location": "Zürich"})


def choice_of(response: httpx.Response) -> dict[str, Any]:
    assert response.status_code == 200, response.text
    (choice,) = response.json()["choices"]
    assert choice["index"] == 0
    return dict(choice)


def deltas_of(response: httpx.Response) -> list[dict[str, Any]]:
    *chunks, done = events_of(response.text)
    assert done == "[DONE]"
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({(chunk["id"], chunk["created"], chunk["model"]) for chunk in chunks}) == 1
    return [choice for chunk in chunks for choice in chunk["choices"]]


def error_of(response: httpx.Response) -> tuple[int, int, str]:
    body = response.json()
    assert body.keys() == {"error"}
    return response.status_code, body["error"]["code"], body["error"]["message"]


def test_a_whole_answer_is_a_chat_completion(serve: Serve) -> None:
    response = chat(serve("Hello world"), MESSAGES)
    body = response.json()
    assert choice_of(response) == {
        "index": 0,
        "message": {"role": "assistant", "content": "Hello world"},
        "finish_reason": "stop",
    }
    assert (body["object"], body["model"]) == ("chat.completion", MODEL)
    assert body["usage"] == {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
    assert body["id"].startswith("chatcmpl-")
    assert response.headers["cf-ray"]


def test_a_call_has_an_id_and_its_arguments_as_text(serve: Serve) -> None:
    server = serve(lambda _: Answer(tool_calls=(CALL, CALL)))
    choice = choice_of(chat(server, MESSAGES))
    assert (choice["finish_reason"], choice["message"]["content"]) == ("tool_calls", None)
    first, second = choice["message"]["tool_calls"]
    assert first["id"] != second["id"]
    assert (first["type"], first["function"]["name"]) == ("function", "get_weather")
    assert json.loads(first["function"]["arguments"]) == {"location": "Zürich"}


def test_a_stream_is_role_text_finish_reason_and_done(serve: Serve) -> None:
    response = chat(serve([Answer(pieces=["Hé", "llo"], finish_reason="length")]), STREAM)
    assert response.headers["content-type"] == "text/event-stream"
    assert deltas_of(response) == [
        {"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None},
        {"index": 0, "delta": {"content": "Hé"}, "finish_reason": None},
        {"index": 0, "delta": {"content": "llo"}, "finish_reason": None},
        {"index": 0, "delta": {}, "finish_reason": "length"},
    ]
    assert "usage" not in response.text


def test_streamed_calls_are_counted(serve: Serve) -> None:
    deltas = deltas_of(chat(serve([Answer(tool_calls=(CALL, CALL))]), STREAM))
    calls = [call for choice in deltas for call in choice["delta"].get("tool_calls", [])]
    assert [(call["index"], call["function"]["name"]) for call in calls] == [(0, "get_weather"), (1, "get_weather")]
    assert deltas[-1]["finish_reason"] == "tool_calls"


def test_the_usage_is_an_event_without_choices_where_it_is_asked_for(serve: Serve) -> None:
    server = serve(lambda _: Answer("ok", usage=Usage(10, 2, cached_tokens=8)))
    body = {**STREAM, "stream_options": {"include_usage": True}}
    *_, last, done = events_of(chat(server, body, x_session_affinity="ses_1").text)
    assert (last["choices"], done) == ([], "[DONE]")
    assert last["usage"] == {
        "prompt_tokens": 10,
        "completion_tokens": 2,
        "total_tokens": 12,
        "prompt_tokens_details": {"cached_tokens": 8},
    }


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("stop", ["THREE", ["never", "THREE"], ["", "THREE"]])
def test_the_text_ends_before_a_stop_string(serve: Serve, stop: Any, streamed: bool) -> None:
    server = serve([Answer(pieces=["one ", "two TH", "R", "EE four"])])
    response = chat(server, {**MESSAGES, "stop": stop, "stream": streamed})
    if streamed:
        text = "".join(choice["delta"].get("content", "") for choice in deltas_of(response))
    else:
        text = choice_of(response)["message"]["content"]
    assert text == "one two "


@pytest.mark.parametrize("stop", [7, {}, ["a", 1], ["a"] * 5])
def test_a_stop_of_another_shape_is_refused(echo: LocalServer, stop: Any) -> None:
    status, code, message = error_of(chat(echo, {**MESSAGES, "stop": stop}))
    assert (status, code) == (400, 5006)
    assert "'/stop' must be a string, or at most 4" in message


def test_what_openai_names_otherwise_is_understood(serve: Serve) -> None:
    asked: list[GenerationRequest] = []
    server = serve(lambda request: "ok" if asked.append(request) is None else "")  # type: ignore[func-returns-value]
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    body = {
        "messages": [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": parts}],
        "max_completion_tokens": 7,
        "temperature": None,
        "user": "someone",
        "parallel_tool_calls": True,
        "tools": [{"type": "function", "function": {"name": "f"}}],
        "tool_choice": "required",
    }
    assert choice_of(chat(server, body))["message"]["content"] == "ok"
    assert [(message.role, message.content) for message in asked[0].messages] == [
        ("system", "Be brief."),
        ("user", "ab"),
    ]
    assert (asked[0].max_tokens, asked[0].sampling.temperature, asked[0].tool_choice) == (7, None, "required")
    assert asked[0].tools == ({"type": "function", "function": {"name": "f"}},)


def test_an_assistants_message_of_calls_may_lack_its_content(echo: LocalServer) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages = [{"role": "assistant", "content": None, "tool_calls": [call]}, {"role": "user", "content": "so?"}]
    assert choice_of(chat(echo, {"messages": messages}))["message"]["content"] == "so?"


def test_in_json_mode_a_call_may_come_in_place_of_the_object(serve: Serve) -> None:
    server = serve([Answer(tool_calls=(CALL,))])
    choice = choice_of(chat(server, {**MESSAGES, "response_format": {"type": "json_object"}}))
    assert (choice["finish_reason"], choice["message"]["content"]) == ("tool_calls", None)
    assert [call["function"]["name"] for call in choice["message"]["tool_calls"]] == ["get_weather"]


def test_openais_envelope_around_a_schema_is_taken_off(serve: Serve) -> None:
    asked: list[GenerationRequest] = []
    server = serve(lambda request: '{"a": 1}' if asked.append(request) is None else "")  # type: ignore[func-returns-value]
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    for json_schema in ({"name": "n", "strict": True, "schema": schema}, schema):
        response_format = {"type": "json_schema", "json_schema": json_schema}
        content = choice_of(chat(server, {**MESSAGES, "response_format": response_format}))["message"]["content"]
        assert content == '{"a": 1}'
    assert [request.json_schema for request in asked] == [schema, schema]


@pytest.mark.parametrize(
    ("fields", "code", "words"),
    [
        ({"model": "@cf/no/model"}, 5007, "No such model"),
        ({"model": None}, 5007, "No such model"),
        ({"messages": []}, 5006, "'/messages' must NOT have fewer than 1 items"),
        ({"messages": "hi"}, 5006, "'/messages' must be array"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 5006, "reads text only"),
        ({"messages": [{"role": "user", "content": 7}]}, 5006, "'/messages/0/content' must be string"),
        ({"messages": [{"content": "hi"}]}, 5006, "'/messages/0/role' must be string"),
        ({"temperature": 6}, 5006, "'/temperature' must be <= 5"),
        ({"n": 2}, 5006, "'/n' must be 1"),
        ({"tools": {}}, 5006, "'/tools' must be array of objects"),
        ({"tools": [{"type": "function"}]}, 5006, "'/tools/0/function/name' must be string"),
        (
            {"tools": [{"function": {"name": "f", "parameters": []}}]},
            5006,
            "'/tools/0/function/parameters' must be obj",
        ),
        ({"tool_choice": "any"}, 5006, "'/tool_choice' must be one of"),
        ({"tool_choice": "required"}, 5006, "'/tools' must NOT have fewer than 1 items"),
        ({"tool_choice": {"function": {"name": "f"}}}, 5006, "must be equal to the name of one of the tools"),
        ({"response_format": "json_object"}, 5006, "'/response_format' must be object"),
        ({"response_format": []}, 5006, "'/response_format' must be object"),
        ({"response_format": {"type": "json_object"}, "stream": True}, 5006, "JSON Mode does not stream"),
        ({"response_format": {"type": "json_object"}}, 5024, "JSON Mode couldn't be met"),
        ({"max_tokens": 24_000}, 5021, "exceeded this model context window limit"),
    ],
)
def test_a_refusal_has_openais_shape_and_the_services_code(
    echo: LocalServer, fields: dict[str, Any], code: int, words: str
) -> None:
    status, told, message = error_of(chat(echo, {**MESSAGES, **fields}))
    assert (status, told) == (413 if code == 5021 else 400, code)
    assert words in message


def test_a_wrong_token_is_told_in_openais_shape(echo: LocalServer) -> None:
    assert error_of(post(echo, twin_url(echo), MESSAGES, authorization="Bearer no"))[:2] == (401, 10000)


def test_a_failure_in_mid_stream_is_an_event_in_openais_shape(serve: Serve) -> None:
    server = serve([Answer(pieces=["Hel"], failure=Refusal(3040, "busy", 429))])
    assert events_of(chat(server, STREAM).text)[-1] == {"error": {"message": "busy", "code": 3040}}


def models_found(server: LocalServer, query: str) -> httpx.Response:
    url = f"{server.base_url}/accounts/{server.account_id}/ai/models/search{query}"
    return httpx.get(url, headers=bearer(server), verify=VERIFY, timeout=PATIENCE)


@pytest.mark.parametrize("query", ["?search=LLAMA-3.3", "?task=Text%20Generation", "?search=llama&page=1"])
def test_the_catalogue_lists_the_model(echo: LocalServer, query: str) -> None:
    body = models_found(echo, query).json()
    (model,) = body["result"]
    assert (model["name"], model["task"]["name"]) == (MODEL, "Text Generation")
    properties = {entry["property_id"]: entry["value"] for entry in model["properties"]}
    assert (properties["context_window"], properties["function_calling"]) == ("24000", "true")
    assert (body["success"], body["result_info"]["total_count"]) == (True, 1)


@pytest.mark.parametrize(
    "query", ["?search=gpt", "?task=Text%20Generation&search=bge", "?page=2", "?page=999999999&per_page=1"]
)
def test_a_search_that_fits_nothing_is_an_empty_list(echo: LocalServer, query: str) -> None:
    assert models_found(echo, query).json()["result"] == []


@pytest.mark.parametrize("value", ["0", "-1", "x", "", "1.5", "%C2%B2", "1" * 5_000])
@pytest.mark.parametrize("name", ["page", "per_page"])
def test_a_page_that_is_no_number_from_1_is_refused(echo: LocalServer, name: str, value: str) -> None:
    response = models_found(echo, f"?{name}={value}")
    assert response.status_code == 400
    assert f"'/{name}' must be >= 1" in response.json()["errors"][0]["message"]


def test_the_catalogue_is_not_open_to_strangers(echo: LocalServer) -> None:
    url = f"{echo.base_url}/accounts/{echo.account_id}/ai/models/search"
    assert httpx.get(url, verify=VERIFY, timeout=PATIENCE).status_code == 401
    assert httpx.head(url, headers=bearer(echo), verify=VERIFY, timeout=PATIENCE).status_code == 200


def test_openais_clients_can_list_the_models(echo: LocalServer) -> None:
    url = f"{echo.base_url}/accounts/{echo.account_id}/ai/v1/models"
    body = httpx.get(url, headers=bearer(echo), verify=VERIFY, timeout=PATIENCE).json()
    assert (body.keys(), body["object"]) == ({"object", "data"}, "list")
    assert {entry["id"] for entry in body["data"]} == {*CATALOG, *EMBEDDING_CATALOG, *RERANKER_CATALOG}
    (model,) = [entry for entry in body["data"] if entry["id"] == MODEL]
    assert model == {"id": MODEL, "object": "model", "created": 0, "owned_by": "meta"}
    refused = httpx.get(url, verify=VERIFY, timeout=PATIENCE)
    assert (refused.status_code, refused.json()["error"]["code"]) == (401, 10000)
