"""A tool call that the model wrote as text: found where its tool was offered, wherever the text is cut."""

import json
from typing import Any

import pydantic_core
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.counting import CopyCounter, operations
from workersai.protocol.leaks import LeakFilter

NAMES = frozenset({"get_weather", "get_time"})
PARAMETERS = {"get_weather": ("city", "unit"), "get_time": ()}
PARIS = {"name": "get_weather", "parameters": {"location": "Paris {[\"'\\"}}
NOW = {"type": "function", "name": "get_time", "arguments": {}}
BARE_NOW = {"name": "get_time", "arguments": {}}
TIMED = {"name": "get_time", "parameters": {"a": [1, -2500.0, True]}}


def passed(pieces: list[str], names: frozenset[str] = NAMES) -> tuple[str, list[Any]]:
    """The text that a filter passes on, and the calls that it finds."""
    leaks = LeakFilter(names, {name: PARAMETERS[name] for name in names})
    text = "".join(map(leaks.feed, pieces)) + leaks.flush()
    _, calls = leaks.take(as_text=False)
    return text, [{key: value for key, value in call.items() if key not in ("id", "type")} for call in calls]


@pytest.mark.parametrize(
    ("text", "found", "left"),
    [
        (json.dumps(PARIS), [PARIS], ""),
        (f"\n {json.dumps(NOW)} \n", [BARE_NOW], ""),
        (f"[{json.dumps(PARIS)}, {json.dumps(NOW)}]", [PARIS, BARE_NOW], ""),
        (f"{json.dumps(PARIS)}; {json.dumps(NOW)};", [PARIS, BARE_NOW], ""),
        (f"{json.dumps(PARIS)}\n{json.dumps(PARIS)}", [PARIS, PARIS], ""),
        (f"<|python_tag|>{json.dumps(PARIS)}", [PARIS], ""),
        (f"<|python_tag|> {json.dumps(PARIS)}; <|python_tag|>{json.dumps(NOW)}", [PARIS, BARE_NOW], ""),
        (f"Let me look.<|python_tag|>{json.dumps(PARIS)}", [PARIS], "Let me look."),
        (f"{json.dumps(PARIS)} Wait for it.", [PARIS], " Wait for it."),
        (
            '{"type": "function", "function": {"name": "get_time", "arguments": "{}"}}',
            [{"name": "get_time", "arguments": "{}"}],
            "",
        ),
        (
            '{"name": "get_time", "parameters": {"at": "\\u00e9"}}',
            [{"name": "get_time", "parameters": {"at": "é"}}],
            "",
        ),
        ('{"type": "function", "name": "get_time"}', [{"name": "get_time"}], ""),
        ('{"arguments": "a,", "name": "get_time"}', [{"name": "get_time", "arguments": "a,"}], ""),
        ('{ "name" : "get_time" , "parameters" : { "a" : [ 1 , -2.5e3 , true ] } }', [TIMED], ""),
        ('{"id": 7, "name": "get_time", "parameters": {}}', [{"name": "get_time", "parameters": {}}], ""),
        ('{"n\\u0061me": "get_time", "parameters": {}}', [{"name": "get_time", "parameters": {}}], ""),
    ],
)
def test_a_call_of_an_offered_tool_is_found(text: str, found: list[Any], left: str) -> None:
    assert passed([text]) == passed(list(text)) == (left, found)


def test_where_the_service_reads_the_calls_itself_the_text_is_given_back() -> None:
    leaks = LeakFilter(NAMES)
    assert leaks.feed(json.dumps(PARIS)) + leaks.flush() == ""
    assert leaks.take(as_text=True) == (json.dumps(PARIS), [])


@pytest.mark.parametrize(
    "text",
    [
        "The weather in Paris is fine.",
        '{"name": "get_stocks", "parameters": {}}',
        '{"name": "get_", "parameters": {}}',
        f"[{json.dumps(PARIS)}, 5]",
        f'[{json.dumps(PARIS)}, {{"name": "get_stocks", "parameters": {{}}}}]',
        f"Say {json.dumps(PARIS)} to ask.",
        '{"name": "get_weather"}',
        '{"name": "get_weather", "parameters": {}, "why": "to know"}',
        '{"name": ["get_weather"], "parameters": {}}',
        '{"type": "tool", "name": "get_time", "parameters": {}}',
        '{"type": null, "name": "get_time", "parameters": {}}',
        '{"name": "x", "function": {"name": "get_time", "parameters": {}}}',
        '{"function": 5, "name": "get_time", "parameters": {}}',
        '{"name": "get_weather", "parameters": {"location": Paris}}',
        '{"name": "get_stocks", "name": "get_time", "parameters": {}}',
        '{"n\\u0061me": "get_time", "name": "get_time", "parameters": {}}',
        '{"function": {"name": "get_time", "function": {"name": "get_time", "arguments": {}}}}',
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
    assert passed([text]) == passed(list(text)) == (text, [])


def test_without_tools_nothing_is_a_call() -> None:
    assert passed([json.dumps(PARIS)], frozenset()) == (json.dumps(PARIS), [])


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
        ('{"name": "get_weather", "parameters": {"a": ', "c"),
        (" " * 500, "  "),
    ],
)
def test_text_is_held_back_only_while_it_can_become_a_call(held: str, released: str) -> None:
    leaks = LeakFilter(NAMES)
    assert "".join(map(leaks.feed, held)) == ""
    assert leaks.held == held
    assert leaks.feed(released) == held + released
    assert leaks.held == ""


