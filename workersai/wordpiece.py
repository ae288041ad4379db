"""How many tokens an embedding model reads of a text, and where a text that is too long is to be cut.

The English bge models read WordPiece tokens of lower-case text, with the vocabulary that BERT was published with (by
Google, under the Apache License 2.0), 512 at most. ``wordpiece.txt`` is that vocabulary.

bge-m3 and bge-reranker-base read the SentencePiece tokens of XLM-RoBERTa, whose vocabulary is not here. For them there
is an upper bound.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Iterator
from functools import cache, lru_cache
from importlib import resources

FRAME = 2
"""Tokens that stand around each text."""

_MOST_OF_A_CHARACTER = 3  # a Korean syllable falls into so many letters
_UNKNOWN = 1  # what can't be spelt, or is longer than this, is one token
_LONGEST_WORD = 100
# Words are separated by these, which are all that is left once control characters are gone.
_WORD = re.compile("[^ \t\n\r\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+")
_CJK = re.compile(
    "[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002a6df\U0002a700-\U0002ceaf\U0002f800-\U0002fa1f]"
)
_MANY_WORDS = 50_000  # a few megabytes


def may_have_more(text: str, tokens: int) -> bool:
    """Whether a text is long enough to have more than so many tokens: most need no count to be known to have less."""
    return FRAME + _MOST_OF_A_CHARACTER * len(text) > tokens


def most_wordpieces(text: str) -> int:
    """An upper bound of the tokens of a text, with the two around it, which holds for every text.

    :func:`count_wordpieces` is exact for ASCII. Beyond it, the service may know another version of Unicode, and cut a
    word otherwise: but never into more tokens than the characters of Unicode's form NFD.
    """
    if text.isascii():
        return count_wordpieces(text)
    words = (word[0] for word in _WORD.finditer(text))
    return FRAME + sum(_most_tokens(word) for word in words)


def _most_tokens(word: str) -> int:
    return _tokens(word, sys.maxsize) if word.isascii() else len(unicodedata.normalize("NFD", word))


def most_sentencepieces(text: str) -> int:
    """An upper bound of the tokens of a text for a model that reads those of XLM-RoBERTa, without any around the text.

    It holds for every text: that tokenizer brings a text into Unicode's form NFKC, puts a space before it, and makes
    each token of at least one character, also of those that it doesn't know. NFKC composes the characters of NFKD,
    and has never more. Bytes would be no bound: one Arabic ligature (U+FDFA) of three bytes becomes 18 characters.
    """
    return 1 + len(text if text.isascii() else unicodedata.normalize("NFKD", text))


def most_bytes(text: str) -> int:
    """Returns an upper bound of the tokens of a text for a byte-level tokenizer, such as that of Qwen's models.

    That tokenizer brings a text into Unicode's form NFC, and each of its tokens is at least one byte of UTF-8.
    """
    return len((text if text.isascii() else unicodedata.normalize("NFC", text)).encode(errors="surrogatepass"))


def count_wordpieces(text: str, enough: int = sys.maxsize) -> int:
    """The tokens of a text, with the two around it; with more than ``enough`` of them, no more need be counted."""
    count = FRAME
    for word in _WORD.finditer(text):
        count += _tokens(word[0], enough - count)
        if count > enough:
            break
    return count


def cut_to(text: str, most: int) -> str:
    """The beginning of a text that has no more than ``most`` tokens, up to the end of a word where there is one."""
    count, end = FRAME, 0
    for word in _WORD.finditer(text):
        count += _tokens(word[0], most - count)
        if count > most:
            return text[:end] if end else _cut_word(text, word.start(), most)
        end = word.end()
    return text


def _cut_word(text: str, start: int, most: int) -> str:
    """The first word alone is too long: a beginning of it that fits, and would not with another character."""
    low, step = start, most
    while count_wordpieces(text[: low + step], most) <= most:  # it may be far from here to the end of the text
        low, step = low + step, 2 * step
    high = low + step
    while low + 1 < high:
        middle = (low + high) // 2
        low, high = (middle, high) if count_wordpieces(text[:middle], most) <= most else (low, middle)
    return text[:low]


def _tokens(word: str, enough: int) -> int:
    if len(word) <= _LONGEST_WORD:
        return _tokens_of_short(word)
    count = 0
    for part in _parts(word):
        count += _pieces(part)
        if count > enough:
            break
    return count


@lru_cache(maxsize=_MANY_WORDS)
def _tokens_of_short(word: str) -> int:
    return sum(_pieces(part) for part in _parts(word))


def _parts(word: str) -> Iterator[str]:
    """The word as the model reads it: lower case, no accents, and each mark of punctuation for itself."""
    if not word.isascii():
        word = "".join(filter(_is_shown, word))
        word = _CJK.sub(r" \g<0> ", word)
        word = "".join(char for char in unicodedata.normalize("NFD", word) if unicodedata.category(char) != "Mn")
    part = ""
    for char in word.lower():
        if char.isalnum() or not (char == " " or _is_mark(char)):
            part += char if _is_shown(char) else ""
            continue
        if part:
            yield part
        part = ""
        if char != " ":
            yield char
    if part:
        yield part


def _is_shown(char: str) -> bool:
    return char != "\ufffd" and not unicodedata.category(char).startswith("C")


def _is_mark(char: str) -> bool:
    return (char.isascii() and char.isprintable()) or unicodedata.category(char).startswith("P")


def _pieces(part: str) -> int:
    """The fewest of the vocabulary's longest pieces, taken from the left, that spell it."""
    vocabulary = _vocabulary()
    if part in vocabulary or len(part) > _LONGEST_WORD:
        return 1
    start = count = 0
    while start < len(part):
        before = "##" if start else ""
        end = next((end for end in range(len(part), start, -1) if before + part[start:end] in vocabulary), None)
        if end is None:
            return _UNKNOWN
        start, count = end, count + 1
    return count


@cache
def _vocabulary() -> frozenset[str]:
    return frozenset(resources.files("workersai").joinpath("wordpiece.txt").read_text("utf-8").split("\n"))
