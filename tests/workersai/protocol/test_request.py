"""What is sent, checked against the published schema; and what is refused before anything is sent."""

import json
import math
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from tests.support import request_of
from workersai import Message, Settings, ToolCall
from workersai.errors import BadRequestError
from workersai.options import CallOptions, Options, call_options
from workersai.protocol.request import Input

MODEL = "@cf/meta/llama-3.3-70b-instruct-fp8-fast"
SETTINGS = Settings(account_id="acc", api_token="secret-token", base_url="https://api.example.com/client/v4/")
SCHEMA = json.loads(files("workersai.local").joinpath("llama-3.3-70b-instruct-fp8-fast.schema.json").read_text())
FORMS = {form["title"]: form for form in SCHEMA["input"]["oneOf"]}
VALIDATORS = {title: jsonschema.Draft202012Validator(form) for title, form in FORMS.items()}


def body(model_input: Input, options: Mapping[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    request = request_of(SETTINGS, model_input, call_options(options or {}), **more)
    sent: dict[str, Any] = json.loads(request.content)
    VALIDATORS["Prompt" if "prompt" in sent else "Messages"].validate(sent)
    return sent


def test_a_text_is_the_message_of_a_user_or_a_prompt_on_request() -> None:
    for options in ({}, {"prompt_form": "chat"}, {"prompt_form": None}, {"raw": False}):
        assert "prompt" not in (sent := body("hi", options))
        assert sent["messages"] == [{"role": "user", "content": "hi"}]
    assert body("hi", {"prompt_form": "completion"}) == {"prompt": "hi"}
    assert (
        body("hi", {"raw": True})
        == body("hi", {"raw": True, "prompt_form": "completion"})
        == {
            "prompt": "hi",
            "raw": True,
        }
    )
    assert body("hi", {"prompt_form": "completion", "lora": "mine"}) == {"prompt": "hi", "lora": "mine"}
    assert body("hi", {"lora": "mine"}) == {"messages": [{"role": "user", "content": "hi"}], "lora": "mine"}


@pytest.mark.parametrize("options", [{}, {"prompt_form": "completion"}, {"prompt_form": "chat"}])
def test_messages_go_in_the_messages_form(options: dict[str, Any]) -> None:
    assert body([Message("user", "hi"), {"role": "assistant", "content": "yo"}], options) == {
        "messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}]
    }


def test_the_model_stands_in_the_path_as_it_is() -> None:
    url = request_of(SETTINGS, "hi", CallOptions()).url
    assert url == f"https://api.example.com/client/v4/accounts/acc/ai/run/{MODEL}"


def test_every_setting_of_the_schema_is_sent_under_its_name() -> None:
    options: Options = {
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 10,
        "seed": 7,
        "repetition_penalty": 1.1,
        "frequency_penalty": -1,
        "presence_penalty": 1,
        "max_tokens": 9,
        "lora": "my-finetune",
        "raw": True,
    }
    assert body("hi", options, stream=True) == {"prompt": "hi", "stream": True, **options}


def test_nothing_is_sent_that_was_not_set() -> None:
    assert body("hi", {"temperature": None, "stop": ["x"], "timeout": 5, "max_retries": 0, "raw": None}) == {
        "messages": [{"role": "user", "content": "hi"}]
    }


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"raw": True, "prompt_form": "chat"}, "prompt_form: can't be 'chat' with raw=True"),
        ({"prompt_form": "prompt"}, "prompt_form: Input should be 'chat' or 'completion'"),
    ],
)
def test_forms_that_cannot_be_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(BadRequestError, match=words):
        call_options(options)


def test_headers_carry_the_token_the_gateway_and_the_session() -> None:
    request = request_of(SETTINGS, "hi", call_options({"gateway": "my-gateway", "session_affinity": "chat-1"}))
    assert request.headers["authorization"] == SecretStr("Bearer secret-token")
    assert request.headers["cf-aig-gateway-id"] == "my-gateway"
    assert request.headers["x-session-affinity"] == "chat-1"
    assert "secret-token" not in repr(request) + repr(request.headers)


def test_reject_if_busy_stands_beside_the_other_fields() -> None:
    assert body("hi", {"reject_if_busy": True})["options"] == {"rejectIfBusy": True}
    assert "options" not in body("hi", {"reject_if_busy": False})


def test_a_call_in_the_history_also_stands_in_the_text_and_its_result_names_it() -> None:
    call = ToolCall(id="c1", name="get_weather", arguments={"location": "Paris"})
    history = [
        Message("user", "Weather?"),
        Message("assistant", "", tool_calls=[call]),
        Message("tool", "sunny", tool_call_id="c1", name="get_weather"),
    ]
    _, assistant, tool = body(history)["messages"]
    assert assistant == {
        "role": "assistant",
        "content": '{"name":"get_weather","parameters":{"location":"Paris"}}',
        "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": '{"location":"Paris"}'}}
        ],
    }
    assert tool == {"role": "tool", "content": "sunny", "tool_call_id": "c1", "name": "get_weather"}


