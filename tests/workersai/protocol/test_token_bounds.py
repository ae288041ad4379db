"""The bounds of a text's tokens hold for every text: the facts that they rest on, and texts of all kinds."""
# ruff: noqa: RUF001 - texts in other scripts

import math
import random
import string
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workersai.protocol import token_bounds
from workersai.protocol.token_bounds import fewest_tokens, most_tokens
from workersai.tokens import _tokenizer, token_ids

VOCABULARY: frozenset[bytes] = frozenset(_tokenizer().model._mergeable_ranks)
DRAWN = random.Random(1)  # noqa: S311 - the same texts each time
LETTERS = string.ascii_letters.encode()


def assert_bounds_hold(text: str) -> None:
    count = len(token_ids(text))
    assert fewest_tokens(text) <= count <= most_tokens(text), (fewest_tokens(text), count, most_tokens(text))


# The facts


def test_each_byte_is_a_token() -> None:
    assert all(bytes([byte]) in VOCABULARY for byte in range(256))


def test_each_pair_that_saves_a_token_is_in_the_vocabulary() -> None:
    pairs = [bytes([first, second]) for first in range(256) for second in range(256)]
    joined = [pair for pair in pairs if (found := token_bounds._JOINS.match(pair)) and found["pair"] == pair]
    assert len(joined) > 1_000
    assert set(joined) <= VOCABULARY
    assert all(b" " + bytes([letter]) in joined for letter in LETTERS)
    lower = [pair for pair in pairs if pair.decode("latin-1").isascii() and pair.islower() and pair.isalpha()]
    assert {pair for pair in lower if pair in VOCABULARY} <= set(joined), "no pair is left out"


def test_up_to_three_digits_and_the_blanks_of_an_indentation_are_one_token() -> None:
    assert all(f"{number:0{width}}".encode() in VOCABULARY for width in (1, 2, 3) for number in range(10**width))
    assert all(b" " * width in VOCABULARY for width in range(2, 82))


def test_no_token_is_longer_than_the_lower_bound_takes_it_to_be() -> None:
    for token in VOCABULARY:
        assert sum(byte in LETTERS for byte in token) <= token_bounds._LONGEST_WORD
        assert sum(len(starts.findall(token)) / most for most, starts in token_bounds._IN_A_TOKEN) <= 1 + 1e-9, token


# Texts of all kinds


def words(alphabet: Sequence[str], length: int, count: int) -> str:
    return " ".join("".join(DRAWN.choices(alphabet, k=length)) for _ in range(count))


def points(first: int, last: int, count: int = 1_000) -> str:
    return "".join(chr(DRAWN.randrange(first, last)) for _ in range(count))


RANDOM = {
    "words of 5": words(string.ascii_lowercase, 5, 500),
    "words of 12": words(string.ascii_lowercase, 12, 300),
    "words of 60": words(string.ascii_lowercase, 60, 100),
    "consonants": words("bcdfghjklmnpqrstvwxz", 10, 300),
    "rare letters": words("qzxjk", 5, 500),
    "capitals": words(string.ascii_uppercase, 5, 500),
    "capitals and small letters": words(string.ascii_letters, 10, 300),
    "base32": words("abcdefghijklmnopqrstuvwxyz234567", 52, 100),
    "base64": words(string.ascii_letters + string.digits + "+/", 64, 100),
    "hex": words("0123456789abcdef", 64, 100),
    "DNA": words("ACGT", 60, 100),
    "punctuation": "".join(DRAWN.choices(string.punctuation, k=2_000)),
    "punctuation in pairs": words(string.punctuation, 2, 1_000),
    "control characters": points(0, 32),
    "blanks": "".join(DRAWN.choices(" \t\n\r\v\f\u0085\u00a0\u2003\u3000", k=2_000)),
    "accents": points(0xC0, 0x100),
    "Latin": points(0x100, 0x250),
    "Greek": points(0x3B1, 0x3C9),
    "Cyrillic": points(0x430, 0x450),
    "Hebrew": points(0x5D0, 0x5EB),
    "Arabic": points(0x621, 0x64B),
    "Devanagari": points(0x905, 0x93A),
    "Thai": points(0xE01, 0xE2F),
    "Kana": points(0x3041, 0x30FF),
    "Chinese": points(0x4E00, 0x9FFF),
    "Hangul": points(0xAC00, 0xD7A3),
    "rare Chinese": points(0x20000, 0x2A6D0),
    "emoji": points(0x1F300, 0x1F5FF),
    "flags": "🇩🇪🇫🇷🇯🇵" * 100,
    "families": "👩‍👩‍👧‍👦" * 100,
    "bold letters": points(0x1D400, 0x1D7FF),
    "marks": "".join("a" + points(0x300, 0x36F, 5) for _ in range(200)),
    "halves of characters": points(0xD800, 0xE000),
    "any": points(0, 0x110000),
}
LANGUAGES = {
    "Swahili": "Watu wote wamezaliwa huru, hadhi na haki zao ni sawa. Wote wamejaliwa akili na dhamiri.",
    "Welsh": "Genir pawb yn rhydd ac yn gydradd â'i gilydd mewn urddas a hawliau. Fe'u cynysgaeddir â rheswm.",
    "Zulu": "Bonke abantu bazalwa bekhululekile belingana ngesithunzi nangamalungelo.",
    "Basque": "Gizon-emakume guztiak aske jaiotzen dira, duintasun eta eskubide berberak dituztela.",
    "Hungarian": "Minden emberi lény szabadon születik és egyenlő méltósága és joga van.",
    "Navajo": "Biʼdizhchįįgo bąąh ílíígo ajooba łaʼ dóó kwaabíní. Hanítséskees dóó hanáʼáʼą́ łáʼ.",
    "genes": "BRCA1 TP53 EGFR KRAS PIK3CA ABCB1 CYP2D6 HLA-DRB1 rs1801133 tmem106b unc13a nfkb1 ctnnb1",
    "drugs": "pembrolizumab abciximab sacubitril zoledronate oxcarbazepine ziprasidone ixazomib",
    "shell": "awk sed grep xargs tar xzvf rsync -avz ssh chmod kubectl get po -n kube-system -o yaml",
    "assembly": "mov eax, ebx\nxor ecx, ecx\n    vpxorq zmm0, zmm0, zmm0\n    vfmadd231ps ymm1, ymm2, ymm3\n",
    "contractions": "I'll 'still 'tis DON'T they've 'velvet ''s 'ſt we'd've rock'n'roll 'LLama",
    "long words": "Donaudampfschifffahrtsgesellschaftskapitän " * 20,
}


