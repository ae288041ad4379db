from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.counting import CopyCounter, operations
from workersai.protocol.stop import StopFilter, before_stop


def test_text_ends_before_the_first_stop_string() -> None:
    assert before_stop("one two three two", ["three", "two"]) == ("one ", True)


def test_of_stop_strings_that_overlap_the_one_that_ends_first_counts() -> None:
    assert before_stop("xabcd", ["abcd", "bc"]) == ("xa", True)
    assert before_stop("xabc", ["bc", "abc"]) == ("x", True)
    stops = StopFilter(["abcd", "bc"])
    assert "".join(stops.feed(character) for character in "xabcd") == "xa"


def test_without_a_stop_string_nothing_is_held_back() -> None:
    stops = StopFilter(())
    assert (stops.feed("abc"), stops.flush(), stops.hit) == ("abc", "", False)


def test_only_a_tail_that_may_become_a_stop_string_is_held_back() -> None:
    stops = StopFilter(["</end>"])
    assert stops.feed("a < b <") == "a < b "
    assert stops.feed("/e") == ""
    assert stops.feed("ast> ") == "</east> "
    assert stops.flush() == ""


def test_what_was_held_back_comes_at_the_end() -> None:
    stops = StopFilter(["</end>"])
    assert stops.feed("the </en") == "the "
    assert stops.flush() == "</en"
    assert not stops.hit


@pytest.mark.parametrize("text", ["xaab", "aaab", "ababab"])
def test_a_stop_string_that_overlaps_itself_is_found(text: str) -> None:
    stops = StopFilter(["aab" if "aab" in text else "abab"])
    shown = "".join(stops.feed(character) for character in text)
    assert stops.hit
    assert shown == text[: min(at for stop in ("aab", "abab") if (at := text.find(stop)) >= 0)]


@given(
    pieces=st.lists(st.text(alphabet="ab<é", max_size=4), max_size=12),
    stop=st.lists(st.text(alphabet="ab<é", min_size=1, max_size=4), min_size=1, max_size=3),
)
def test_cut_anywhere_the_same_text_is_shown_and_no_more_held_than_needed(pieces: list[str], stop: list[str]) -> None:
    stops = StopFilter(stop)
    shown, given_in = "", ""
    for piece in pieces:
        shown += stops.feed(piece)
        given_in += piece
        if not stops.hit:
            assert len(given_in) - len(shown) <= max(map(len, stop)) - 1
    assert (shown + stops.flush(), stops.hit) == before_stop("".join(pieces), stop)


NEAR_MISSES: dict[str, Callable[[int], tuple[str, str]]] = {
    "a long stop string": lambda n: ("b" * n, "b" * (n // 2) + "a" + "b" * (n // 2)),
    "one that repeats itself": lambda n: ("ab" * n, "ab" * (n // 2) + "b"),
    "its beginning often": lambda n: ("<en" * n, "<end>"),
}


@pytest.mark.parametrize("cut", [None, 3], ids=["whole", "in pieces"])
@pytest.mark.parametrize("name", NEAR_MISSES)
def test_a_text_is_searched_in_a_time_in_proportion_to_it(name: str, cut: int | None) -> None:
    def cost(size: int) -> tuple[int, int]:
        text, stop = NEAR_MISSES[name](size)
        counted = CopyCounter(text)
        pieces = [counted] if cut is None else [CopyCounter(text[at : at + cut]) for at in range(0, len(text), cut)]
        CopyCounter.copied = 0

        def search() -> None:
            stops = StopFilter([stop])
            for piece in pieces:
                stops.feed(piece)
            stops.flush()

        return operations(search), CopyCounter.copied

    small, large = cost(200), cost(1_600)
    assert large[0] <= 8 * 1.6 * small[0]
    assert large[1] <= 8 * 1.6 * small[1] + 100
