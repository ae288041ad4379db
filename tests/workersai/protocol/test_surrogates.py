"""Replies whose JSON is cut inside a character."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workersai.errors import QuotaExceededError, ServerError
from workersai.protocol.reply import Asked, ReplyHead, completion_from_body, error_from_body
from workersai.protocol.stream import StreamReader
from workersai.protocol.surrogates import Halves, repaired, value_of, whole_value_of
from workersai.protocol.tool_calls import call_from_text
from workersai.protocol.values import Completion, InvalidToolCall, ToolCall

HEAD = ReplyHead(status=200, headers={})
ASKED = Asked(model="@cf/meta/llama-3.3-70b-instruct-fp8-fast", max_tokens=256)
DONE = b"data: [DONE]\n\n"


def units(text: str) -> list[str]:
    """The UTF-16 code units of a text, as strings."""
    encoded = text.encode("utf-16-le", "surrogatepass")
    return [chr(int.from_bytes(encoded[at : at + 2], "little")) for at in range(0, len(encoded), 2)]


def streamed(*pieces: str) -> str:
    reader = StreamReader(HEAD, ASKED)
    deltas = [
        delta for piece in pieces for delta in reader.feed(f"data: {json.dumps({'response': piece})}\n\n".encode())
    ]
    deltas += reader.feed(DONE)
    deltas += reader.close()
    completion = deltas[-1].completion
    assert completion is not None
    assert completion.text == "".join(delta.text for delta in deltas)
    completion.text.encode()  # raises where a half is left
    return completion.text


def whole(body: bytes) -> Completion:
    return completion_from_body(body, HEAD, ASKED)


def test_a_pair_that_two_events_share_is_one_character() -> None:
    assert streamed("So \ud83d", "\ude00 it", " is") == "So 😀 it is"
    assert streamed("\ud83d", "", "\ude00") == "😀"


def test_a_half_alone_is_told_as_unreadable() -> None:
    assert streamed("a\ud83d", "b") == "a\ufffdb"
    assert streamed("a\ud83d") == "a\ufffd"
    assert streamed("\ude00a") == "\ufffda"


def test_a_whole_reply_with_a_half_is_read() -> None:
    body = json.dumps({"result": {"response": "cut \ud83d"}, "success": True}).encode()
    assert whole(body).text == "cut \ufffd"
    call = {"name": "f\ud83d", "arguments": {"a\ud83d\ude00": ["\ude00"]}}
    body = json.dumps({"result": {"response": None, "tool_calls": [call]}, "success": True}).encode()
    (told,) = whole(body).tool_calls
    assert (told.name, told.arguments) == ("f\ufffd", {"a😀": ["\ufffd"]})


def test_an_error_whose_message_is_cut_inside_a_character_is_that_error() -> None:
    body = b'{"errors":[{"code":4006,"message":"used up \\ud83d"}],"success":false}'
    error = error_from_body(body, ReplyHead(status=429, headers={}))
    assert (type(error), error.retryable) == (QuotaExceededError, False)
    reader = StreamReader(HEAD, ASKED)
    reader.feed(b"data: " + body + b"\n\n")
    with pytest.raises(QuotaExceededError) as caught:
        reader.close()
    for told in (error, caught.value):
        assert "used up \ufffd" in str(told)


@pytest.mark.parametrize("form", ['{"error": "%s"}', '{"errors": ["%s"], "success": false}'])
def test_a_code_in_front_of_words_that_come_alone(form: str) -> None:
    error = error_from_body((form % "4006: used up").encode(), ReplyHead(status=429, headers={}))
    assert (type(error), error.code) == (QuotaExceededError, 4006)


def test_a_nested_reply_with_a_half_is_an_error_of_ours() -> None:
    nested = b"[" * 900 + b"]" * 900
    with pytest.raises(ServerError):
        whole(b'{"result":{"response":"\\ud800","x":%s}}' % nested)
    reader = StreamReader(HEAD, ASKED)
    reader.feed(b'data: {"response":"\\ud800","x":%s}\n\n' % nested)
    with pytest.raises(ServerError):
        reader.close()


@pytest.mark.parametrize("text", [b'"x"', b'"\\ud800"'])
def test_a_half_makes_no_difference_to_how_deep_a_value_may_be(text: bytes) -> None:
    assert whole_value_of(b"[" * 200 + text + b"]" * 200)
    with pytest.raises(ValueError, match=r"nested too deep|recursion limit"):
        whole_value_of(b"[" * 201 + text + b"]" * 201)
    emptied = b"[" + text + b"," + b"[" * 200 + b"]" * 200 + b"]"
    assert whole_value_of(emptied)
    with pytest.raises(ValueError, match=r"nested too deep|recursion limit"):
        whole_value_of(b"[" + emptied + b"]")


def test_a_blank_behind_the_end_of_a_stream_is_nothing() -> None:
    reader = StreamReader(HEAD, ASKED)
    reader.feed(b'data: {"response":"Hi"}\n\ndata: [DONE] \n\n')
    assert reader.done


def test_a_pair_that_two_pieces_of_arguments_share_is_one_character() -> None:
    pieces = ['{"a": "\ud83d', '\ude00", "b": "\ud83d"}']
    calls = [
        {"index": 0, "id": "x", "function": {"name": "f"}},
        *({"index": 0, "function": {"arguments": piece}} for piece in pieces),
    ]
    reader = StreamReader(HEAD, ASKED)
    for call in calls:
        reader.feed(f"data: {json.dumps({'tool_calls': [call]})}\n\n".encode())
    reader.feed(DONE)
    completion = reader.close()[-1].completion
    assert completion is not None
    assert [call.arguments for call in completion.tool_calls] == [{"a": "😀", "b": "\ufffd"}]


def test_arguments_of_which_the_model_escaped_a_half() -> None:
    call = call_from_text("x", "f", '{"a": "\\ud83d", "b": "\\ud83d\\ude00"}')
    assert isinstance(call, ToolCall)
    assert call.arguments == {"a": "\ufffd", "b": "😀"}
    assert isinstance(call_from_text("x", "f", '{"a": "\\ud83d", "b": NaN}'), InvalidToolCall)


def test_other_broken_json_stays_broken() -> None:
    for body in (b'{"result": {"response": "\\ud83d"', b'["\\ud83d"' + b"[" * 100_000, b'"\\ud83d\xff"'):
        with pytest.raises(ServerError):
            whole(body)


@given(st.text(st.characters(min_codepoint=0x20), max_size=12), st.data())
def test_a_text_in_code_units_is_the_text(text: str, data: st.DataObject) -> None:
    pieces = [""]
    for unit in units(text):
        if data.draw(st.booleans()):
            pieces.append("")
        pieces[-1] += unit
    assert streamed(*pieces) == text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    halves = Halves()
    assert "".join(map(halves.join, pieces)) + halves.flush() == repaired(text)


@given(
    st.recursive(st.text(max_size=5) | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))
)
def test_sound_json_is_not_touched(value: object) -> None:
    assert value_of(json.dumps(value).encode()) == (value, False)
    assert repaired(value) == value
