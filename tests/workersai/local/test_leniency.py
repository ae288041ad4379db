"""What the service accepts beside its published schemas: by default the local server does, too, unless it is strict."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support import Lengths
from tests.workersai.local.asking import MESSAGES, PROMPT, bound, error_of, post, result_of, run, run_url
from workersai.catalog import DEFAULT_EMBEDDING_MODEL, DEFAULT_RERANKER
from workersai.local import LocalServer
from workersai.local.engine import GenerationRequest

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
# As the example in the README of workers-ai-provider makes it of a Zod schema.
PROVIDERS_TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Get the weather in a location",
        "parameters": {
            "type": "object",
            "properties": {"location": {"type": "string"}},
            "required": ["location"],
            "additionalProperties": False,
            "$schema": "http://json-schema.org/draft-07/schema#",
        },
    },
}


@pytest.fixture(scope="module")
def asked() -> list[GenerationRequest]:
    return []


@pytest.fixture(scope="module")
def lenient(asked: list[GenerationRequest]) -> Iterator[LocalServer]:
    def script(request: GenerationRequest) -> str:
        asked.append(request)
        return "{}" if request.json_schema else "ok"

    with LocalServer(script, embedder=Lengths(), strict=False) as server:
        yield server


def test_the_tests_of_the_project_run_against_strict_servers(echo: LocalServer) -> None:
    assert "'/stop' is not a field of the messages form" in error_of(run(echo, {**MESSAGES, "stop": None}))[2]


@pytest.mark.parametrize("form", [PROMPT, MESSAGES], ids=["prompt", "messages"])
@pytest.mark.parametrize(
    "fields",
    [
        {"stop": None},
        {"stop": ["x"], "n": 3, "user": "me", "parallel_tool_calls": True, "stream_options": {"include_usage": True}},
        {"tool_choice": None, "options": None},
        {"options": {"rejectIfBusy": False, "more": 1}},
    ],
    ids=json.dumps,
)
def test_fields_that_the_schema_does_not_list_are_ignored(
    lenient: LocalServer, form: dict[str, Any], fields: dict[str, Any]
) -> None:
    assert result_of(run(lenient, {**form, **fields}))["response"] == "ok"


def test_a_worker_may_send_them_too(lenient: LocalServer) -> None:
    assert bound(lenient, {**MESSAGES, "stop": None}).json()["response"] == "ok"


@pytest.mark.parametrize("name", ["temperature", "max_tokens", "stream", "tools", "response_format", "seed", "raw"])
def test_a_null_is_refused_where_the_schema_lists_the_field(lenient: LocalServer, name: str) -> None:
    status, code, message = error_of(run(lenient, {**MESSAGES, name: None}))
    assert (status, code) == (400, 5006)
    assert f"'/{name}' must be " in message


def test_the_content_of_a_message_may_not_be_null(lenient: LocalServer) -> None:
    body = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": None}]}
    assert "'/messages/1/content' must be string" in error_of(run(lenient, body))[2]


def test_values_of_listed_fields_are_checked_as_ever(lenient: LocalServer) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"temperature": 6}, "'/temperature' must be <= 5"),
        ({"max_tokens": "5"}, "'/max_tokens' must be integer"),
        ({"tool_choice": "any"}, "'/tool_choice' must be one of"),
        ({"response_format": {"type": "text"}}, "'/response_format/type'"),
        ({"options": {"rejectIfBusy": 1}}, "'/options'"),
    ]
    for fields, words in wrong:
        assert words in error_of(run(lenient, {**MESSAGES, **fields}))[2]


def test_tools_need_no_descriptions(lenient: LocalServer, asked: list[GenerationRequest]) -> None:
    bare = {"name": "f", "parameters": CITY}
    for tool in (PROVIDERS_TOOL, bare, {"type": "function", "function": bare}):
        assert run(lenient, {**MESSAGES, "tools": [tool], "tool_choice": "auto"}).status_code == 200
        assert asked[-1].tools == (tool,)
    for part in ("name", "parameters"):
        incomplete = {name: value for name, value in bare.items() if name != part}
        tool = {"type": "function", "function": incomplete}
        assert f"must have required property '{part}'" in error_of(run(lenient, {**MESSAGES, "tools": [tool]}))[2]


def test_a_property_may_be_named_description(lenient: LocalServer) -> None:
    parameters = {"type": "object", "properties": {"description": {"type": "string"}}, "required": ["description"]}
    assert run(lenient, {**MESSAGES, "tools": [{"name": "f", "parameters": parameters}]}).status_code == 200


def test_messages_may_have_more_fields_and_text_in_parts(lenient: LocalServer, asked: list[GenerationRequest]) -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    messages = [
        {"role": "user", "content": parts, "id": "1", "name": None, "tool_calls": None, "tool_call_id": None},
        {"role": "assistant", "content": "c", "reasoning": "because"},
    ]
    assert run(lenient, {"messages": messages}).status_code == 200
    assert [(message.role, message.content) for message in asked[-1].messages] == [("user", "ab"), ("assistant", "c")]
    picture = [{"type": "image_url", "image_url": {"url": "data:,"}}]
    for content in (picture, [*parts, *picture], []):
        refused = run(lenient, {"messages": [{"role": "user", "content": content}]})
        assert "'/messages/0/content' must be string" in error_of(refused)[2]


def test_items_of_a_batch_may_have_more_fields_or_messages(
    lenient: LocalServer, asked: list[GenerationRequest]
) -> None:
    items = [{**PROMPT, "stop": None, "external_reference": "a"}, {**MESSAGES, "n": 1, "external_reference": "b"}]
    submitted = post(lenient, run_url(lenient) + "?queueRequest=true", {"requests": items, "more": 1})
    body = {"request_id": result_of(submitted)["request_id"]}
    while "responses" not in (result := result_of(run(lenient, body))):
        pass
    assert {entry["external_reference"]: entry["result"]["response"] for entry in result["responses"]} == {
        "a": "ok",
        "b": "ok",
    }
    for item, words in [
        ({"n": 1}, "'/requests/0' must have required property 'prompt'"),
        ({**MESSAGES, "stream": True}, "'/requests/0/stream' must be false"),
    ]:
        refused = post(lenient, run_url(lenient) + "?queueRequest=true", {"requests": [item]})
        assert words in error_of(refused)[2]


def test_the_models_for_texts_ignore_more_fields_too(lenient: LocalServer) -> None:
    texts = {"text": ["one", "three"], "truncate": True, "stop": None, "options": {"more": 1}}
    url = run_url(lenient, DEFAULT_EMBEDDING_MODEL)
    assert [row[0] for row in result_of(post(lenient, url, texts))["data"]] == [3.0, 5.0]
    assert result_of(post(lenient, run_url(lenient, "@cf/baai/bge-m3"), texts))["shape"] == [2, 1_024]
    ranked = {"query": "a", "contexts": [{"text": "b", "id": 1}], "model": "x"}
    assert result_of(post(lenient, run_url(lenient, DEFAULT_RERANKER), ranked))["response"]
    assert "'/text' must" in error_of(post(lenient, url, {"text": None}))[2]
    batch = {"requests": [{"text": "a", "more": 1}], "more": 1}
    assert result_of(post(lenient, url + "?queueRequest=true", batch))["status"] == "queued"
