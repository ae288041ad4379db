"""Bounds of a text's Llama 3 tokens that hold for every text, without the tokenizer.

Both follow from the tokenizer's published rules and its vocabulary; the tests compare the facts used here with Meta's
own files. A budget relies on :func:`most_tokens`, a refusal before sending on :func:`fewest_tokens`.

The tokenizer cuts a text by one regular expression into pieces, and makes the tokens of each piece alone, out of its
UTF-8 bytes. A piece is a run of letters with at most one other character before it, up to three digits, a run of
punctuation, or whitespace. Inside a piece it joins neighbouring tokens as long as two of them make one of the
vocabulary.
"""

from __future__ import annotations

import math
import re

# Meta's tokenizer cuts a text of any kind at least once in so many characters, which can add tokens.
_CUT = 25_000
# Pairs of bytes that are one token. Letters: all pairs of lower case but these, by their first letter.
_NOT_JOINED = (
    rb"b[q]|f[jz]|g[jkq]|h[j]|j[gvwxyz]|k[qxz]|l[q]|m[z]|n[q]|q[fgjkoyz]|r[j]|t[jq]|u[q]|v[qz]|w[qvz]|x[ghjkquvw]"
    rb"|y[fjqv]|z[gjqr]"
)
# A character's first byte, and as bits those of its second bytes that make a token with it.
_STARTS = {
    0xC2: 0xFFFFFFFFFFFFFFFF,
    0xC3: 0x7FFFFFFFFFFFFFFF,
    0xC4: 0x40030A05CE0BB0AE,
    0xC5: 0x7502CA2BCB0A2114,
    0xCC: 0x000000880000034F,
    0xCE: 0xFFFEF2FBFFFF1150,
    0xCF: 0x00000000000077FF,
    0xD0: 0xFFFFFBFFFFFF4CFC,
    0xD1: 0x00000000DBFEFFFF,
    0xD7: 0x0000070552BB0000,
    0xD8: 0x07FFFFFE88001000,
    0xD9: 0x42001F3F0017FFFF,
    0xDB: 0x03FF000000001001,
    0xE0: 0x3FFFCFF000000000,
    0xE1: 0xFE000000C0000009,
    0xE2: 0x00000000F3F207F7,
    0xE3: 0x000000000000407F,
    0xE4: 0xFF00000000000000,
    0xE5: 0xFFFFFFFFFFFFFFFF,
    0xE6: 0xFFFFF7FFFFFFFFFF,
    0xE7: 0xFFFFFFFFFFFFFFFF,
    0xE8: 0xFFFFFFFEFFFFFFFF,
    0xE9: 0x7F0E7FFFFFFFFFFF,
    0xEA: 0xBBBF000000000000,
    0xEB: 0x0BDD97EBF45BBD7E,
    0xEC: 0xBF5F02DF7FF01FFE,
    0xED: 0x0000000067F4DC7F,
    0xEF: 0xFD00000010000005,
    0xF0: 0x00000000A0000000,
}


def _starts() -> bytes:
    """The pairs of ``_STARTS`` as a pattern."""
    pairs = []
    for first, seconds in _STARTS.items():
        allowed = b"".join(b"\\x%02x" % (0x80 + bit) for bit in range(64) if seconds >> bit & 1)
        pairs.append(b"\\x%02x[%s]" % (first, allowed))
    return b"|".join(pairs)


# What makes a text's tokens fewer than its bytes. The contractions ('s, 'll) are pieces of their own, so letters after
# an apostrophe count as bytes. A pair takes the byte behind it along, so that no two pairs are closer than three bytes.
_JOINS = re.compile(
    rb"'[A-Za-z]{0,2}"
    rb"|(?P<blanks>(?<=[\n!-~]) {2,81}(?= [!-~]))"
    rb"|(?P<digits>(?<![0-9\x80-\xff])[0-9]+(?![0-9\x80-\xff]))"
    rb"|(?P<pair>(?: [A-Za-z]|(?!" + _NOT_JOINED + rb")[a-z]{2}|" + _starts() + rb")(?:[^' 0-9]| (?! ))?)",
)

