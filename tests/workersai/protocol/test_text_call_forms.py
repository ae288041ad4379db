"""The forms in which a model writes a tool call as text, what stays text, and how little is held back."""

import ast
import json
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from workersai.protocol.leaks import LeakFilter
from workersai.protocol.reply import Asked, ReplyHead, completion_from_body
from workersai.protocol.stream import StreamReader
from workersai.protocol.tools import offer_of
from workersai.protocol.values import Tool

PARAMETERS = {"get_weather": ("city", "unit", "days"), "get_time": (), "run": ("arguments", "id", "dir")}
PARIS: tuple[str, Any] = ("get_weather", {"city": "Paris"})
NOW: tuple[str, Any] = ("get_time", {})
CALL = json.dumps({"name": "get_weather", "parameters": {"city": "Paris"}})


def read(pieces: list[str]) -> tuple[str, list[tuple[str, Any]]]:
    """The text that a filter passes on, and the names and arguments of the calls that it finds."""
    leaks = LeakFilter(frozenset(PARAMETERS), PARAMETERS)
    text = "".join(map(leaks.feed, pieces)) + leaks.flush()
    _, calls = leaks.take(as_text=False)
    return text, [(call["name"], call.get("arguments", call.get("parameters"))) for call in calls]


CALLS = {
    f"```json\n{CALL}\n```": ([PARIS], ""),
    f"```\n{CALL}\n```\n": ([PARIS], ""),
    f"```tool_call\n{CALL}\n{CALL}\n```": ([PARIS, PARIS], ""),
    f"```json\n[{CALL}, {CALL}]\n```": ([PARIS, PARIS], ""),
    f"```json\n{CALL}": ([PARIS], ""),
    f"```json\n{CALL}\n``": ([PARIS], ""),
    f"```{CALL}```": ([PARIS], ""),
    f"I'll look.\n```json\n{CALL}\n```\nWait.": ([PARIS], "I'll look.\n\nWait."),
    f"```json\n{CALL}\n```\n```json\n{CALL}\n```": ([PARIS, PARIS], ""),
    f"{CALL}\n```json\n{CALL}\n```": ([PARIS, PARIS], ""),
    '```python\n[get_weather(city="Paris")]\n```': ([PARIS], ""),
    '<function=get_weather>{"city": "Paris"}</function>': ([PARIS], ""),
    '<function=get_weather>\n{"city": "Paris"}\n</function>\n': ([PARIS], ""),
    '<function=get_weather>{"city": "Paris"}': ([PARIS], ""),
    '<function=get_weather>{"city": "Paris"}</func': ([PARIS], ""),
    '<function=get_weather>{"city": "Paris"}<function=get_time>{}</function>': ([PARIS, NOW], ""),
    '<function=get_weather>{"city": "Paris"}</function> Wait.': ([PARIS], " Wait."),
    'I look. <function=get_weather>{"city": "Paris"}</function>': ([PARIS], "I look. "),
    '<|python_tag|><function=get_weather>{"city": "Paris"}</function>': ([PARIS], ""),
    '```\n<function=get_weather>{"city": "Paris"}</function>\n```': ([PARIS], ""),
    '[get_weather(city="Paris")]': ([PARIS], ""),
    "[ get_weather ( city = 'Paris' , ) , get_time() ]\n": ([PARIS, NOW], ""),
    '<|python_tag|>[get_weather(city="Paris")]': ([PARIS], ""),
    'I look: [get_weather(city="Paris")]': ([PARIS], "I look: "),
    '[get_weather(city="v", n=3, flag=True, other=None, xs=[1,2,], d={"a": 1}, t=(1,), p=(2), f=-.5e1)]': (
        [
            (
                "get_weather",
                {"city": "v", "n": 3, "flag": True, "other": None, "xs": [1, 2], "d": {"a": 1}, "t": [1], "p": 2}
                | {"f": -5.0},
            )
        ],
        "",
    ),
    f"Let me look. {CALL}": ([PARIS], "Let me look. "),
    f"Let me look:\n\n{CALL}\n\nI'll tell you then.": ([PARIS], "Let me look:\n\n\n\nI'll tell you then."),
    f"Let me look. {CALL}; {CALL}": ([PARIS, PARIS], "Let me look. "),
    f"Let me look. [{CALL}]": ([PARIS], "Let me look. "),
    f"Use {{braces}} or [1]. {CALL}": ([PARIS], "Use {braces} or [1]. "),
    f"{{ {CALL}": ([PARIS], "{ "),
    f"```python\nprint({{}})\n```\n{CALL}": ([PARIS], "```python\nprint({})\n```\n"),
    f"The `code` is ``this``. {CALL}": ([PARIS], "The `code` is ``this``. "),
    '{"name":"get_weather","city":"Paris"}': ([PARIS], ""),
    '{"city":"Paris","name":"get_weather"}': ([PARIS], ""),
    '{"type":"function","name":"get_weather","city":"Paris"}': ([PARIS], ""),
    '[{"name":"get_weather","city":"Paris"},{"name":"get_time","arguments":{}}]': ([PARIS, NOW], ""),
    'So: {"name":"get_weather","city":"Paris"}': ([PARIS], "So: "),
    '```json\n{"name":"get_weather","city":"Paris"}\n```': ([PARIS], ""),
    '{"name":"run","id":7,"dir":"x","arguments":"ls"}': ([("run", {"id": 7, "dir": "x", "arguments": "ls"})], ""),
}


