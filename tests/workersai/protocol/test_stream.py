"""Every stream of wire.md#streams, whole and cut at each byte."""

import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from workersai.errors import ContextWindowExceededError, RateLimitError, ServerError, StreamInterruptedError
from workersai.protocol.reply import Asked, ReplyHead
from workersai.protocol.stream import StreamReader
from workersai.protocol.values import Completion, Delta, Usage

MODEL = "@cf/meta/llama-3.3-70b-instruct-fp8-fast"
HEAD = ReplyHead(status=200, headers={"cf-ray": "8c5-LOC", "content-type": "text/event-stream"})
ASKED = Asked(model=MODEL, max_tokens=256)

# A native stream as wire.md#streams shows it: CRLF and LF, comments, padding, empty and null pieces, a number, and text
# whose characters take up to four bytes (CJK, an emoji of several code points).
NATIVE = (
    ": connected\r\n\r\n"
    'data: {"response":"Grüße, ","tool_calls":[],"p":"abdefghij"}\r\n\r\n'
    'data: {"response":"","tool_calls":[],"p":"ab"}\n\n'
    'data: {"response":"東京は","p":"abdefg"}\n\n'
    'data: {"response":null,"tool_calls":[]}\n\n'
    'data: {"response":5,"tool_calls":[],"p":"x"}\r\n\r\n'
    'data: {"response":" 👩‍👩‍👧","tool_calls":[]}\n\n'
    'data: {"response":"","usage":{"prompt_tokens":10,"completion_tokens":3,"total_tokens":13}}\n\n'
    'data: {"tool_calls":[],"usage":{"prompt_tokens":10,"completion_tokens":7,"total_tokens":17,'
    '"prompt_tokens_details":{"cached_tokens":8}}}\n\n'
    "data: [DONE]\n\n"
).encode()
NATIVE_TEXT = "Grüße, 東京は5 👩‍👩‍👧"

OPENAI = (
    'data: {"id":"c","choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}\n\n'
    'data: {"id":"c","choices":[{"index":0,"delta":{"content":"Bon"},"finish_reason":null}]}\n\n'
    'data: {"id":"c","choices":[{"index":0,"delta":{"content":"jour 👋"},"finish_reason":null}]}\n\n'
    'data: {"id":"c","choices":[{"index":0,"delta":{},"finish_reason":"length"}]}\n\n'
    'data: {"id":"c","choices":[],"usage":{"prompt_tokens":2,"completion_tokens":4,"total_tokens":6}}\n\n'
    "data: [DONE]\n\n"
).encode()

CALLS = (
    'data: {"choices":[{"index":0,"delta":{"tool_calls":[{"id":"a1","type":"function","index":0,'
    '"function":{"name":"get_weather"}}]}}]}\n\n'
    'data: {"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{\\"ci"}}]}}]}\n\n'
    'data: {"tool_calls":[{"index":0,"function":{"arguments":"ty\\": \\"東京\\"}"}}]}\n\n'
    'data: {"tool_calls":[{"id":"b2","type":"function","index":1,"function":{"name":"get_time","arguments":""}}]}\n\n'
    'data: {"tool_calls":[{"index":1,"function":{"arguments":"{}"}}]}\n\n'
    'data: {"tool_calls":[{"id":null,"type":null,"index":0,"function":{"name":null,"arguments":""}}]}\n\n'
    "data: [DONE]\n\n"
).encode()


def event(**payload: Any) -> bytes:
    return b"data: " + json.dumps(payload).encode() + b"\n\n"


def read(chunks: Iterable[bytes], asked: Asked = ASKED) -> list[Delta]:
    reader = StreamReader(HEAD, asked)
    deltas: list[Delta] = []
    for chunk in chunks:
        if reader.ended:
            break
        deltas += reader.feed(chunk)
    return deltas + reader.close()


def whole(body: bytes, asked: Asked = ASKED) -> Completion:
    completion = read([body], asked)[-1].completion
    assert completion is not None
    return completion


def without_ids(deltas: list[Delta]) -> list[Delta]:
    """Ids that are made here differ each time."""
    return [replace(delta, completion=None) for delta in deltas]


def test_a_native_stream_is_text_then_the_last_usage_and_an_inferred_finish() -> None:
    deltas = read([NATIVE])
    assert [delta.text for delta in deltas] == ["Grüße, ", "東京は", "5", " 👩‍👩‍👧", ""]
    assert deltas[-1].usage == Usage(prompt_tokens=10, completion_tokens=7, cached_tokens=8)
    assert deltas[-1].finish_reason == "stop"
    assert deltas[-1].completion == Completion(
        text=NATIVE_TEXT,
        usage=deltas[-1].usage,
        finish_reason="stop",
        model=MODEL,
        request_id="8c5-LOC",
    )


