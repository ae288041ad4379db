"""The window: what fits is sent with room for the answer, what does not is refused or trimmed before a request."""

import logging
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llama_models.llama3.tokenizer import Tokenizer

from tests.counting import operations
from tests.support import Driver, Serve, connection
from workersai import Client, InvalidToolCall, Message, ToolCall, Trimmed, count_tokens, tokens
from workersai.errors import BadRequestError, ContextWindowExceededError
from workersai.local import Refusal
from workersai.options import CallOptions
from workersai.protocol.history import checked_history
from workersai.protocol.request import InputBody, input_body, messages_to_wire
from workersai.protocol.tools import Offer
from workersai.protocol.turns import turns_of
from workersai.window import Fitted, fitted

ENCODING = Tokenizer.get_instance()
WINDOW = 24_000
OVERFLOW = (
    "The estimated number of input and maximum output tokens (35000) exceeded this model context window limit (24000)"
)


def text_of(length: int) -> str:
    """A text of so many tokens."""
    text = " a" * length
    assert count_tokens(text.strip()) == length
    return text.strip()


def prompt_of(length: int) -> str:
    """A text that becomes a prompt of so many tokens."""
    return text_of(length - count_tokens([Message("user", "")]))


def chat_of(*lengths: int, system: str = "Be brief.") -> list[Message]:
    """A chat whose turns, a question and an answer each, have so many tokens of text."""
    turns = [(Message("user", text_of(length // 2)), Message("assistant", text_of(length // 2))) for length in lengths]
    return [Message("system", system), *(message for turn in turns for message in turn), Message("user", "And now?")]


@pytest.fixture
def _estimated(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(sys.modules, "llama_models", None)

    def clear() -> None:
        tokens._counted.clear()
        tokens.counts_exactly.cache_clear()

    clear()
    yield
    clear()


# Room for the answer


@pytest.mark.parametrize(("prompt", "room"), [(100, 4_096), (19_904, 4_096), (20_000, 4_000), (23_999, 1)])
def test_without_max_tokens_the_answer_gets_what_is_left(driver: Driver, serve: Serve, prompt: int, room: int) -> None:
    server = serve("ok")
    driver.run(connection(server), prompt_of(prompt))
    driver.stream(connection(server), [Message("user", prompt_of(prompt))])
    assert [record.body["max_tokens"] for record in server.requests] == [room, room]


def test_the_most_of_it_is_a_setting(driver: Driver, serve: Serve) -> None:
    server = serve("ok")
    driver.run({**connection(server), "default_max_tokens": 900}, "hi")
    driver.run({**connection(server), "default_max_tokens": 900}, "hi", default_max_tokens=7)
    driver.run({**connection(server), "default_max_tokens": 900}, "hi", max_tokens=9_000)
    assert [record.body["max_tokens"] for record in server.requests] == [900, 7, 9_000]
    with pytest.raises(BadRequestError, match="default_max_tokens: must be at least 1"):
        driver.run(connection(server), "hi", default_max_tokens=0)


def test_a_model_that_is_not_listed_is_held_to_no_window(driver: Driver, serve: Serve) -> None:
    server = serve("ok")
    other: Any = {"model": "@cf/other/model", "max_retries": 0}
    with pytest.raises(Exception, match="No such model"):
        driver.run(connection(server), prompt_of(30_000), **other)
    assert "max_tokens" not in server.requests[0].body
    with pytest.raises(BadRequestError, match="window of @cf/other/model is not known"):
        driver.run(connection(server), "hi", on_overflow="trim", **other)


# Overflow


def test_an_overflow_is_refused_before_a_request_with_the_counts(driver: Driver, serve: Serve) -> None:
    server = serve("never")
    chat = [Message("system", "Be brief."), Message("user", text_of(20_000)), Message("assistant", "Well.")]
    messages = [*chat, Message("user", text_of(3_000))]
    for call in (driver.run, driver.stream):
        with pytest.raises(ContextWindowExceededError) as caught:
            call(connection(server), messages, max_tokens=2_000)
        error = caught.value
        assert (error.prompt_tokens, error.max_tokens, error.context_window) == (count_tokens(messages), 2_000, WINDOW)
        for told in (
            f"{error.prompt_tokens:,} tokens",
            "take 2,000",
            "24,000",
            "messages[1] (user), with 20,005 tokens",
        ):
            assert told in str(error)
        assert "on_overflow='trim'" in str(error)
    assert not server.requests
    with pytest.raises(ContextWindowExceededError, match="leaves no room") as caught:
        driver.run(connection(server), prompt_of(WINDOW))
    assert "trim" not in str(caught.value), "a single text has no turns to leave out"


def test_the_limit_is_exact(driver: Driver, serve: Serve) -> None:
    server = serve(lambda _: "ok")
    driver.run(connection(server), prompt_of(23_000), max_tokens=1_000)
    with pytest.raises(ContextWindowExceededError):
        driver.run(connection(server), prompt_of(23_001), max_tokens=1_000)
    assert len(server.requests) == 1


def test_tools_count_and_are_named_where_they_are_what_is_large(driver: Driver, serve: Serve) -> None:
    schema = {"type": "object", "properties": {f"p{n}": {"type": "string", "description": "x"} for n in range(1_100)}}
    tool = {"name": "wide", "description": "Wide.", "parameters": schema}
    with pytest.raises(ContextWindowExceededError, match=r"definitions of the tools are \d\d,\d{3} of them"):
        driver.run(connection(serve("never")), "hi", tools=[tool], max_tokens=2_000)


def test_a_raw_prompt_is_counted_as_it_is(driver: Driver, serve: Serve) -> None:
    server = serve("ok")
    markup = "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nhi<|eot_id|>"
    driver.run(connection(server), f"{markup}{text_of(20_990)}", raw=True)
    own = 1 + 4 + count_tokens("user") + count_tokens("\n\nhi")
    assert server.requests[0].body["max_tokens"] == WINDOW - own - 20_990
    driver.run(connection(server), f"{markup}{text_of(20_990)}", prompt_form="completion")
    assert server.requests[1].body["max_tokens"] == WINDOW - own - 20_990
    with pytest.raises(ContextWindowExceededError):
        driver.run(connection(server), "x" + "\t" * 400_000, raw=True)  # which the template would strip


def test_an_overflow_of_one_message_does_not_name_it(driver: Driver, serve: Serve) -> None:
    with pytest.raises(ContextWindowExceededError, match=r"which is 24,000\. Shorten it"):
        driver.run(connection(serve("never")), text_of(30_000))


def test_send_lets_the_service_decide_and_its_refusal_is_the_same_error(driver: Driver, serve: Serve) -> None:
    server = serve("never")
    for options in ({}, {"max_tokens": 4_000}):
        with pytest.raises(ContextWindowExceededError, match=r"exceeded this model context window limit .*5021"):
            driver.run(connection(server), prompt_of(24_500), on_overflow="send", **options)
    assert ["max_tokens" in record.body for record in server.requests] == [False, True]


def test_an_unknown_way_is_refused(driver: Driver, serve: Serve) -> None:
    with pytest.raises(BadRequestError, match=r"on_overflow: .*'error', 'trim' or 'send'"):
        driver.run(connection(serve("never")), "hi", on_overflow="cut")


# Trimming


def test_trimming_leaves_out_the_oldest_turns_and_says_so(
    driver: Driver, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    server = serve(lambda _: "ok")
    chat = chat_of(8_000, 8_000, 8_000, 4_000)
    with caplog.at_level(logging.INFO, logger="workersai"):
        whole = driver.run(connection(server), chat, on_overflow="trim")
    streamed = driver.stream(connection(server), chat, on_overflow="trim")[-1].completion
    left_out = Trimmed(messages=(1, 2, 3, 4), tokens=16_000 + 4 * 5)
    assert whole.trimmed == left_out
    assert streamed is not None
    assert streamed.trimmed == left_out
    kept = [chat[0], *chat[5:]]
    for record in server.requests:
        assert record.body["messages"] == messages_to_wire(kept)
        assert record.body["max_tokens"] == 4_096
    assert "Left out 4 messages (16020 tokens)" in caplog.text


def test_what_fits_is_not_trimmed(driver: Driver, serve: Serve) -> None:
    server = serve("ok")
    chat = chat_of(8_000, 8_000)
    assert driver.run(connection(server), chat, on_overflow="trim").trimmed is None
    assert server.requests[0].body["messages"] == messages_to_wire(chat)


def test_where_the_rest_does_not_fit_it_is_the_error(driver: Driver, serve: Serve) -> None:
    server = serve("never")
    chat = [*chat_of(5_000), Message("assistant", "?"), Message("user", text_of(24_000))]
    with pytest.raises(ContextWindowExceededError, match=r"(?s)Without 4 older messages.*messages\[5\]") as caught:
        driver.run(connection(server), chat, on_overflow="trim")
    assert "on_overflow" not in str(caught.value)
    with pytest.raises(ContextWindowExceededError):
        driver.run(connection(server), prompt_of(25_000), on_overflow="trim")
    assert not server.requests


def test_the_last_turn_may_take_the_room_that_an_answer_would_like(driver: Driver, serve: Serve) -> None:
    server = serve("ok")
    chat = [Message("user", text_of(900)), Message("assistant", "Yes."), Message("user", prompt_of(22_000))]
    assert driver.run(connection(server), chat, on_overflow="trim").trimmed == Trimmed((0, 1), 912)
    assert server.requests[0].body["max_tokens"] == 2_000


@pytest.mark.usefixtures("_estimated")
def test_with_estimates_only_what_surely_does_not_fit_is_refused(driver: Driver, serve: Serve) -> None:
    server = serve(lambda _: Refusal(5021, f"AiError: {OVERFLOW}", 413))
    may_fit = "Donaudampfschifffahrtsgesellschaft " * 3_000
    with pytest.raises(ContextWindowExceededError, match="35000"):
        driver.run(connection(server), may_fit)
    assert server.requests[0].body["max_tokens"] == 256, "what the service takes where nothing is asked for"
    with pytest.raises(ContextWindowExceededError, match="at least 30,0"):
        driver.run(connection(server), "walking " * 30_000)
    assert len(server.requests) == 1


@pytest.mark.usefixtures("_estimated")
def test_with_estimates_only_trimming_goes_by_the_upper_bound(driver: Driver, serve: Serve) -> None:
    server = serve("ok")
    word = "Donaudampfschifffahrtsgesellschaft "
    chat = [Message("user", word * 1_000), Message("assistant", "?"), Message("user", word * 900)]
    assert driver.run(connection(server), chat, on_overflow="trim").trimmed is not None
    assert len(server.requests[0].body["messages"]) == 1


SWAHILI = "Watu wote wamezaliwa huru, hadhi na haki zao ni sawa. "
KINDS = {
    "English": "It was the best of times, ",
    "Swahili": SWAHILI,
    "rare letters": "xkq zvtp ",
    "Chinese": "工智 ",
    "emoji": "😀",
    "hex": "f3a9",
}


def exactly(text: str) -> int:
    return len(ENCODING.encode(text, bos=False, eos=False, disallowed_special=()))


@pytest.mark.usefixtures("_estimated")
@pytest.mark.parametrize("kind", KINDS)
def test_with_estimates_only_nothing_that_fits_is_refused(driver: Driver, serve: Serve, kind: str) -> None:
    server = serve("ok")
    part = KINDS[kind]
    prompt = part * (23_500 * 100 // exactly(part * 100))
    assert 20_000 < exactly(prompt) + 100 < WINDOW - 40, "it fits, but hardly"
    driver.run(connection(server), prompt, max_tokens=100)
    assert len(server.requests) == 1


@pytest.mark.usefixtures("_estimated")
@pytest.mark.parametrize("kind", KINDS)
def test_with_estimates_only_what_trimming_leaves_surely_fits(driver: Driver, serve: Serve, kind: str) -> None:
    server = serve("ok")
    turn = KINDS[kind] * (1_000 * 100 // exactly(KINDS[kind] * 100))
    chat = [Message(role, f"{number}: {turn}") for number in range(20) for role in ("user", "assistant")]
    trimmed = driver.run(connection(server), [*chat, Message("user", "And?")], on_overflow="trim").trimmed
    assert trimmed is not None
    body = server.requests[0].body
    assert sum(exactly(message["content"]) + 5 for message in body["messages"]) + 30 + body["max_tokens"] <= WINDOW
    assert body["max_tokens"] == 4_096
    assert len(body["messages"]) > 3, "not all of the history is left out"


def test_results_without_ids_stay_with_the_calls_before_them(driver: Driver, serve: Serve) -> None:
    server = serve("ok")
    call, result = Message("assistant", "", tool_calls=[ToolCall("", "f", {})]), Message("tool", "done")
    chat = [
        *(Message("user", text_of(9_000)), call, result, Message("assistant", "Done.")),
        *(Message("user", text_of(9_000)), call, result, Message("user", text_of(9_000))),
    ]
    assert driver.run(connection(server), chat, on_overflow="trim").trimmed == Trimmed((0, 1, 2, 3), 9_035)
    assert [message["role"] for message in server.requests[0].body["messages"]] == ["user", "assistant", "tool", "user"]


# Of any conversation

CALL_IDS = st.sampled_from(["c1", "c2", "c3"])


@st.composite
def conversations(draw: st.DrawFn) -> list[Message]:
    """What a history may be: system messages anywhere, calls with their results behind them, now or later."""
    messages: list[Message] = []
    called: list[str] = []
    for size in draw(st.lists(st.integers(1, 3_000), min_size=1, max_size=12)):
        kinds = ["system", "user", "assistant", "call", *(["tool"] if called else [])]
        kind: Any = draw(st.sampled_from(kinds))
        text = text_of(size)
        if kind == "call":
            called.append(draw(CALL_IDS))
            broken = draw(st.booleans())
            messages.append(
                Message("assistant", text, invalid_tool_calls=[InvalidToolCall(called[-1], "f", "{", "broken")])
                if broken
                else Message("assistant", text, tool_calls=[ToolCall(called[-1], "f", {})])
            )
        elif kind == "tool":
            messages.append(Message("tool", text, tool_call_id=draw(st.sampled_from(called))))
        else:
            messages.append(Message(kind, text))
    return messages


def outcome(body: InputBody, options: CallOptions) -> Fitted | ContextWindowExceededError:
    try:
        return fitted(body, [], options)
    except ContextWindowExceededError as error:
        return error


@given(conversations(), st.integers(1, 22_000) | st.none())
def test_trimming_keeps_what_it_must_and_the_budget(messages: list[Message], max_tokens: int | None) -> None:
    options = CallOptions(on_overflow="trim", max_tokens=max_tokens)
    body = input_body(messages, options, Offer())
    fit = outcome(body, options)
    if isinstance(fit, ContextWindowExceededError):
        turn = turns_of(messages)[-1] if turns_of(messages) else []
        kept = [message for index, message in enumerate(messages) if index in turn or message.role == "system"]
        assert fit.prompt_tokens == count_tokens(kept), "nothing more could go"
        assert fit.prompt_tokens + (max_tokens or 1) > WINDOW
        return
    left_out = fit.trimmed.messages if fit.trimmed else ()
    kept = [message for index, message in enumerate(messages) if index not in left_out]
    assert fit.body["messages"] == input_body(kept, options, Offer()).wire["messages"]
    assert fit.max_tokens is not None
    assert count_tokens(kept) + fit.max_tokens <= WINDOW
    assert fit.max_tokens == (max_tokens or fit.max_tokens)
    assert [message for message in kept if message.role == "system"] == [
        message for message in messages if message.role == "system"
    ]
    users = [index for index, message in enumerate(messages) if message.role == "user"]
    assert not users or users[-1] not in left_out
    list(checked_history(kept))  # raises where a result has lost its call
    answered = {message.tool_call_id for message in kept if message.role == "tool"}
    assert not any(messages[index].tool_call_id in answered for index in left_out if messages[index].role == "tool")
    again = fitted(input_body(kept, options, Offer()), [], options)
    assert (again.body, again.trimmed) == (fit.body, None), "trimming what was trimmed changes nothing"


@given(conversations())
def test_turns_hold_each_message_once_and_begin_with_the_user(messages: list[Message]) -> None:
    turns = turns_of(messages)
    assert sorted(index for turn in turns for index in turn) == [
        index for index, message in enumerate(messages) if message.role != "system"
    ]
    assert all(messages[turn[0]].role == "user" for turn in turns[1:])
    calls: dict[str, int] = {}
    for number, turn in enumerate(turns):
        for index in turn:
            calls |= {call.id: number for call in messages[index].tool_calls}
            calls |= {call.id: number for call in messages[index].invalid_tool_calls}
            answered = messages[index].tool_call_id
            assert answered is None or calls[answered] == number


def test_a_bad_option_fails_where_the_client_is_made() -> None:
    wrong: Any = "none"
    with pytest.raises(BadRequestError, match="on_overflow"):
        Client(account_id="a", api_token="t", on_overflow=wrong)


@pytest.mark.parametrize("call_id", ["named", ""])
def test_finding_the_turns_takes_a_time_in_proportion_to_the_conversation(call_id: str) -> None:
    def cost(size: int) -> int:
        messages: list[Message] = []
        for number in range(size):
            own = call_id and f"{call_id} {number}"
            messages += [
                Message("user", "hi"),
                Message("assistant", "", tool_calls=[ToolCall(own, "f", {})]),
                Message("user", "and?"),
                Message("tool", "5", tool_call_id=own),
            ]
        found: list[list[list[int]]] = []
        counted = operations(lambda: found.append(turns_of(messages)))
        assert len(found[0]) == size, "a call and its result are in one turn"
        return counted

    assert cost(800) <= 8 * 1.6 * cost(100)