@pytest.mark.parametrize("text", CALLS)
def test_each_form_of_a_call_is_read(text: str) -> None:
    calls, left = CALLS[text]
    assert read([text]) == read(list(text)) == (left, calls)


TEXTS = [
    f"Say {CALL} to ask.",
    f"Say `{CALL}`",
    f"Say `{CALL}` to ask.",
    f"Say {CALL}; {CALL} to ask.",
    f"Say {CALL}.",
    f"print({CALL})",
    f'{{"calls": [\n{CALL}\n]}}',
    f'[{{"name": "get_stocks", "parameters": {{}}}},\n{CALL}\n]',
    f"```json\n{CALL}\n// or so\n```",
    f"```python\nprint(1)\n{CALL}\n```",
    f"```json\n{CALL}\n```, for example",
    f"Write ```{CALL}``` to ask.",
    f"````json\n{CALL}\n````",
    f"``````json\n{CALL}\n``````",
    "`" * 50,
    f"```python\nlong_{'x' * 30}\n{CALL}\n```",
    f"```a language of words\n{CALL}\n```",
    "```\n```",
    "``` ",
    f"```{'x' * 21}\n{CALL}\n```",
    '```json\n{"name": "get_stocks", "parameters": {}}\n```',
    '<function=get_stocks>{"city": "Paris"}</function>',
    "<function=get_weather>Paris</function>",
    "<function=get_weather>[]</function>",
    '<function=get_weather>{"city": "Par',
    "<function=get_weather>",
    '<function=get_weather>{"city": "Paris"} or so',
    "<function=get_weather>{}</b>",
    "<functions>",
    "[get_stocks(a=1)]",
    '[get_weather("Paris")]',
    "[get_weather(city=Paris)]",
    "[get_weather(city='Paris', city='Rome')]",
    "[get_weather(city=open('x'))]",
    "[get_weather(city='a' + 'b')]",
    "[get_weather(city=f'a')]",
    "[get_weather(city='a\nb')]",
    "[get_weather(city='\\x4')]",
    "[get_weather(city=1j)]",
    "[get_weather(city={1})]",
    "[get_weather(city={1: 2})]",
    "[get_weather(days=01)]",
    "[get_weather(days=1e999)]",
    f"[get_weather(days={'1' * 1_001})]",
    f"[get_weather(days={'[' * 60}{']' * 60})]",
    "[get_weather(city='Paris')",
    "[get_time(), 5]",
    "[get_time()](https://example.com)",
    "See [get_time()] for it.",
    "[get_time]",
    '{"name":"get_weather","town":"Paris"}',
    '{"name":"get_time","city":"Paris"}',
    '{"name":"get_weather","city":"Paris","parameters":{}}',
    '{"type":"object","name":"get_weather","city":"Paris"}',
    '{"name":"get_stocks","city":"Paris"}',
    '{"city":"Paris","unit":"C"}',
    '{"name": "get_time", "parameters": {"a": "\n"}}',
    '{"name": "get_time", "parameters": {"a": "\\x"}}',
    '{"name": "get_time", "parameters": {"a": "\\ud800"}}',
    '{"name": "get_time", "parameters": {"a": 1.}}',
    '{"name": "get_time", "parameters": {"a": 1e999}}',
    '{"name": "get_time", "parameters": {"a": 01}}',
    f'{{"name": "get_time", "parameters": {"[" * 151}{"]" * 151}}}',
]