def test_an_openai_shaped_stream_gives_its_own_finish_reason() -> None:
    deltas = read([OPENAI])
    assert [delta.text for delta in deltas] == ["Bon", "jour 👋", ""]
    assert (deltas[-1].finish_reason, deltas[-1].usage) == ("length", Usage(2, 4))


def test_a_native_answer_of_max_tokens_was_cut_by_its_length() -> None:
    assert whole(NATIVE, replace(ASKED, max_tokens=7)).finish_reason == "length"


@pytest.mark.parametrize("body", [NATIVE, OPENAI, CALLS], ids=["native", "openai", "calls"])
def test_cut_at_every_byte_the_deltas_are_the_same(body: bytes) -> None:
    expected = without_ids(read([body]))
    for at in range(len(body) + 1):
        assert without_ids(read([body[:at], body[at:]])) == expected
    assert without_ids(read(body[at : at + 1] for at in range(len(body)))) == expected


@pytest.mark.parametrize("body", [NATIVE, OPENAI, CALLS], ids=["native", "openai", "calls"])
def test_broken_off_at_any_byte_it_is_an_error_with_what_came_or_else_complete(body: bytes) -> None:
    complete = whole(body)
    for at in range(len(body)):
        ended = b"[DONE]" in body[:at] or b'"length"}]}' in body[:at]
        if ended:  # only the line ends after [DONE], or what follows a finish reason, is missing
            assert whole(body[:at]).text == complete.text
            continue
        with pytest.raises(StreamInterruptedError) as caught:
            whole(body[:at])
        assert caught.value.partial is not None
        assert complete.text.startswith(caught.value.partial.text)


def test_streamed_calls_come_in_pieces_and_once_whole() -> None:
    deltas = [delta.tool_call for delta in read([CALLS]) if delta.tool_call]
    assert [(call.index, call.id, call.name, call.arguments) for call in deltas] == [
        (0, "a1", "get_weather", ""),
        (0, None, None, '{"ci'),
        (0, None, None, 'ty": "東京"}'),
        (1, "b2", "get_time", ""),
        (1, None, None, "{}"),
    ]
    calls = whole(CALLS).tool_calls
    assert [(call.id, call.name, call.arguments) for call in calls] == [
        ("a1", "get_weather", {"city": "東京"}),
        ("b2", "get_time", {}),
    ]
    assert whole(CALLS).finish_reason == "tool_calls"


def test_complete_calls_in_native_events_are_calls_of_their_own_with_ids_of_their_own() -> None:
    call = {"name": "get_weather", "arguments": {"city": "Paris"}}
    body = event(response=None, tool_calls=[call, call]) + event(response="", tool_calls=[call]) + b"data: [DONE]\n\n"
    calls = whole(body).tool_calls
    assert [call.arguments for call in calls] == [{"city": "Paris"}] * 3
    assert len({call.id for call in calls}) == 3
    assert [delta.tool_call.index for delta in read([body]) if delta.tool_call] == [0, 1, 2]


def test_arguments_that_are_no_json_object_are_handed_over_as_invalid() -> None:
    body = event(tool_calls=[{"id": "x", "index": 0, "function": {"name": "f", "arguments": '{"a": '}}])
    (call,) = whole(body + b"data: [DONE]\n\n").invalid_tool_calls
    assert (call.id, call.name, call.arguments) == ("x", "f", '{"a": ')
    assert "not JSON" in call.error


def test_a_stream_without_done_raises_with_the_partial_text() -> None:
    with pytest.raises(StreamInterruptedError) as caught:
        read([event(response="Hel"), event(response="lo")])
    assert caught.value.partial is not None
    assert caught.value.partial.text == "Hello"
    assert caught.value.request_id == "8c5-LOC"


def test_an_empty_body_is_a_cut_off_stream() -> None:
    with pytest.raises(StreamInterruptedError):
        read([])


def test_a_finish_reason_ends_a_stream_that_lacks_done() -> None:
    body = event(choices=[{"index": 0, "delta": {"content": "ok"}, "finish_reason": "stop"}])
    assert whole(body).text == "ok"


def test_a_done_without_its_line_end_ends_the_stream() -> None:
    assert whole(event(response="ok") + b"data: [DONE]").text == "ok"


def test_an_error_event_raises_its_class_after_the_text_before_it_was_handed_over() -> None:
    reader = StreamReader(HEAD, ASKED)
    body = event(response="Hel") + event(errors=[{"code": 3040, "message": "Capacity exceeded"}], success=False)
    assert [delta.text for delta in reader.feed(body + event(response="never"))] == ["Hel"]
    assert reader.ended
    with pytest.raises(RateLimitError) as caught:
        reader.close()
    assert (caught.value.code, caught.value.partial and caught.value.partial.text) == (3040, "Hel")