# Each of these is in a piece of its own: a word, punctuation that no letter follows directly, and blanks after a word
# that are more than one, or hold the end of a line. A byte from 0x80 on may be of any kind.
_WORDS = re.compile(rb"(?<![A-Za-z\x80-\xff])[\x80-\xff]*[A-Za-z][A-Za-z\x80-\xff]*")
_DIGITS = re.compile(rb"(?<![0-9\x80-\xff])[\x80-\xff]*[0-9][0-9\x80-\xff]*")
_MARK = rb"\x00-\x08\x0e-\x1f!-/:-@\[-`{-\x7f"
_MARKS = re.compile(rb"(?<![%s\x80-\xff])[%s\x80-\xff]*[%s](?![A-Za-z\x80-\xff])" % (_MARK, _MARK, _MARK))
_BLANKS = re.compile(rb"(?<=[A-Za-z0-9])(?:[ \t\v\f]*[\r\n]|[ \t\v\f]{2})")
_BEYOND_ASCII = bytes(range(0x80, 0x100))
_LONGEST_WORD = 41  # letters of ASCII in a token
_DIGITS_OF_A_PIECE = 3
_ROUNDING = 1e-6
# Characters in a token, by their first byte: one of four bytes, 6 Chinese ones or Korean syllables, 11 of the scripts
# of India and South-East Asia, 32 others.
_IN_A_TOKEN = (
    (1, re.compile(rb"[\xf0-\xf4]")),
    (6, re.compile(rb"[\xe4-\xed]")),
    (11, re.compile(rb"[\xe0\xe1]")),
    (32, re.compile(rb"[\xc2-\xdf\xe2\xe3\xee\xef]")),
)


def most_tokens(text: str) -> int:
    """An upper bound of a text's tokens, which holds for every text.

    All 256 bytes are in the vocabulary, so a text never has more tokens than UTF-8 bytes. Three facts make the bound
    smaller:

    - Up to three digits are one token.
    - So are the spaces of an indentation, except the last, which belongs to what follows.
    - Two neighbouring bytes of a piece that are a token together never stay two tokens: at least one of them is joined
      to a neighbour. Of pairs that are three bytes apart, each saves a token of its own.
    """
    data = _bytes(text)
    most = len(data) + 2 * (len(text) // _CUT)
    for join in _JOINS.finditer(data):
        match join.lastgroup:
            case "pair":
                most -= 1
            case "digits":
                length = join.end() - join.start()
                most -= length - math.ceil(length / _DIGITS_OF_A_PIECE)
            case "blanks":
                most -= join.end() - join.start() - 1
    return min(most, len(data))


def fewest_tokens(text: str) -> int:
    """A lower bound of a text's tokens, which holds for every text.

    A piece is at least one token, and a token has at most so many letters, or characters of a script. What counts as a
    piece here is one for any reading of the characters beyond ASCII.
    """
    data = _bytes(text)
    words = sum(math.ceil(len(word.translate(None, _BEYOND_ASCII)) / _LONGEST_WORD) for word in _WORDS.findall(data))
    digits = sum(
        math.ceil(len(run.translate(None, _BEYOND_ASCII)) / _DIGITS_OF_A_PIECE) for run in _DIGITS.findall(data)
    )
    pieces = words + digits + len(_MARKS.findall(data)) + len(_BLANKS.findall(data))
    if text.isascii():
        return max(pieces, int(bool(text)))
    by_script = sum(len(starts.findall(data)) / most for most, starts in _IN_A_TOKEN)
    return max(pieces, math.ceil(by_script - _ROUNDING))


def _bytes(text: str) -> bytes:
    """The text in UTF-8; half of a surrogate pair becomes U+FFFD, as the tokenizer reads it."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").encode()