@pytest.mark.parametrize("text", TEXTS)
def test_what_only_resembles_a_call_stays_text(text: str) -> None:
    assert read([text]) == read(list(text)) == (text, [])


def test_without_the_parameters_no_flat_call_is_read() -> None:
    leaks = LeakFilter(frozenset(PARAMETERS))
    text = '{"name":"get_weather","city":"Paris"}'
    assert leaks.feed(text) + leaks.flush() == text


def test_a_parameter_can_be_named_like_a_key_of_calls() -> None:
    leaks = LeakFilter({"find"}, {"find": ("type", "function")})
    assert leaks.feed('{"name":"find","type":"x","function":{"a":1}}') + leaks.flush() == ""
    assert leaks.take(as_text=False)[1] == [
        {"name": "find", "arguments": {"type": "x", "function": {"a": 1}}, "id": None}
    ]


@pytest.mark.parametrize(
    ("held", "released"),
    [
        ("`", "c"),
        ("``", "c"),
        ("```", "`"),
        ("```py", "!"),
        ("```python\n", "i"),
        (f"```json\n{CALL}\n", "/"),
        (f"```json\n{CALL}\n``", "x"),
        ("<", "b"),
        ("<function=get_", "s"),
        ("<function=get_time>", "x"),
        ('<function=get_time>{"a": "b"', "c"),
        ("[", "l"),
        ("[get_", "s"),
        ("[get_time(a", ")"),
        ("[get_time(a=", "b"),
        ("[get_time(a=Tru", "x"),
        ("[get_time(a=-1", "x"),
        ("[get_time()]", " or"),
        ('{"ci', "v"),
        ('{"city": "Paris", "', "z"),
        ('{"city": "Paris", "name": "get_', "t"),
        ('{"name": "get_weather", "city": "Paris"', "]"),
        ('{"name": "get_weather"', "}"),
        ('[{"name": "get_weather"', "}"),
        ('{"name": "get_time", "parameters": 1', ".}"),
    ],
)
def test_text_is_held_back_only_while_it_can_become_a_call(held: str, released: str) -> None:
    leaks = LeakFilter(frozenset(PARAMETERS), PARAMETERS)
    assert leaks.feed("So: ") == "So: "
    assert "".join(map(leaks.feed, held)) == ""
    assert leaks.held == held
    assert leaks.feed(released) == held + released


def test_a_fence_of_something_else_streams_undelayed() -> None:
    leaks = LeakFilter(frozenset(PARAMETERS), PARAMETERS)
    leaks.feed("```python\nprint")
    pieces = ["{", '"name', '": ', "[", "<", "`", "``", " then"]
    assert [leaks.feed(piece) for piece in pieces] == pieces


# Escapes are checked when the string or the call is whole, and the endings that are tried close no deep lists.
ANY = [text for text in (*CALLS, *TEXTS) if not any(some in text for some in ("\\ud8", "\\x", "[" * 50))]