def test_an_overflow_told_in_an_event_is_known_by_its_words() -> None:
    with pytest.raises(ContextWindowExceededError):
        read(
            [event(error={"message": "This model's maximum context length is 24000 tokens. However, you requested 9"})]
        )


GARBAGE = [
    b"{nonsense",
    b"5",
    b'"\xff"',
    b'{"tool_calls":[5]}',
    b'{"tool_calls":5}',
    b'{"choices":[5]}',
    b'{"choices":[{"delta":"x"}]}',
    b'{"choices":[{"delta":["x"]}]}',
]


@pytest.mark.parametrize("garbage", GARBAGE)
def test_an_event_that_cannot_be_read_is_an_error_and_not_skipped(garbage: bytes) -> None:
    with pytest.raises(ServerError) as caught:
        read([event(response="a"), b"data: " + garbage + b"\n\n", event(response="b"), b"data: [DONE]\n\n"])
    assert caught.value.partial is not None
    assert caught.value.partial.text == "a"


def test_an_event_that_holds_nothing_for_us_is_passed_over() -> None:
    assert whole(event(p="abc") + event(type="ping") + event(response="a") + b"data: [DONE]\n\n").text == "a"


def test_a_whole_json_reply_where_a_stream_was_asked_for_is_handed_on_as_a_stream() -> None:
    body = json.dumps(
        {
            "result": {
                "response": "Hello",
                "tool_calls": [{"name": "f", "arguments": {"a": 1}}],
                "usage": {"prompt_tokens": 1, "completion_tokens": 2},
            },
            "success": True,
        }
    ).encode()
    deltas = read([b"\n " + body[:20], body[20:]])
    assert deltas[0].text == "Hello"
    assert deltas[1].tool_call is not None
    assert deltas[1].tool_call.arguments == '{"a": 1}'
    assert (deltas[-1].usage, deltas[-1].finish_reason) == (Usage(1, 2), "tool_calls")


@pytest.mark.parametrize(
    "body", [b"hello", b"null", b'"x"', b"upstream connect error", b"date: now", b"d\xff", b"[]", b"5"]
)
def test_what_is_neither_a_stream_nor_an_answer_says_so_and_keeps_its_status(body: bytes) -> None:
    for chunks in ([body], [body[at : at + 1] for at in range(len(body))]):
        with pytest.raises(ServerError) as caught:
            read(chunks)
        assert caught.value.status_code == 200


@pytest.mark.parametrize(
    "body", [b"", b"d", b"data", b"event:", b": hi\n\n", b"\n\n\n", b"\xef\xbb\xbfda", b"retry: 5\n\n"]
)
def test_a_stream_of_no_event_was_cut_off(body: bytes) -> None:
    with pytest.raises(StreamInterruptedError) as caught:
        read([body])
    assert caught.value.retryable


def test_a_byte_order_mark_before_a_whole_reply_is_passed_over() -> None:
    assert read([b'\xef\xbb\xbf{"response": "ok"}'])[0].text == "ok"


def test_an_html_page_where_a_stream_was_asked_for_is_summed_up() -> None:
    with pytest.raises(ServerError, match="HTML page titled 'Bad gateway'") as caught:
        read([b"<!DOCTYPE html><html><head><title>Bad\n gateway</title>" + b"<p>" * 5000])
    assert len(str(caught.value)) < 200


def test_a_stop_string_over_two_pieces_ends_the_answer_there() -> None:
    reader = StreamReader(HEAD, replace(ASKED, stop=("STOP",)))
    deltas = reader.feed(event(response="one ST") + event(response="OP two"))
    assert [delta.text for delta in deltas] == ["one "]
    assert reader.ended
    assert reader.close()[-1].finish_reason == "stop"


def test_text_held_back_for_a_stop_string_comes_when_the_stream_ends() -> None:
    body = event(response="one ST") + b"data: [DONE]\n\n"
    deltas = read([body], replace(ASKED, stop=("STOP",)))
    assert [delta.text for delta in deltas] == ["one ", "ST", ""]
    assert deltas[-1].completion is not None
    assert deltas[-1].completion.text == "one ST"


def test_text_held_back_for_a_stop_string_is_in_the_partial_of_a_cut_off_stream() -> None:
    with pytest.raises(StreamInterruptedError) as caught:
        read([event(response="one ST")], replace(ASKED, stop=("STOP",)))
    assert caught.value.partial is not None
    assert caught.value.partial.text == "one ST"
