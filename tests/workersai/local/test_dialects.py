"""Each dialect of ``/ai/run`` has the shape of the samples: keys, calls, usage, finish reasons, faults."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.workersai.local.asking import MESSAGES, PROMPT, bound, error_of, events_of, post, result_of, run, run_url
from workersai.local import Answer, CalledTool, LocalServer, Refusal
from workersai.local.dialects import DialectName
from workersai.local.engine import GenerationRequest, Usage

SAMPLES = Path(__file__).parents[2] / "wire" / "samples"
DIALECTS: tuple[DialectName, ...] = get_args(DialectName)
WITH_CHOICES: tuple[DialectName, ...] = ("hybrid", "chat")
TOOL = {"name": "get_weather", "description": "The weather.", "parameters": {"type": "object", "properties": {}}}
CALLING = {**MESSAGES, "tools": [TOOL]}
JSON_MODE = {**MESSAGES, "response_format": {"type": "json_object"}}
CALL = CalledTool("get_weather", {"city": "Tokyo"})
PIECES = ("there are ", "4", ",", "625", "7 \n")
TEXT = "".join(PIECES)
USAGE = Usage(39, 7, 8)


def script(request: GenerationRequest) -> Answer:
    if request.tools:
        return Answer(tool_calls=(CALL,), usage=USAGE)
    if request.json_schema is not None:
        return Answer(object={"score": 4}, usage=USAGE)
    return Answer(pieces=PIECES, usage=USAGE)


@pytest.fixture(scope="module")
def servers() -> Iterator[Callable[[DialectName], LocalServer]]:
    started = {name: LocalServer(script, dialect=name) for name in DIALECTS}
    for server in started.values():
        server.start()
    yield started.__getitem__
    for server in started.values():
        server.close()


Servers = Callable[[DialectName], LocalServer]


def keys_of(value: Any) -> Any:
    """The structure of a value: its keys, and what is under them; for a list, its first item."""
    if isinstance(value, dict):
        return {key: keys_of(inner) for key, inner in value.items()}
    return [keys_of(value[0])] if isinstance(value, list) and value else None


def sample(name: str) -> Any:
    (path,) = SAMPLES.glob(f"{name}_*")
    return json.loads(path.read_text()) if path.suffix == ".json" else events_of(path.read_text().rstrip("\n") + "\n\n")


def stream(server: LocalServer, body: dict[str, Any], **headers: str) -> list[Any]:
    return events_of(run(server, {**body, "stream": True}, **headers).text)


@pytest.mark.parametrize(
    ("dialect", "body", "name"),
    [
        ("native", CALLING, "w02"),
        ("hybrid", JSON_MODE, "w05"),
        ("hybrid", CALLING, "w06"),
        ("hybrid", PROMPT, "w24"),
        ("chat", MESSAGES, "w20"),
        ("chat", PROMPT, "w24"),
    ],
)
def test_a_whole_reply_has_the_keys_of_the_sample(
    servers: Servers, dialect: DialectName, body: dict[str, Any], name: str
) -> None:
    ours = run(servers(dialect), body, **({"x_session_affinity": "s"} if dialect == "native" else {})).json()
    assert keys_of(ours) == keys_of(sample(name))


def test_a_whole_call_of_the_chat_dialect_has_the_keys_of_the_sample(servers: Servers) -> None:
    theirs = sample("w23")["result"]["choices"]
    del theirs[0]["message"]["reasoning_content"]
    assert keys_of(result_of(run(servers("chat"), CALLING))["choices"]) == keys_of(theirs)


def test_the_binding_has_the_keys_of_the_sample_and_no_response(servers: Servers) -> None:
    reply = bound(servers("hybrid"), JSON_MODE).json()
    assert keys_of(reply) == keys_of(sample("w04"))
    assert "response" not in reply
    assert bound(servers("chat"), MESSAGES).json()["choices"][0]["message"]["content"] == TEXT


@pytest.mark.parametrize(
    ("dialect", "body", "name"),
    [
        ("hybrid", MESSAGES, "s02"),
        ("hybrid", CALLING, "s03"),
        ("hybrid", PROMPT, "s10"),
        ("chat", PROMPT, "s10"),
        ("chat", CALLING, "s24"),
    ],
)
def test_the_events_of_a_stream_have_the_keys_of_the_sample(
    servers: Servers, dialect: DialectName, body: dict[str, Any], name: str
) -> None:
    ours = [keys_of(event) for event in stream(servers(dialect), body)]
    theirs = [keys_of(event) for event in sample(name)]
    assert [keys for keys in theirs if keys not in ours] == []


def test_the_text_of_a_chat_stream_has_the_keys_of_the_sample(servers: Servers) -> None:
    ours = [keys_of(event) for event in stream(servers("chat"), MESSAGES)]
    *theirs, without_choice, _, _ = sample("s21")
    for event in theirs:  # the usage is in the last event only
        del event["usage"]
    assert all(keys_of(event) in ours for event in [*theirs, without_choice])


def test_the_hybrid_whole_reply_has_the_text_in_both_places(servers: Servers) -> None:
    result = result_of(run(servers("hybrid"), MESSAGES))
    assert result["model"] == "@cf/meta/llama-3.3-70b-instruct-sd"
    assert result["choices"][0]["message"]["content"] == result["response"] == TEXT
    assert (result["choices"][0]["finish_reason"], result["tool_calls"]) == ("stop", [])
    in_json_mode = result_of(run(servers("hybrid"), JSON_MODE))
    assert in_json_mode["response"] == {"score": 4}
    assert in_json_mode["choices"][0]["message"]["content"] == '{"score": 4}'


def test_the_hybrid_stream_has_a_number_for_digits_and_the_exact_text_in_the_delta(servers: Servers) -> None:
    events = stream(servers("hybrid"), MESSAGES)
    texts = [event["choices"][0]["delta"].get("content") for event in events[:-2]]
    assert texts == ["", *PIECES, None]
    assert [event["response"] for event in events[:-2]] == ["", "there are ", 4, ",", 625, 7, ""]


@pytest.mark.parametrize(("dialect", "body"), [("hybrid", MESSAGES), ("hybrid", CALLING), ("chat", PROMPT)])
def test_the_increments_of_a_stream_add_up_to_the_totals(
    servers: Servers, dialect: DialectName, body: dict[str, Any]
) -> None:
    *events, totals, done = stream(servers(dialect), body, x_session_affinity="s")
    told = [event["usage"] for event in events if "usage" in event]
    assert (told[0]["prompt_tokens"], told[0]["completion_tokens"]) == (39, 0)
    assert all(usage["prompt_tokens"] == 0 for usage in told[1:])
    sums = {key: sum(usage[key] for usage in told) for key in ("prompt_tokens", "completion_tokens", "total_tokens")}
    assert sums == {"prompt_tokens": 39, "completion_tokens": 7, "total_tokens": 46}
    assert sums.items() <= totals["usage"].items()
    assert totals["usage"]["neurons"] == pytest.approx(sum(usage["neurons"] for usage in told), abs=0.01)
    assert totals["usage"]["prompt_tokens_details"] == {"cached_tokens": 8}
    assert (totals["response"], done) == ("", "[DONE]")


@given(pieces=st.lists(st.text(st.sampled_from("ab 1\n"), min_size=1), max_size=8), completion=st.integers(0, 20))
def test_whatever_the_script_says_of_its_usage_the_increments_add_up(pieces: list[str], completion: int) -> None:
    answers.append(Answer(pieces=pieces, usage=Usage(3, completion)))
    *events, _, _ = stream(shared(), MESSAGES)
    counts = [(event["usage"]["prompt_tokens"], event["usage"]["completion_tokens"]) for event in events]
    assert (sum(prompt for prompt, _ in counts), sum(own for _, own in counts)) == (3, completion)
    assert "".join(event["choices"][0]["delta"].get("content", "") for event in events) == "".join(pieces)


answers: list[Answer] = []
_SHARED: list[LocalServer] = []


def shared() -> LocalServer:
    return _SHARED[0]


@pytest.fixture(autouse=True, scope="module")
def _shared_server() -> Iterator[None]:
    with LocalServer(lambda _: answers.pop(), dialect="hybrid") as server:
        _SHARED[:] = [server]
        yield


def test_a_streamed_call_of_the_hybrid_is_whole_in_both_places_without_an_index(servers: Servers) -> None:
    _, event, finish, _, _ = stream(servers("hybrid"), CALLING)
    (call,) = event["choices"][0]["delta"]["tool_calls"]
    assert (call["function"]["name"], json.loads(call["function"]["arguments"])) == ("get_weather", {"city": "Tokyo"})
    assert "index" not in call
    assert event["tool_calls"] == [{"name": "get_weather", "arguments": {"city": "Tokyo"}}]
    assert finish["choices"][0]["finish_reason"] == "tool_calls"


def test_a_streamed_call_of_the_chat_dialect_comes_in_pieces(servers: Servers) -> None:
    *events, usage, done = stream(servers("chat"), CALLING)
    pieces = [piece for event in events for piece in event["choices"][0]["delta"].get("tool_calls", [])]
    assert {piece["index"] for piece in pieces} == {0}
    assert [piece["function"]["name"] for piece in pieces if "id" in piece] == ["get_weather"]
    arguments = [piece["function"].get("arguments", "") for piece in pieces]
    assert (json.loads("".join(arguments)), len(arguments) > 2) == ({"city": "Tokyo"}, True)
    assert events[-1]["choices"][0]["finish_reason"] == "tool_calls"
    assert (usage["choices"], usage["usage"]["completion_tokens"], done) == ([], 7, "[DONE]")


@pytest.mark.parametrize("dialect", WITH_CHOICES)
def test_a_prompt_is_continued_and_gets_a_text_completion(servers: Servers, dialect: DialectName) -> None:
    result = result_of(run(servers(dialect), PROMPT))
    assert result["object"] == "text_completion"
    assert result["choices"][0]["text"] == TEXT
    texts = [event["choices"][0]["text"] for event in stream(servers(dialect), PROMPT)[:-2]]
    assert texts == ["", *PIECES, ""]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_only_the_native_dialect_has_a_template_around_a_prompt(dialect: DialectName) -> None:
    asked: list[GenerationRequest] = []
    with LocalServer(lambda request: asked.append(request) or "ok", dialect=dialect) as server:  # type: ignore[func-returns-value]
        for body in (PROMPT, {**PROMPT, "raw": True}, MESSAGES):
            assert result_of(run(server, body))
    assert [request.raw for request in asked] == [dialect != "native", True, False]


@pytest.mark.parametrize("dialect", WITH_CHOICES)
def test_a_prompt_that_a_script_answers_with_a_call_is_refused_with_what_to_do(dialect: DialectName) -> None:
    with LocalServer(lambda _: Answer(tool_calls=(CALL,)), dialect=dialect) as server:
        for body in (PROMPT, {**PROMPT, "stream": True}):
            status, code, message = error_of(run(server, body))
            assert (status, code, "send messages" in message) == (400, 5006, True)


@pytest.mark.parametrize("dialect", WITH_CHOICES)
@pytest.mark.parametrize("reason", ["length", "model_length", "error"])
def test_a_scripted_finish_reason_is_sent_whole_and_streamed(dialect: DialectName, reason: Any) -> None:
    with LocalServer(lambda _: Answer("Hel", finish_reason=reason), dialect=dialect) as server:
        for body in (MESSAGES, PROMPT):
            assert result_of(run(server, body))["choices"][0]["finish_reason"] == reason
            chosen = [event["choices"][0] for event in stream(server, body)[:-1] if event.get("choices")]
            assert chosen[-1]["finish_reason"] == reason


@pytest.mark.parametrize("dialect", DIALECTS)
def test_json_mode_that_could_not_be_met_is_5024(dialect: DialectName) -> None:
    with LocalServer("Sure!", dialect=dialect) as server:
        for body in (JSON_MODE, {**PROMPT, "response_format": JSON_MODE["response_format"]}):
            assert error_of(run(server, body))[:2] == (400, 5024)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_items_of_a_batch_have_the_shape_of_the_dialect(dialect: DialectName) -> None:
    with LocalServer("Hello.", dialect=dialect, strict=False) as server:
        url = run_url(server) + "?queueRequest=true"
        queued = result_of(post(server, url, {"requests": [PROMPT, MESSAGES]}))
        while "responses" not in (result := result_of(post(server, url, {"request_id": queued["request_id"]}))):
            pass
    told = {entry["id"]: entry["result"] for entry in result["responses"]}
    if dialect == "native":
        assert told == {0: {"response": "Hello."}, 1: {"response": "Hello."}}
    else:
        assert told[0]["choices"][0]["text"] == told[1]["choices"][0]["message"]["content"] == "Hello."
        assert ("response" in told[1], "usage" in told[0]) == (dialect == "hybrid", True)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_faults_are_the_same_in_each_dialect(dialect: DialectName) -> None:
    faults = ["end:60", "garbage:60", "event:3040", "event:3040", "whole", "cut:60", "3040"]
    with LocalServer("Hello there", dialect=dialect, faults=faults) as server:
        assert len(run(server, {**MESSAGES, "stream": True}).content) == 60
        assert b"\xff\xfe <garbage>" in run(server, {**MESSAGES, "stream": True}).content
        *pieces, failure = stream(server, MESSAGES)
        assert "Hello" in json.dumps(pieces)
        assert (failure["success"], failure["errors"][0]["code"]) == (False, 3040)
        assert run(server, MESSAGES).json()["errors"][0]["code"] == 3040
        assert "Hello there" in json.dumps(result_of(run(server, {**MESSAGES, "stream": True})))
        with pytest.raises(httpx.RemoteProtocolError):
            run(server, {**MESSAGES, "stream": True})
        assert error_of(run(server, MESSAGES))[:2] == (429, 3040)


@pytest.mark.parametrize("dialect", WITH_CHOICES)
@pytest.mark.parametrize("body", [MESSAGES, PROMPT], ids=["messages", "prompt"])
def test_a_failure_during_a_stream_is_an_event_without_an_end_marker(
    dialect: DialectName, body: dict[str, Any]
) -> None:
    with LocalServer(
        [Answer(pieces=["Hel"], failure=Refusal(3040, "busy", 429)), Refusal(3040, "busy", 429)], dialect=dialect
    ) as server:
        _, _, failure = stream(server, body)
        assert failure == {"errors": [{"code": 3040, "message": "busy"}], "success": False}
        assert error_of(run(server, {**body, "stream": True})) == (429, 3040, "busy")


def test_the_gateway_keeps_what_the_dialect_said(servers: Servers) -> None:
    for dialect in DIALECTS:
        named = {"cf_aig_gateway_id": "g", "cf_aig_cache_ttl": "60", "cf_aig_cache_key": dialect}
        first, again = (run(servers(dialect), {**MESSAGES, "stream": True}, **named) for _ in range(2))
        assert (again.content, again.headers["cf-aig-cache-status"]) == (first.content, "HIT")


def test_an_unknown_dialect_is_refused_with_those_that_exist() -> None:
    with pytest.raises(ValueError, match="dialect must be 'native', 'hybrid', 'chat'; got 'openai'"):
        LocalServer("ok", dialect="openai")  # type: ignore[arg-type]
