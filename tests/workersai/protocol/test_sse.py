"""The decoder against the WHATWG standard's own examples, and against every way a network can cut."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workersai.protocol.sse import SSEDecoder


def decode(*chunks: bytes) -> list[bytes]:
    decoder = SSEDecoder()
    return [event for chunk in chunks for event in decoder.feed(chunk)] + decoder.close()


def test_data_lines_of_one_event_are_joined_by_a_line_feed() -> None:
    assert decode(b"data: YHOO\ndata: +2\ndata: 10\n\n") == [b"YHOO\n+2\n10"]


def test_comments_ids_and_event_names_are_no_data() -> None:
    assert decode(b": test stream\n\ndata: first event\nid: 1\n\nevent: x\ndata:second event\nid\n\n") == [
        b"first event",
        b"second event",
    ]


def test_an_event_of_empty_data_is_an_event() -> None:
    assert decode(b"data\n\ndata\ndata\n\n") == [b"", b"\n"]


def test_only_one_space_after_the_colon_is_dropped() -> None:
    assert decode(b"data:test\n\ndata: test\n\ndata:  test\n\n") == [b"test", b"test", b" test"]


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_every_line_end_of_the_standard_ends_a_line(end: bytes) -> None:
    assert decode(end.join([b"data: a", b"", b"data: b", b"data: c", b"", b""])) == [b"a", b"b\nc"]


def test_an_event_is_handed_over_as_soon_as_its_last_line_has_ended() -> None:
    decoder = SSEDecoder()
    assert decoder.feed(b"data: a\r\n\r") == [b"a"]
    assert decoder.feed(b"\ndata: b\n\n") == [b"b"]


def test_a_byte_order_mark_is_skipped_wherever_it_is_cut() -> None:
    assert decode(b"\xef", b"\xbb", b"\xbfdata: a\n\n") == [b"a"]


def test_an_event_without_its_blank_line_is_handed_over_at_the_end() -> None:
    assert decode(b"data: a\n\ndata: b") == [b"a", b"b"]


def test_line_separators_of_unicode_and_vertical_tabs_end_no_line() -> None:
    data = "a\u2028b\u0085c\x0bd\x0ce\x1cf".encode()
    assert decode(b"data: " + data + b"\n\n") == [data]


@given(
    events=st.lists(st.text(alphabet=st.characters(exclude_characters="\r\n"), min_size=1), max_size=5),
    end=st.sampled_from(["\n", "\r", "\r\n"]),
    cuts=st.lists(st.integers(min_value=0, max_value=200), max_size=8),
)
def test_where_the_bytes_are_cut_makes_no_difference(events: list[str], end: str, cuts: list[int]) -> None:
    body = "".join(f": ping{end}data: {event}{end}{end}" for event in events).encode("utf-8", "surrogatepass")
    places = sorted({min(cut, len(body)) for cut in cuts})
    chunks = [body[a:b] for a, b in zip([0, *places], [*places, len(body)], strict=True)]
    assert decode(*chunks) == [event.encode("utf-8", "surrogatepass") for event in events]
