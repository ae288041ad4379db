"""The parts of an answer are found in every shape; calls that stand in two places are one; ids are unique."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workersai.errors import ServerError, StreamInterruptedError
from workersai.protocol import tool_calls
from workersai.protocol.reply import Asked, ReplyHead, completion_from_body, completion_of
from workersai.protocol.shapes import parts_of_event, parts_of_result, plain_text_of
from workersai.protocol.stream import StreamReader
from workersai.protocol.tool_calls import ToolCallAssembler, call_from_text
from workersai.protocol.values import Completion

HEAD = ReplyHead(200, {"cf-ray": "ray", "cf-ai-neurons": "1.98"})
ASKED = Asked("@cf/a/b", None)


def chat(message: dict[str, Any], **beside: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "finish_reason": "stop", "message": message}], **beside}


def streamed(*events: dict[str, Any], asked: Asked = ASKED) -> Completion:
    reader = StreamReader(HEAD, asked)
    for event in events:
        reader.feed(f"data: {json.dumps(event)}\n\n".encode())
    reader.feed(b"data: [DONE]\n\n")
    completion = reader.close()[-1].completion
    assert completion is not None
    return completion


def choice(**delta: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}


@pytest.mark.parametrize(
    ("result", "text"),
    [
        ({"response": "x"}, "x"),
        ({"response": {"a": 1}}, '{"a": 1}'),
        ({"response": [1, "b"]}, '[1, "b"]'),
        ({"response": 7}, "7"),
        ({"response": False}, "false"),
        (chat({"content": "x"}), "x"),
        (chat({"content": {"a": 1}}), '{"a": 1}'),
        (chat({"content": [{"type": "text", "text": "x"}, {"type": "text", "text": "y"}]}), "xy"),
        (chat({"content": "7 \n"}, response=7), "7 \n"),
        (chat({"content": None}, response="x"), "x"),
        (chat({"content": ""}, response=None), ""),
        ({"choices": [], "response": "x"}, "x"),
        ({"choices": None, "response": "x"}, "x"),
        ({"choices": [{"text": " x", "finish_reason": "stop"}]}, " x"),
    ],
)
def test_the_text_is_found_in_each_shape(result: dict[str, Any], text: str) -> None:
    assert parts_of_result(result).text == text
    assert completion_of(result, HEAD, ASKED).text == text


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (choice(content="7 \n") | {"response": 7}, "7 \n"),
        (choice(content="real") | {"response": ""}, "real"),
        (choice(content="") | {"response": ""}, ""),
        (choice(role="assistant") | {"response": "x"}, "x"),
        ({"delta": {"content": "x"}, "response": 1}, "x"),
        ({"choices": [{"text": "x"}]}, "x"),
        ({"choices": [{"message": {"content": "x"}}]}, "x"),
        ({"choices": [{"delta": None, "finish_reason": "stop"}]}, ""),
        ({"choices": [], "response": "x"}, "x"),
        ({"response": 7}, "7"),
    ],
)
def test_the_text_of_an_event_is_the_deltas(event: dict[str, Any], text: str) -> None:
    assert parts_of_event(event).text == text


texts = st.none() | st.sampled_from(["", "x", 7])
deltas = st.none() | st.fixed_dictionaries(
    {}, optional={"content": texts, "role": st.just("assistant"), "reasoning": texts, "tool_calls": st.just([])}
)
choices_of_an_event = st.lists(
    st.fixed_dictionaries(
        {}, optional={"delta": deltas, "finish_reason": st.sampled_from([None, "stop"]), "text": texts}
    ),
    max_size=2,
)
plain_events = st.fixed_dictionaries(
    {},
    optional={
        "response": texts,
        "tool_calls": st.none() | st.just([]),
        "p": st.just("abc"),
        "choices": st.none() | choices_of_an_event,
        "model": st.just("m"),
        "finish_reason": st.none(),
    },
)


@given(plain_events)
def test_the_fast_way_reads_a_plain_event_as_the_other_does(event: dict[str, Any]) -> None:
    text = plain_text_of(event)
    if text is not None:
        parts = parts_of_event(event)
        assert (parts.text, parts.reasoning, parts.finish) == (text, "", None)
        assert not parts.calls
        assert not parts.calls_beside
        assert parts.has_choices == ("choices" in event)


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
def test_reasoning_has_either_name_and_both_are_one(name: str) -> None:
    one = {name: "think"}
    both = {"reasoning": "think", "reasoning_content": "think"}
    for message in (one, both, {**one, "reasoning" if name != "reasoning" else "reasoning_content": None}):
        assert completion_of(chat({"content": "x", **message}), HEAD, ASKED).reasoning == "think"
        assert streamed(choice(**message), choice(content="x"), choice(**message)).reasoning == "thinkthink"


def test_half_a_character_of_reasoning_waits_for_the_other() -> None:
    events = [choice(reasoning="\ud83d"), choice(reasoning="\ude00 \ud83d"), choice(content="x")]
    reader = StreamReader(HEAD, ASKED)
    deltas = [delta for event in events for delta in reader.feed(f"data: {json.dumps(event)}\n\n".encode())]
    deltas += [*reader.feed(b"data: [DONE]\n\n"), *reader.close()]
    assert "".join(delta.reasoning for delta in deltas) == "😀 \ufffd"


calls = st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 2)), max_size=5)


@given(calls, calls, st.booleans())
def test_a_call_in_two_places_is_one_call(
    first: list[tuple[str, int]], second: list[tuple[str, int]], late: bool
) -> None:
    """What stands in both places counts as often as in the place where it stands oftener."""
    in_choice = [{"id": f"c{n}", "function": {"name": name, "arguments": json.dumps({"n": value})}}
                 for n, (name, value) in enumerate(first)]  # fmt: skip
    beside = [{"name": name, "arguments": {"n": value}} for name, value in second]
    expected = {key: max(first.count(key), second.count(key)) for key in {*first, *second}}
    whole = completion_of(chat({"content": None, "tool_calls": in_choice}, tool_calls=beside), HEAD, ASKED)
    one, other = choice(tool_calls=in_choice), {"tool_calls": beside}
    events = [one, {"response": "", **other}] if late else [{**one, **other}]
    for completion in (whole, streamed(*events)):
        found = [(call.name, call.arguments["n"]) for call in completion.tool_calls]
        assert {key: found.count(key) for key in found} == expected
        assert len({call.id for call in completion.tool_calls}) == len(found)


def test_a_call_in_pieces_is_not_made_again_by_its_repetition() -> None:
    pieces = [{"index": 0, "id": "c", "function": {"name": "f", "arguments": '{"n"'}},
              {"index": 0, "function": {"arguments": ": 1}"}}]  # fmt: skip
    events = [choice(tool_calls=[piece]) for piece in pieces]
    completion = streamed(*events, {"response": "", "tool_calls": [{"name": "f", "arguments": {"n": 1}}]})
    assert [(call.id, call.arguments) for call in completion.tool_calls] == [("c", {"n": 1})]


def test_ids_are_unique_in_the_reply_and_in_the_conversation() -> None:
    asked = Asked("@cf/a/b", None, used_call_ids=frozenset({"functions.f:0"}))
    wires = [{"id": given, "function": {"name": "f", "arguments": f'{{"n": {n}}}'}}
             for n, given in enumerate(["functions.f:0", "same", "same", None, ""])]  # fmt: skip
    for completion in (
        completion_of(chat({"content": None, "tool_calls": wires}), HEAD, asked),
        streamed(choice(tool_calls=[{**wire, "index": n} for n, wire in enumerate(wires)]), asked=asked),
        streamed(*(choice(tool_calls=[wire]) for wire in wires), asked=asked),
    ):
        ids = [call.id for call in completion.tool_calls]
        assert len({*ids, "functions.f:0"}) == 6
        assert ids[1] == "same"


def in_two_places(assembler: ToolCallAssembler, number: int) -> None:
    wires = [{"name": "f", "arguments": {"n": n}} for n in range(number)]
    assembler.add(wires, place="choice")
    assembler.add(wires, place="beside")


def in_pieces_after_a_repetition(assembler: ToolCallAssembler, number: int) -> None:
    in_two_places(assembler, 1)
    assembler.add([{"index": 1, "id": "x", "function": {"name": "g", "arguments": '{"a": "'}}], place="choice")
    for _ in range(number):
        assembler.add([{"index": 1, "function": {"arguments": "word "}}], place="choice")


def broken_beside_whole(assembler: ToolCallAssembler, number: int) -> None:
    broken = [{"index": n, "id": str(n), "function": {"name": "f", "arguments": '{"n'}} for n in range(number)]
    assembler.add(broken, place="choice")
    assembler.add([{"name": "f", "arguments": {"n": n}} for n in range(number)], place="beside")


@pytest.mark.parametrize("case", [in_two_places, in_pieces_after_a_repetition, broken_beside_whole])
def test_comparing_calls_takes_a_work_in_proportion_to_them(case: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The characters that are parsed are counted, at two sizes."""
    parsed: list[int] = []

    def counting(call_id: str, name: str, text: str) -> Any:
        parsed.append(len(text) + 1)
        return call_from_text(call_id, name, text)

    monkeypatch.setattr(tool_calls, "call_from_text", counting)
    work = []
    for number in (200, 1_600):
        parsed.clear()
        case(ToolCallAssembler(), number)
        work.append(sum(parsed))
    assert work[1] <= work[0] * 8 * 1.5