def test_prose_streams_undelayed() -> None:
    leaks = LeakFilter(NAMES)
    pieces = ["Hello", " you.", " 5 > 4", " a_b(c)", "]}", "\n"]
    assert [leaks.feed(piece) for piece in pieces] == pieces


def test_prose_with_a_bracket_waits_for_no_more_than_the_next_token() -> None:
    leaks = LeakFilter(NAMES)
    pieces = ["a {", "x", " [", "1]", ' {"na', 'me"', ": 1}", " `", "c` <", "b>"]
    shown = ["a ", "{x", " ", "[1]", " ", "", '{"name": 1}', " ", "`c` ", "<b>"]
    assert [leaks.feed(piece) for piece in pieces] == shown


@pytest.mark.parametrize("first", ['"name": "get_weather", "parameters"', '"id"'])
def test_a_long_call_is_not_read_again_with_each_piece(first: str, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []

    def from_json(text: str, **options: Any) -> Any:
        read.append(len(text))
        return pydantic_core.from_json(text, **options)

    monkeypatch.setattr("workersai.protocol.call_elements.from_json", from_json)
    long = f'{{{first}: "{"x" * 100_000}"'
    assert passed([long[at : at + 8] for at in range(0, len(long), 8)]) == (long, [])
    assert sum(read) < 5 * len(long)


keys = st.sampled_from(["type", "id", "name", "parameters", "arguments", "function", "other"])
values = st.sampled_from(["function", "get_weather", "get_time", "get_", "a,", "{", None, 5, {}, {"a": "b,"}, "{}"])
objects = st.dictionaries(keys, st.one_of(values, st.dictionaries(keys, values, max_size=3)), max_size=4)
calls = st.one_of(objects, st.lists(objects, max_size=2)).map(json.dumps)
fragments = st.sampled_from(
    ["{", "}", "[", "]", '"name"', '"get_weather"', ":", ",", '"parameters"', "{}", ";", " ", "\n", "<|python_tag|>",
     "<|", "\\", '"', "words", "null", "-1", "1e5", "tru", "\\u00e9", json.dumps(PARIS), json.dumps(NOW),
     '{"name":"get_time","parameters":{"a":"', '"}}', "x" * 1_500, "\x01", '"name":"get_time",', "\n" * 501,
     "```", "`", "json", "```json\n", "\n```\n", "<function=", "get_time", ">", "</function>", "</fun",
     "[get_time(", "a=",
     "'b'", ")]", ")", "True", '{"name":"get_weather","city":"Tokyo"}', '"city"', "<function=get_time>{}</function>",
     "[get_time(a='[')]", "Now ", "1.", "\\u00", "\\x4", "<", "[", "] to", "\n}", "\n "]
)  # fmt: skip


LONG = {
    "strings": json.dumps({"name": "get_time", "parameters": {"a": ["ab"] * 50}}),
    "one string": json.dumps({"name": "get_time", "parameters": {"a": "ab " * 50}}),
    "escapes": json.dumps({"name": "get_time", "parameters": {"a": "\n" * 50}}),
    "numbers": json.dumps({"name": "get_time", "parameters": {"a": [1, None, 2.5] * 50}}),
    "a long number": json.dumps({"name": "get_time", "parameters": {"a": 0}}).replace("0", "1" * 400),
    "deep": json.dumps({"name": "get_time", "parameters": {"a": 0}}).replace("0", "[" * 50),
    "many calls": "; ".join([json.dumps(PARIS)] * 50),
    "a list of calls": json.dumps([NOW] * 50),
    "tags": "<|python_tag|>" * 50,
    "tags and words": "a <|python_tag|>x" * 50,
    "tags in strings": '<|python_tag|>{"name":"get_time","parameters":{"a":"' * 50,
    "tags in keys": '<|python_tag|>{"name' * 50,
    "tags behind blanks": (" " * 400 + "<|python_tag|>") * 50,
    "lists": "<|python_tag|>[" * 50,
    "objects that are no calls": '<|python_tag|>{"name":"get_time"}' * 50,
    "calls of others": '<|python_tag|>{"name":"get_stocks","parameters":{"a":[' * 50,
    "blanks": " " * 2_000,
    "fences": f"```json\n{json.dumps(PARIS)}\n```\n" * 50,
    "fences of something else": "```python\nprint({'a': [1]})\n```\n" * 50,
    "fences that hold more than a call": f"```json\n{json.dumps(NOW)}\nor```" * 50,
    "beginnings of fences": "```json\n{" * 50,
    "backticks": "`a` ``b`` ````" * 50,
    "functions": '<function=get_time>{"a":[1]}</function>' * 50,
    "functions without an end": '<function=get_time>{"a":"' * 50,
    "functions of others": "<function=get_stocks>{}</function>" * 50,
    "beginnings of functions": "<function=get_<function=" * 50,
    "python": "[get_time(a='b', c=[1, 2.5, {'d': None}]), get_weather()]\n" * 50,
    "one python string": "[get_time(a='" + "\\n ab" * 50 + "')]",
    "one python list": "[get_time(a=[" + "1, True, " * 50 + "])]",
    "deep python": "[get_time(a=" + "[" * 50,
    "beginnings of python": "[get_time(a='[get_time(a=" * 50,
    "calls behind words": f"Now {json.dumps(PARIS)}\n" * 50,
    "calls between words": f"Now {json.dumps(PARIS)} or " * 50,
    "flat calls": '{"name":"get_weather","city":"Paris"}; ' * 50,
    "flat calls in one another": '{"city":' * 50,
    "flat calls in strings": '{"city":"{' * 50,
    "braces": "{" * 100,
    "braces and quotes": '{"' * 50,
    "a brace, a quote and brackets": '{"' + "[<{" * 40,
    "prose with brackets": "a [link](b) and {c} if d < e, `f`. " * 5,
}


def longer(name: str, factor: int) -> str:
    """The text of that name, so many times as long: all of it, or what is within the one call."""
    text = LONG[name]
    if name in (
        "one python string",
        "one python list",
        "one string",
        "escapes",
        "strings",
        "numbers",
        "a long number",
        "deep",
        "a list of calls",
    ):
        begin, end = len(text) // 4, 3 * len(text) // 4
        return text[:begin] + text[begin:end] * factor + text[end:]
    return text * factor


@pytest.mark.parametrize("cut", [None, 7], ids=["whole", "in pieces"])
@pytest.mark.parametrize("name", LONG)
def test_a_text_is_read_in_a_time_in_proportion_to_it(
    name: str, cut: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[int] = []

    def from_json(text: str, **options: Any) -> Any:
        decoded.append(len(text))
        return pydantic_core.from_json(text, **options)

    monkeypatch.setattr("workersai.protocol.call_elements.from_json", from_json)

    def cost(factor: int) -> tuple[int, int]:
        text = longer(name, factor)
        pieces = [text] if cut is None else [text[at : at + cut] for at in range(0, len(text), cut)]
        decoded.clear()
        return operations(lambda: passed(pieces)), sum(decoded)

    small, large = cost(8), cost(64)
    assert large[0] <= 8 * 1.6 * small[0]
    assert large[1] <= 8 * 1.6 * small[1] + 4 * 64 * len(LONG[name])


@pytest.mark.parametrize("name", LONG)
def test_a_text_is_copied_in_proportion_to_it(name: str) -> None:
    def copied(factor: int) -> int:
        CopyCounter.copied = 0
        passed([CopyCounter(longer(name, factor))])
        return CopyCounter.copied

    assert copied(64) <= 8 * 1.6 * copied(8)


def test_where_a_long_text_is_cut_makes_no_difference() -> None:
    for text in LONG.values():
        assert passed([text[at : at + 5] for at in range(0, len(text), 5)]) == passed([text]) == passed(list(text))


@settings(max_examples=400)
@given(st.lists(st.one_of(fragments, calls), max_size=8).map("".join), st.data())
@example('{"name":"get_weather","parameters":-', None)
def test_where_the_text_is_cut_makes_no_difference(text: str, data: st.DataObject | None) -> None:
    cuts = [] if data is None else sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    pieces = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    whole = passed([text])
    assert passed(pieces) == passed(list(text)) == whole
    if not whole[1]:
        assert whole[0] == text, "nothing is lost"
