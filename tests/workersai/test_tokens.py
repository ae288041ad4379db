"""Token counts: exact against Meta's own tokenizer; without it, bounds that hold and an estimate."""
# ruff: noqa: RUF001 - texts in other scripts

import base64
import json
import logging
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llama_models.llama3.tokenizer import Tokenizer

from workersai import Message, Tool, ToolCall, count_tokens, tokens
from workersai.errors import BadRequestError
from workersai.protocol.estimate import estimate_tokens
from workersai.protocol.template import MARKUP
from workersai.protocol.token_bounds import fewest_tokens, most_tokens
from workersai.tokens import Tokens

ENCODING = Tokenizer.get_instance()
DRAWN = random.Random(1)  # noqa: S311 - the same texts each time
ROOT = Path(__file__).parents[2]

CORPORA = {
    "english": "It was the best of times, it was the worst of times; it was the age of wisdom. " * 20,
    "markdown": (ROOT / "README.md").read_text(),
    "code": (ROOT / "workersai" / "flows.py").read_text(),
    "json": json.dumps([{"id": n, "name": f"user{n}", "ok": True} for n in range(100)], indent=2),
    "chinese": "人工智能是计算机科学的一个分支，它企图了解智能的实质。該領域的研究包括機器人、語言識別和專家系統等。"
    * 9,
    "japanese": "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。ニャーニャー泣いていた。" * 9,
    "korean": "동해 물과 백두산이 마르고 닳도록 하느님이 보우하사 우리나라 만세. 무궁화 삼천리 화려강산." * 9,
    "russian": "Все счастливые семьи похожи друг на друга, каждая несчастливая семья несчастлива по-своему." * 9,
    "arabic": "يولد جميع الناس أحرارا متساوين في الكرامة والحقوق. وقد وهبوا عقلا وضميرا." * 9,
    "hindi": "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता और समानता प्राप्त है।" * 9,
    "german": "Rechtsschutzversicherungsgesellschaften bestätigen Geschwindigkeitsbegrenzungen für Öltanker. " * 9,
    "emoji": "😀🎉👩‍👩‍👧‍👦🏳️‍🌈🚀🔥💯🤷🏽‍♀️✨" * 20,
    "base64": base64.b64encode(DRAWN.randbytes(3_000)).decode(),
    "hex": DRAWN.randbytes(2_000).hex(),
    "letters": "".join(DRAWN.choices("abcdefghijklmnopqrstuvwxyz", k=3_000)),
    "digits": "".join(DRAWN.choices("0123456789", k=3_000)),
    "punctuation": "".join(DRAWN.choices("!@#$%^&*()[]{};:,.<>/?|\\~`-_=+", k=3_000)),
    "amharic": "ሰላም ለሁላችሁም ይሁን። የሰው ልጅ ሁሉ ሲወለድ ነጻና በክብርና በመብትም እኩልነት ያለው ነው።" * 9,
    "georgian": "ყველა ადამიანი იბადება თავისუფალი და თანასწორი თავისი ღირსებითა და უფლებებით." * 9,
    "burmese": "လူတိုင်းသည် တူညီလွတ်လပ်သော ဂုဏ်သိက္ခာဖြင့်လည်းကောင်း။" * 9,
    "khmer": "មនុស្សទាំងអស់កើតមកមានសេរីភាព និងសមភាពក្នុងផ្នែកសេចក្ដីថ្លៃថ្នូរ។" * 9,
    "phonetic": "ˈfəʊnɪks ɪz ðə ˈstʌdi əv ˈspiːtʃ ˌɪntəˈnæʃənl ʃʒθðŋ" * 9,
    "tabs": "\t" * 5_000,
    "lines": "\n" * 5_000,
    "line separators": "\u2028" * 500,
    "blanks": " \t  " * 300 + "\n\n\n" * 100 + " " * 500,
}


def exact(text: str) -> int:
    return len(ENCODING.encode(text, bos=False, eos=False, disallowed_special=()))