def test_the_finish_reason_error_is_a_failure_with_what_was_received() -> None:
    failed = chat({"content": "Hel"})
    failed["choices"][0]["finish_reason"] = "error"
    with pytest.raises(ServerError) as whole:
        completion_of(failed, HEAD, ASKED)
    with pytest.raises(StreamInterruptedError) as stream:
        streamed(choice(content="Hel"), {"choices": [{"delta": {}, "finish_reason": "error"}]})
    for error in (whole.value, stream.value):
        assert error.retryable
        assert error.partial is not None
        assert error.partial.text == "Hel"


@pytest.mark.parametrize("place", ["choice", "top"])
@pytest.mark.parametrize(("sent", "read"), [("model_length", "length"), ("length", "length"), ("other", "other")])
def test_finish_reasons(place: str, sent: str, read: str) -> None:
    whole = chat({"content": "x"})
    whole["choices"][0]["finish_reason"] = sent
    if place == "top":
        whole = {"response": "x", "finish_reason": sent}
    assert completion_of(whole, HEAD, ASKED).finish_reason == read
    last = {"finish_reason": sent} if place == "top" else {"choices": [{"delta": {}, "finish_reason": sent}]}
    assert streamed(choice(content="x"), last).finish_reason == read


@pytest.mark.parametrize(
    ("status", "details", "finish"),
    [("completed", None, "stop"), ("incomplete", {"reason": "max_output_tokens"}, "length")],
)
def test_a_responses_output_is_read(status: str, details: Any, finish: str) -> None:
    output = [
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "think"}], "content": None},
        {"type": "web_search_call", "id": "ws"},
        {"type": "message", "content": [{"type": "output_text", "text": "Hel"}, {"type": "output_text", "text": "lo"}]},
        {"type": "function_call", "call_id": "c1", "name": "f", "arguments": '{"n": 1}'},
    ]
    usage = {"input_tokens": 20, "output_tokens": 9}
    result = {"object": "response", "status": status, "incomplete_details": details, "output": output, "usage": usage}
    completion = completion_of(result, HEAD, ASKED)
    assert (completion.text, completion.reasoning) == ("Hello", "think")
    assert [(call.id, call.arguments) for call in completion.tool_calls] == [("c1", {"n": 1})]
    assert completion.usage is not None
    assert (completion.usage.prompt_tokens, completion.usage.neurons) == (20, 1.98)
    assert completion.finish_reason == ("tool_calls" if finish == "stop" else finish)


@pytest.mark.parametrize("result", [{}, {"model": "x"}, {"choices": []}, {"choices": [7]}, {"choices": [{"index": 0}]}])
def test_a_result_without_an_answer_is_an_error(result: dict[str, Any]) -> None:
    with pytest.raises(ServerError):
        completion_of(result, HEAD, ASKED)


def test_an_empty_result_is_worth_a_retry() -> None:
    with pytest.raises(ServerError, match="empty result") as caught:
        completion_from_body(b'{"result": {}, "success": true}', HEAD, ASKED)
    assert caught.value.retryable
