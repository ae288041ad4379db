"""An estimate of a text's Llama 3 tokens for display, for programs without the tokenizer.

Budgets and refusals need bounds: :mod:`workersai.protocol.token_bounds`. ``benchmarks/tokens.py`` compares all three
with the exact count.
"""

from __future__ import annotations

import math
import re
from functools import lru_cache
from itertools import pairwise

from workersai.protocol.token_bounds import fewest_tokens, most_tokens

# The tokenizer's own cut, as far as Python's expressions can say it.
_PIECES = re.compile(
    r"'(?:s|t|re|ve|m|ll|d)|[^\r\n\w]?[^\W\d_]+|_[^\W\d_]+|\d{1,3}| ?(?:[^\s\w]|_)+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    re.IGNORECASE,
)
_NEW_WORD = re.compile(r"[a-z][A-Z]")

# Tokens of a character: of the scripts that the tokenizer knows words of, the mean of measured texts; any other takes
# a token for each of its bytes at most.
_ASCII, _EMOJI = 0.8, 3.2
_KNOWN = (
    (0x00A0, 0x024F, 0.75),  # Latin with accents
    (0x0370, 0x052F, 0.75),  # Greek, Cyrillic
    (0x0590, 0x06FF, 0.75),  # Hebrew, Arabic
    (0x0900, 0x097F, 1.35),  # Devanagari
    (0x0E00, 0x0E7F, 1.35),  # Thai
    (0x2010, 0x2027, 1.35),  # dashes and quotation marks
    (0x3000, 0x30FF, 1.35),  # Kana
    (0x4E00, 0x9FFF, 1.35),  # Chinese characters
    (0xAC00, 0xD7A3, 1.35),  # Hangul
    (0xFF00, 0xFFEF, 1.35),  # full width
)
_BASIC = 0xFFFF  # beyond it, four bytes: emoji, and scripts of the past
_PUNCTUATION = 0.72  # tokens of a character in a run of it
_WORD, _LONG_WORD = 12, 60  # letters: what is longer than a word is a compound; what is longer than that is none
_BLANKS = {" ": 60, "\t": 16, "\n": 8}  # of one kind that are a token together; of others, each byte is one


def estimate_tokens(text: str, bounds: tuple[int, int] | None = None) -> int:
    """About how many tokens a text has, for display: between the two bounds, and rather too high than too low.

    Measured, it is 1 to 1.7 times the exact count for English, JSON and code, and up to 4 times for other scripts. For
    text that the tokenizer knows few words of, it is too low: 0.6 of the count for Swahili, 0.3 for random letters.

    Args:
        text: Any text.
        bounds: Its :func:`fewest_tokens` and :func:`most_tokens`, if they are known.
    """
    fewest, most = bounds or (fewest_tokens(text), most_tokens(text))
    likely = sum(_estimate(piece[0], _ends_in_digit(text, piece.start())) for piece in _PIECES.finditer(text))
    return min(max(likely, fewest), most)


def _ends_in_digit(text: str, end: int) -> bool:
    return end > 0 and text[end - 1].isdigit()


def _estimate(piece: str, after_digit: bool) -> int:  # noqa: FBT001 - one caller
    told = piece.strip(" ")
    if not told or told.isspace():
        changes = sum(1 for one, other in pairwise(piece) if one != other)
        return 1 + changes + math.ceil(sum(_of_blank(blank) * piece.count(blank) for blank in set(piece)))
    if not told.isascii():
        return math.ceil(sum(map(_of_character, told)))
    if told[-1].isdigit():
        return 1  # up to three digits are a token
    if not told[-1].isalpha():
        return math.ceil(_PUNCTUATION * len(told))
    letters = told if told[0].isalpha() else told[1:]
    most = _estimate_letters(letters, after_digit=after_digit and letters == piece)
    return most + len(told) - len(letters)


def _of_blank(blank: str) -> float:
    return 1 / _BLANKS[blank] if blank in _BLANKS else len(blank.encode(errors="replace"))


@lru_cache(maxsize=10_000)
def _of_character(character: str) -> float:
    if character.isascii():
        return _ASCII
    code = ord(character)
    known = (tokens for first, last, tokens in _KNOWN if first <= code <= last)
    return next(known, _EMOJI if code > _BASIC else float(len(character.encode(errors="replace"))))


def _estimate_letters(letters: str, *, after_digit: bool) -> int:
    """Of letters that follow a digit, as in a hash, hardly two make a token; nor of capitals, or of a random run."""
    length = len(letters)
    if after_digit:
        return max(min(length, 3), math.ceil(0.75 * length))
    if letters.isupper():
        return math.ceil(length / 1.7)
    if length > _LONG_WORD:
        most = 0.6 * length
    elif length > _WORD:
        most = length / 2.5
    else:
        most = length / 5
    return max(1, math.ceil(most + 2 * len(_NEW_WORD.findall(letters))))