@pytest.mark.parametrize(
    ("model_input", "says"),
    [
        ("", "prompt is empty"),
        ([], "list of messages is empty"),
        ((), "list of messages is empty"),
        (5, "not int"),
        (b"hi", "not bytes"),
        ([Message("user", ""), Message("assistant", "")], "messages are empty"),
        ([5], r"messages\[0\] is neither"),
        ([Message("user", "a"), Message("critic", "b")], r"messages\[1\]: the service knows no role 'critic'"),  # type: ignore[arg-type]
        ([{"role": "developer", "content": "b"}], "no role 'developer'"),
        ([{"role": "user"}], r"messages\[0\]: a message given as a dict has role and content"),
        ([{"role": "user", "content": "x", "tool_calls": []}], "use workersai.Message"),
        ([Message("user", None)], r"messages\[0\]: content must be a string, not NoneType"),  # type: ignore[arg-type]
        ([{"role": "user", "content": [{"type": "text"}]}], "content must be a string, not list"),
        ("half a pair: \ud83d", "surrogate"),
        ([Message("assistant", "", tool_calls=5)], r"messages\[0\]: tool_calls must be a list"),  # type: ignore[arg-type]
        ([Message("assistant", "", tool_calls=[{"id": "1"}])], "list of workersai.ToolCall"),  # type: ignore[list-item]
        ([Message("assistant", "", tool_calls=[ToolCall("1", "f", {"a": {1}})])], "can't be written as JSON"),
    ],
)
def test_bad_input_is_refused_by_name(model_input: Any, says: str) -> None:
    with pytest.raises(BadRequestError, match=says) as caught:
        body(model_input)
    assert (caught.value.status_code, caught.value.retryable) == (None, False)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"temperature": 5.1}, "temperature: must be between 0 and 5, got 5.1"),
        ({"temperature": -1}, "temperature: must be between 0 and 5"),
        ({"temperature": math.nan}, "temperature: must be between 0 and 5"),
        ({"temperature": "hot"}, "temperature: .* number"),
        ({"top_p": 0}, "top_p: must be between 0.001 and 1"),
        ({"top_k": 51}, "top_k: must be between 1 and 50"),
        ({"seed": 0}, "seed: must be between 1 and 9999999999"),
        ({"repetition_penalty": 2.1}, "repetition_penalty: must be between 0 and 2"),
        ({"frequency_penalty": -2.1}, "frequency_penalty: must be between -2 and 2"),
        ({"presence_penalty": 3}, "presence_penalty: must be between -2 and 2"),
        ({"max_tokens": 0}, "max_tokens: must be at least 1"),
        ({"stop": [""]}, "stop: must not hold an empty string"),
        ({"timeout": -1}, "timeout: must be a number of seconds above 0"),
        ({"timeout": math.inf}, "timeout: must be a number of seconds above 0"),
        ({"timeout": 1e12}, "timeout: must be a number of seconds above 0, and 1,000,000 at most"),
        ({"top_k": 10**5000}, "top_k: .* got a huge int"),
        ({"max_retries": -1}, "max_retries: .*greater than or equal to 0"),
        ({"model": "llama-3"}, "model: must be a model's full name, which begins with @"),
        ({"model": "@cf/meta/../x"}, "model: must be"),
        ({"model": "@cf/meta/llama?x=1"}, "model: must be"),
        ({"model": "@cf/meta/llama\n"}, "model: must be"),
        ({"model": "@cf/" + "a" * 200}, "model: must be"),
        ({"gateway": "a\r\nx-evil: 1"}, "gateway: must be printable ASCII"),
        ({"session_affinity": ""}, "session_affinity: must be printable"),
        ({"session_affinity": " x"}, "session_affinity: must be printable"),
        ({"gateway": "x "}, "gateway: must be printable"),
        ({"stream": True}, r"stream is no option .* For the answer in pieces, call stream in place of run\."),
        ({"tempertaure": 1}, r"tempertaure is no option of a call; there are: model, .* Did you mean temperature\?"),
        ({"temperature": 9, "top_k": 0}, "temperature: .* top_k: "),
    ],
)
def test_an_option_out_of_its_range_is_refused_with_its_name_and_the_range(options: dict[str, Any], says: str) -> None:
    with pytest.raises(BadRequestError, match=says):
        body("hi", options)


@pytest.mark.parametrize("form", ["Prompt", "Messages"])
def test_the_ranges_are_those_of_the_published_schema(form: str) -> None:
    for name, field in FORMS[form]["properties"].items():
        for bound, outside in (("minimum", -1), ("maximum", 1)):
            if bound in field:
                edge = field[bound]
                assert getattr(call_options({name: edge}), name) == edge
                with pytest.raises(BadRequestError, match=name):
                    call_options({name: edge + outside})


def test_the_keyword_arguments_are_the_options() -> None:
    assert set(Options.__annotations__) == set(CallOptions.model_fields)


@given(
    text=st.text(min_size=1, alphabet=st.characters(exclude_categories=["Cs"])),
    temperature=st.none() | st.floats(0, 5),
    top_k=st.none() | st.integers(1, 50),
    seed=st.none() | st.integers(1, 9_999_999_999),
    stream=st.booleans(),
)
def test_whatever_passes_the_checks_is_a_body_of_the_published_schema(
    text: str, temperature: float | None, top_k: int | None, seed: int | None, stream: bool
) -> None:
    options = {"temperature": temperature, "top_k": top_k, "seed": seed}
    assert body(text, options, stream=stream)["messages"] == [{"role": "user", "content": text}]
    assert body(text, {**options, "prompt_form": "completion"}, stream=stream)["prompt"] == text
    assert body([Message("user", text)], options, stream=stream)["messages"][0]["content"] == text