@settings(max_examples=100, phases=[Phase.reuse, Phase.generate])  # shrinking takes minutes
@given(st.sampled_from(ANY), st.sampled_from(ANY), st.data())
def test_what_is_held_back_can_become_a_call(text: str, other: str, data: st.DataObject) -> None:
    """Two texts are cut and joined; whatever is held back then, some text behind it makes it a call."""
    start = text[: data.draw(st.integers(0, len(text)))] + other[data.draw(st.integers(0, len(other))) :]
    leaks = LeakFilter(frozenset(PARAMETERS), PARAMETERS)
    shown = leaks.feed(start)
    held = leaks.held
    if held.strip():
        assert shown + held == start or read([start])[1]
        assert any(becomes_call(held, end) for end in endings(other, text))


TYPE = 'type":"function"}'
ENDS = [*(TYPE[at:] for at in range(len(TYPE))), '"}', '"}}', "}", "}}", "]", "}]", ")]", "')]", '")]', "}</function>"]


def endings(*texts: str) -> list[str]:
    tails = [text[at:] for text in (*texts, *CALLS) for at in range(len(text) + 1)]
    return [*tails, *ENDS]


def becomes_call(held: str, end: str) -> bool:
    text, calls = read([held + end])
    return bool(calls) and not held.startswith(text[: len(held)] or "\0")


@given(
    st.dictionaries(
        st.from_regex(r"[a-z_]{1,8}", fullmatch=True),
        st.recursive(
            st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False))
            | st.text(st.characters(exclude_categories=["Cs"])),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.lists(inner, max_size=3).map(tuple)
                | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=3), inner, max_size=3)
            ),
            max_leaves=8,
        ),
        max_size=4,
    ),
    st.integers(1, 9),
)
def test_the_arguments_in_pythons_form_are_those_that_python_reads(arguments: dict[str, Any], size: int) -> None:
    text = f"[get_time({', '.join(f'{name}={value!r}' for name, value in arguments.items())})]"
    pythons = {name: ast.literal_eval(repr(value)) for name, value in arguments.items()}
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    assert read([text]) == read(pieces) == ("", [("get_time", json.loads(json.dumps(pythons)))])


@given(st.text(st.sampled_from("\\'\"abfnrtvx0u4eN8 d{}"), max_size=12))
def test_escapes_in_pythons_form_are_those_that_python_reads(written: str) -> None:
    text = f"[get_time(a='{written}')]"
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError):
        return
    match tree.body:
        case ast.List(elts=[ast.Call(keywords=[ast.keyword(value=ast.Constant(value=str(value)))])]):
            if "'" in written.replace("\\\\", "").replace("\\'", "") or "\\N" in written:
                return  # strings side by side, and names of characters, are not read
            assert read([text]) == ("", [("get_time", {"a": value})])


def test_whole_replies_and_streams_give_the_same_calls() -> None:
    tool = Tool("get_weather", "It.", {"type": "object", "properties": {"city": {"type": "string"}}})
    asked = Asked("@cf/openai/gpt-oss-120b", 256, offer=offer_of([tool], None))
    head = ReplyHead(200, {})
    text = 'Let me look. {"name":"get_weather","city":"Tokyo"}'
    body = {"result": {"choices": [{"message": {"content": text}, "finish_reason": "stop"}]}, "success": True}
    whole = completion_from_body(json.dumps(body).encode(), head, asked)
    reader = StreamReader(head, asked)
    for piece in [text[:30], text[30:]]:
        reader.feed(b'data: {"response":' + json.dumps(piece).encode() + b"}\n\n")
    reader.feed(b"data: [DONE]\n\n")
    streamed = reader.close()[-1].completion
    assert streamed is not None
    for completion in (whole, streamed):
        assert completion.text == "Let me look. "
        assert [(call.name, call.arguments) for call in completion.tool_calls] == [("get_weather", {"city": "Tokyo"})]
        assert completion.finish_reason == "tool_calls"