@pytest.mark.parametrize("kind", RANDOM)
def test_the_bounds_hold_for_random_text(kind: str) -> None:
    assert_bounds_hold(RANDOM[kind])


@pytest.mark.parametrize("kind", LANGUAGES)
def test_the_bounds_hold_for_text_that_the_tokenizer_knows_few_words_of(kind: str) -> None:
    assert_bounds_hold(LANGUAGES[kind])


# What the tokenizer's expression treats in a way of its own, and characters of each length, so that Hypothesis joins
# them in all orders.
VISIBLE = "' 's 'll 'S 'ſ ab x zq jz The 0 12 345 ² ٣ १ ½ é … ( (( _ - <| |> я привет 人 工智 한 ß 😀 𝐀 ﷺ ไทย हिन्दी"
OTHERS = (
    " ",
    "  ",
    "    ",
    "\n",
    "\r\n",
    "\t",
    " \n",
    "\v",
    "\x1c",
    "\x85",
    "\u00a0",
    "\u0301",
    "\u200d",
    "\u3000",
    "\ud800",
)
PARTS = st.sampled_from([*VISIBLE.split(), *OTHERS])
ANY = st.characters()  # halves of surrogate pairs, too


@given(st.lists(PARTS | ANY, max_size=30).map("".join))
def test_the_bounds_hold_for_every_text(text: str) -> None:
    assert_bounds_hold(text)


@given(st.text(st.characters(codec="ascii"), max_size=60))
def test_the_bounds_hold_for_every_text_of_ascii(text: str) -> None:
    assert_bounds_hold(text)


@given(st.text(st.sampled_from("abqz'AB 1\n"), max_size=60))
def test_the_bounds_hold_for_letters_blanks_and_apostrophes(text: str) -> None:
    assert_bounds_hold(text)


@pytest.mark.parametrize("part", ["a", "1", " ", "\n", "=", "é", "人", "word ", "x1"])
def test_the_bounds_hold_for_texts_that_are_cut_before_they_are_encoded(part: str) -> None:
    """Meta's tokenizer cuts runs of more than 25,000 characters, and all texts after 400,000."""
    for length in (25_001, 60_000, 450_000):
        assert_bounds_hold(part * math.ceil(length / len(part)))


def test_the_upper_bound_is_well_below_the_bytes_of_prose_and_numbers() -> None:
    prose = "It was the best of times, it was the worst of times; it was the age of wisdom. " * 20
    assert most_tokens(prose) < 0.75 * len(prose)
    assert most_tokens("1,234,567 " * 20) < 0.7 * len("1,234,567 " * 20)
    assert most_tokens("") == fewest_tokens("") == 0


def test_the_lower_bound_is_near_for_prose() -> None:
    prose = "It was the best of times, it was the worst of times; it was the age of wisdom. " * 20
    assert fewest_tokens(prose) > 0.9 * len(token_ids(prose))
