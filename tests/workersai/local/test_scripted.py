"""Scripts: the ways to write one, and what each answer of it turns into."""

import json
import threading
from typing import Any

import pytest

from tests.support import Serve
from tests.workersai.local.asking import MESSAGES, PROMPT, chat, error_of, events_of, result_of, run
from workersai.local import (
    Answer,
    CalledTool,
    Engine,
    Gate,
    LocalServer,
    RawReply,
    ScriptedEngine,
    SmolLM,
    streamed_calls,
)
from workersai.local.engine import Usage


def text_of(server: LocalServer, body: dict[str, Any] = PROMPT) -> str:
    return str(result_of(run(server, body))["response"])


def test_one_text_answers_every_request(serve: Serve) -> None:
    server = serve("always")
    assert [text_of(server), text_of(server)] == ["always", "always"]


def test_a_list_is_worked_through_in_order_and_then_at_its_end(serve: Serve) -> None:
    server = serve(["one", Answer("two")])
    assert [text_of(server), text_of(server)] == ["one", "two"]
    assert error_of(run(server, PROMPT)) == (400, 5006, "The script has no more answers.")


def test_an_iterator_may_be_endless(serve: Serve) -> None:
    server = serve(f"{number}" for number in range(10**9))
    assert [text_of(server) for _ in range(3)] == ["0", "1", "2"]


def test_a_callable_sees_each_request(serve: Serve) -> None:
    server = serve(lambda request: f"{request.max_tokens} {request.messages[0].role}")
    assert text_of(server, {**MESSAGES, "max_tokens": 7}) == "7 user"


def test_a_refused_request_takes_no_answer(serve: Serve) -> None:
    server = serve(["the first"])
    assert run(server, {**PROMPT, "temperature": 9}).status_code == 400
    assert text_of(server) == "the first"


@pytest.mark.parametrize(
    ("body", "tokens"),
    [
        ({"prompt": "two words"}, 6),
        ({"prompt": "two words", "raw": True}, 2),
        ({"messages": [{"role": "user", "content": "two words"}, {"role": "assistant", "content": ""}]}, 10),
    ],
)
def test_tokens_are_words_and_four_a_message(serve: Serve, body: dict[str, Any], tokens: int) -> None:
    usage = result_of(run(serve("a b c"), body))["usage"]
    assert usage == {"prompt_tokens": tokens, "completion_tokens": 3, "total_tokens": tokens + 3}


def test_a_usage_of_the_script_stands(serve: Serve) -> None:
    server = serve([Answer("a b c", usage=Usage(1_000, 7))])
    assert result_of(run(server, PROMPT))["usage"]["total_tokens"] == 1_007


def test_pieces_make_up_a_whole_reply_too(serve: Serve) -> None:
    assert text_of(serve([Answer(pieces=["a", "", "b c"])])) == "ab c"


def test_a_finish_reason_of_the_script_stands(serve: Serve) -> None:
    server = serve([Answer("a", finish_reason="length"), Answer(tool_calls=(CalledTool("f", {}),)), "a"])
    reasons = [chat(server, MESSAGES).json()["choices"][0]["finish_reason"] for _ in range(3)]
    assert reasons == ["length", "tool_calls", "stop"]


@pytest.mark.parametrize(
    ("pieces", "stops", "text"),
    [
        (["a b", "c d"], ["x"], "a bc d"),
        (["a STO", "P b"], ["STOP"], "a "),
        (["S", "T", "O", "P", "more"], ["STOP"], ""),
        (["a STO"], ["STOP"], "a STO"),
        (["SSTOP"], ["STOP"], "S"),
        (["x END y STOP"], ["STOP", "END"], "x "),
        (["a。", "b"], ["。"], "a"),
    ],
)
def test_a_stop_string_ends_a_scripted_text(serve: Serve, pieces: list[str], stops: list[str], text: str) -> None:
    server = serve([Answer(pieces=pieces)])
    assert chat(server, {**MESSAGES, "stop": stops}).json()["choices"][0]["message"]["content"] == text


