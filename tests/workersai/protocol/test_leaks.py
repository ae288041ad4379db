"""A tool call that the model wrote as text: found where its tool was offered, wherever the text is cut."""

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from workersai.protocol.leaks import LeakFilter

NAMES = frozenset({"get_weather", "get_time"})
PARIS = {"name": "get_weather", "parameters": {"location": "Paris {[\"'\\"}}
NOW = {"type": "function", "name": "get_time", "arguments": {}}


def passed(pieces: list[str], names: frozenset[str] = NAMES) -> list[Any]:
    """What a filter passes on, with the texts between two calls joined."""
    leaks = LeakFilter(names)
    joined: list[Any] = []
    for part in [*(part for piece in pieces for part in leaks.feed(piece)), *leaks.flush()]:
        if isinstance(part, str) and joined and isinstance(joined[-1], str):
            joined[-1] += part
        else:
            joined.append(part)
    return joined


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (json.dumps(PARIS), [PARIS]),
        (f"\n {json.dumps(NOW)} \n", [NOW]),
        (f"[{json.dumps(PARIS)}, {json.dumps(NOW)}]", [PARIS, NOW]),
        (f"{json.dumps(PARIS)}; {json.dumps(NOW)};", [PARIS, NOW]),
        (f"{json.dumps(PARIS)}\n{json.dumps(PARIS)}", [PARIS, PARIS]),
        (f"<|python_tag|>{json.dumps(PARIS)}", [PARIS]),
        (f"<|python_tag|> {json.dumps(PARIS)}; <|python_tag|>{json.dumps(NOW)}", [PARIS, NOW]),
        (f"Let me look.<|python_tag|>{json.dumps(PARIS)}", ["Let me look.", PARIS]),
        (f"{json.dumps(PARIS)} Wait for it.", [PARIS, " Wait for it."]),
        ('{"type": "function", "function": {"name": "get_time", "arguments": "{}"}}',
         [{"type": "function", "function": {"name": "get_time", "arguments": "{}"}}]),
        ('{"name": "get_weather", "parameters": {"location": "\\u00e9"}}',
         [{"name": "get_weather", "parameters": {"location": "é"}}]),
        ('{"type": "function", "name": "get_time"}', [{"type": "function", "name": "get_time"}]),
    ],
)  # fmt: skip
def test_a_call_of_an_offered_tool_is_found(text: str, found: list[Any]) -> None:
    assert passed([text]) == passed(list(text)) == found


@pytest.mark.parametrize(
    "text",
    [
        "The weather in Paris is fine.",
        '{"name": "get_stocks", "parameters": {}}',
        '{"name": "get_", "parameters": {}}',
        f"[{json.dumps(PARIS)}, 5]",
        f'[{json.dumps(PARIS)}, {{"name": "get_stocks", "parameters": {{}}}}]',
        f"Say {json.dumps(PARIS)} to ask.",
        f"```json\n{json.dumps(PARIS)}\n```",
        '{"name": "get_weather"}',
        '{"name": "get_weather", "parameters": {}, "why": "to know"}',
        '{"name": ["get_weather"], "parameters": {}}',
        '{"name": "get_weather", "parameters": {"location": Paris}}',
        '{"name": "get_weather", "parameters": {"location": "Par',
        "<|python_tag|>print(1)",
        "<|python_tag|><|python_tag|>",
        "a <|python",
        "; and",
        "[]",
        "[1] see below",
        "{}",
        "{",
        " \n",
        "",
    ],
)
def test_what_is_no_call_stays_text(text: str) -> None:
    assert passed([text]) == passed(list(text)) == ([text] if text else [])


def test_without_tools_nothing_is_a_call() -> None:
    assert passed([json.dumps(PARIS)], frozenset()) == [json.dumps(PARIS)]


@pytest.mark.parametrize(
    ("held", "released"),
    [
        ("", "T"),
        ("\n", "T"),
        ("{", "a"),
        ('{"', "x"),
        ('{"na', "t"),
        ('{"name": "get_', "s"),
        ('{"name": "get_weather", "', "x"),
        ("[ ", "1"),
        ('[{"', "x"),
        ("<|py", "."),
        ("<|python_tag|>", "p"),
        ('{"type": "f', "o"),
        ('{"function": {"name": "get_', "s"),
    ],
)
def test_text_is_held_back_only_while_it_can_become_a_call(held: str, released: str) -> None:
    leaks = LeakFilter(NAMES)
    assert [part for letter in held for part in leaks.feed(letter)] == []
    assert leaks.held == held
    assert "".join(map(str, leaks.feed(released))) == held + released
    assert leaks.held == ""


def test_prose_streams_undelayed() -> None:
    leaks = LeakFilter(NAMES)
    assert [leaks.feed(piece) for piece in ("Hello", " {", '"name"', ": 1}", " [")] == [
        ["Hello"], [" {"], ['"name"'], [": 1}"], [" ["],
    ]  # fmt: skip


def test_a_long_call_is_not_read_again_with_each_piece() -> None:
    # In pieces of a few characters: reading all of it again each time would take long.
    long = json.dumps({"name": "get_weather", "parameters": {"location": "x" * 100_000}})
    assert passed([long[at : at + 8] for at in range(0, len(long), 8)]) == [json.loads(long)]
    odd = json.dumps({"id": "x" * 100_000, "name": "get_weather", "parameters": {}})
    assert passed([odd[at : at + 8] for at in range(0, len(odd), 8)]) == [json.loads(odd)]


fragments = st.sampled_from(
    [json.dumps(PARIS), json.dumps(NOW), "{", "}", "[", "]", '"name"', '"get_weather"', ":", ",", '"parameters"',
     "{}", ";", " ", "\n", "<|python_tag|>", "<|", "\\", '"', "words", "null", "-1", "1e5", "tru", "\\u00e9"]
)  # fmt: skip


@given(st.lists(fragments, max_size=8).map("".join), st.data())
@example('{"name":"get_weather","parameters":-', None)
def test_where_the_text_is_cut_makes_no_difference(text: str, data: st.DataObject | None) -> None:
    cuts = [] if data is None else sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    pieces = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    whole = passed([text])
    assert passed(pieces) == passed(list(text)) == whole
    if all(isinstance(part, str) for part in whole):
        assert "".join(whole) == text, "nothing is lost"