@pytest.fixture
def _without_the_extra(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    # As Python marks a module that can't be imported.
    monkeypatch.setitem(sys.modules, "llama_models", None)
    clear()
    yield
    clear()


def clear() -> None:
    tokens._counted.clear()
    for cached in (tokens.counts_exactly, tokens._hint):
        cached.cache_clear()


@pytest.mark.parametrize("kind", CORPORA)
def test_a_text_is_counted_as_the_tokenizer_does(kind: str) -> None:
    assert count_tokens(CORPORA[kind]) == exact(CORPORA[kind])


def test_known_counts() -> None:
    assert count_tokens("") == 0
    assert count_tokens("Hello, world!") == 4
    assert tokens.token_ids("Hello, world!") == [9906, 11, 1917, 0]
    assert count_tokens("<|eot_id|>") == exact("<|eot_id|>") > 1, "markup in a text is text"


def test_a_text_of_any_length_is_counted() -> None:
    assert count_tokens("a" * 500_000) == exact("a" * 500_000)
    assert count_tokens("word " * 100_000) == exact("word " * 100_000)


def rendered(*turns: tuple[str, str], tools: str = "") -> int:
    """The tokens of a prompt that is written in the template's own markup."""
    dates = "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n"
    environment = "Environment: ipython\n" if tools else ""
    (_, system), *rest = turns
    turns = (("system", f"{environment}{dates}{system}"), *rest)
    text = "".join(f"<|start_header_id|>{role}<|end_header_id|>\n\n{said}<|eot_id|>" for role, said in turns)
    prompt = f"<|begin_of_text|>{text}<|start_header_id|>assistant<|end_header_id|>\n\n"
    return len(ENCODING.encode(prompt, bos=False, eos=False, allowed_special="all"))


def test_a_conversation_is_counted_with_its_template() -> None:
    assert count_tokens([]) == 0
    assert count_tokens([Message("user", "Hello there")]) == rendered(("system", ""), ("user", "Hello there"))
    chat: list[Any] = [
        Message("system", "Be brief."),
        {"role": "user", "content": " Hello? "},
        Message("assistant", "Yes?"),
    ]
    assert count_tokens(chat) == rendered(("system", "Be brief."), ("user", "Hello?"), ("assistant", "Yes?"))


def test_calls_and_their_answers_are_counted_as_they_are_sent() -> None:
    call = Message("assistant", "", tool_calls=[ToolCall("c1", "get_weather", {"city": "Paris"})])
    answer = Message("tool", 'It is "sunny".', tool_call_id="c1")
    spoken = '{"name":"get_weather","parameters":{"city":"Paris"}}'
    expected = rendered(("system", ""), ("assistant", spoken), ("ipython", '"It is \\"sunny\\"."'))
    assert count_tokens([call, answer]) == expected
    assert count_tokens([answer]) < expected, "a part of a conversation can be counted, too"


def test_tools_are_counted_with_a_conversation() -> None:
    tool = Tool("get_time", "The time.", {"type": "object", "properties": {}})
    plain, offered = count_tokens([Message("user", "hi")]), count_tokens([Message("user", "hi")], tools=[tool])
    wire = {
        "type": "function",
        "function": {
            "name": "get_time",
            "description": "The time.",
            "parameters": {"type": "object", "properties": {}},
        },
    }
    assert offered - plain == exact(json.dumps(wire, indent=4) + "\n\n") + 5 + 51


texts = st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "Zs"]), max_size=40)


@given(st.lists(st.tuples(st.sampled_from(["user", "assistant"]), texts), min_size=1, max_size=5))
def test_a_conversation_is_its_turns_and_the_template(turns: list[tuple[Any, str]]) -> None:
    template = count_tokens([Message("user", "")])
    alone = [count_tokens([Message(role, text)]) - template for role, text in turns]
    assert count_tokens([Message(role, text) for role, text in turns]) == template + sum(alone) + 5 * (len(turns) - 1)


@pytest.mark.parametrize("kind", CORPORA)
def test_the_count_and_the_estimate_are_between_the_bounds(kind: str) -> None:
    text, count = CORPORA[kind], exact(CORPORA[kind])
    assert fewest_tokens(text) <= count <= most_tokens(text) <= len(text.encode())
    assert fewest_tokens(text) <= estimate_tokens(text) <= most_tokens(text)


@pytest.mark.parametrize("kind", ["english", "markdown", "code", "json", "russian", "chinese", "german"])
def test_the_estimate_is_near_for_common_kinds_of_text(kind: str) -> None:
    assert exact(CORPORA[kind]) <= estimate_tokens(CORPORA[kind]) <= 2.5 * exact(CORPORA[kind])


@pytest.mark.usefixtures("_without_the_extra")
def test_without_the_extra_counts_are_estimates_and_say_so_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="workersai"):
        assert count_tokens("Hello, world!") >= 4
        assert count_tokens([Message("user", "Hello again!")]) > 4
    assert [record.getMessage() for record in caplog.records] == [tokens._HINT]
    with pytest.raises(ImportError, match=r"pip install 'workersai\[tokens\]'"):
        tokens.token_ids("Hello")


RAW = "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHow <|are|> you?<|eot_id|>"


def test_a_raw_prompt_is_counted_with_its_markup_and_one_token_that_the_service_may_add() -> None:
    count = len(ENCODING.encode(RAW, bos=False, eos=False, allowed_special="all"))
    assert tokens.raw_tokens(RAW) == Tokens(count, count + 1, count + 1)


@pytest.mark.usefixtures("_without_the_extra")
def test_without_the_extra_a_raw_prompt_is_between_the_bounds() -> None:
    count = len(ENCODING.encode(RAW, bos=False, eos=False, allowed_special="all"))
    counted = tokens.raw_tokens(RAW)
    assert counted.fewest <= count < count + 1 <= counted.most
    assert not counted.exact


def test_the_markup_of_a_raw_prompt_is_that_of_the_model() -> None:
    special = set(ENCODING.special_tokens)
    assert all(MARKUP.fullmatch(name) for name in special)
    assert not MARKUP.fullmatch("<|are|>")


@pytest.mark.usefixtures("_without_the_extra")
@pytest.mark.parametrize("kind", CORPORA)
def test_without_the_extra_a_prompt_is_between_the_bounds(kind: str) -> None:
    tool = {"type": "function", "function": {"name": "f", "description": CORPORA[kind], "parameters": {}}}
    counted = tokens.prompt_tokens([{"role": "user", "content": CORPORA[kind]}], [tool])
    indented = json.dumps(tool, indent=4, ensure_ascii=False) + "\n\n"
    own = rendered(("system", ""), ("user", CORPORA[kind].strip())) + exact(indented) + 5 + 51
    assert counted.fewest <= own <= counted.most


def test_what_the_service_does_not_take_is_not_counted() -> None:
    with pytest.raises(BadRequestError, match=r"messages\[0\]: the service knows no role 'critic'"):
        count_tokens([{"role": "critic", "content": "x"}])
    with pytest.raises(BadRequestError, match="has no name"):
        count_tokens([Message("user", "x")], tools=[{"name": ""}])


def test_what_is_neither_text_nor_messages_is_not_counted() -> None:
    with pytest.raises(BadRequestError, match="A text or a list of messages is counted, not NoneType"):
        count_tokens(None)  # type: ignore[arg-type]