def test_a_stop_string_ends_an_endless_text(serve: Serve) -> None:
    server = serve([Answer(pieces=(f"{number} " for number in range(10**9)))])
    events = events_of(chat(server, {**MESSAGES, "stop": "12", "stream": True}).text)
    content = "".join(event["choices"][0]["delta"].get("content", "") for event in events[:-1])
    assert content == "0 1 2 3 4 5 6 7 8 9 10 11 "


def test_an_open_gate_holds_nobody(serve: Serve) -> None:
    gate = Gate()
    gate.open()
    server = serve(lambda _: Answer("now", hold={0: gate}))
    assert [text_of(server), text_of(server)] == ["now", "now"]
    gate.wait_until_reached(timeout=0)


def test_a_gate_holds_many_answers_and_lets_all_through_at_once(serve: Serve) -> None:
    gates = [Gate() for _ in range(3)]
    shared = Gate()
    order = iter(gates)
    server = serve(lambda _: Answer(pieces=["a", "b"], hold={0: next(order), 1: shared}))
    for gate in gates:
        gate.open()
    texts: list[str] = []
    threads = [threading.Thread(target=lambda: texts.append(text_of(server))) for _ in gates]
    for thread in threads:
        thread.start()
    for gate in gates:
        gate.wait_until_reached()
    shared.open()
    for thread in threads:
        thread.join()
    assert texts == ["ab"] * 3


def test_a_gate_that_nobody_comes_to_is_a_timeout() -> None:
    with pytest.raises(TimeoutError, match="No answer came to the gate within 0 seconds"):
        Gate().wait_until_reached(timeout=0)


def test_a_gate_may_be_opened_after_those_who_waited_have_gone(serve: Serve) -> None:
    gate = Gate()
    with LocalServer([Answer("late", hold={0: gate})]) as server:
        asking = threading.Thread(target=lambda: run(server, PROMPT).close())
        asking.start()
        gate.wait_until_reached()
        server.close()
        asking.join()
    gate.open()
    assert text_of(serve([Answer("fine", hold={0: gate})])) == "fine"


def test_a_raw_reply_may_name_its_own_headers(serve: Serve) -> None:
    reply = RawReply(b"data: [DONE]\r\n\r\n", headers={"CF-AIG-Cache-Status": "HIT"})
    response = run(serve([reply]), PROMPT)
    assert (response.headers["cf-aig-cache-status"], response.headers["content-type"]) == ("HIT", "text/event-stream")


def test_calls_can_be_streamed_in_openais_pieces(serve: Serve) -> None:
    calls = [CalledTool("get_weather", {"city": "Zürich"}), CalledTool("add", {"a": 1, "b": [2, 3]})]
    server = serve([streamed_calls(*calls, text="Well,", usage=Usage(30, 20))])
    *chunks, usage, done = events_of(run(server, {**MESSAGES, "stream": True}).text)
    assert (usage["choices"], usage["usage"]["total_tokens"], done) == ([], 50, "[DONE]")
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    assert choices[0]["delta"]["content"] == "Well,"
    assert [choice["finish_reason"] for choice in choices] == [None] * (len(choices) - 1) + ["tool_calls"]
    parts = [part for choice in choices for part in choice["delta"].get("tool_calls", [])]
    # Both start, take turns, and are closed.
    assert parts[:2] == [
        {"id": "chatcmpl-tool-0", "type": "function", "index": 0, "function": {"name": "get_weather"}},
        {"id": "chatcmpl-tool-1", "type": "function", "index": 1, "function": {"name": "add"}},
    ]
    pieces = parts[2:-2]
    assert [part["index"] for part in pieces[:6]] == [0, 1] * 3
    for index, call in enumerate(calls):
        arguments = "".join(part["function"]["arguments"] for part in pieces if part["index"] == index)
        assert json.loads(arguments) == call.arguments
        assert parts[index - 2] == {
            "id": None,
            "type": None,
            "index": index,
            "function": {"name": None, "arguments": ""},
        }


def test_both_engines_are_engines() -> None:
    assert isinstance(ScriptedEngine("x"), Engine)
    assert isinstance(SmolLM(), Engine)
    assert ScriptedEngine("x").name == "scripted answers"
