"""Usage is counted rightly by each convention of the service, and partial counts are kept."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workersai.protocol.usage import Counts, UsageCounter, counts_of, usage_of

ZERO = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}


def wire(prompt: int, completion: int, **more: Any) -> dict[str, Any]:
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion, **more}


def pair(counts: Counts | None) -> tuple[float, float] | None:
    return None if counts is None else (counts.prompt, counts.completion)


prompts = st.integers(1, 50_000)
pieces = st.lists(st.integers(1, 20), min_size=1, max_size=30)


def in_increments(prompt: int, counts: list[int]) -> list[dict[str, Any]]:
    return [wire(prompt, 0), *(wire(0, count) for count in counts)]


def cumulative(prompt: int, counts: list[int]) -> list[dict[str, Any]]:
    return [wire(prompt, sum(counts[:end])) for end in range(len(counts) + 1)]


@given(prompts, pieces, st.lists(st.integers(0, 31), max_size=5))
@pytest.mark.parametrize("convention", [in_increments, cumulative])
def test_counts_of_each_event_give_what_was_received_so_far(
    convention: Any, prompt: int, counts: list[int], zeros: list[int]
) -> None:
    events = convention(prompt, counts)
    for cut in range(1, len(events) + 1):
        counter = UsageCounter()
        for number, event in enumerate(events[:cut]):
            if number in zeros:
                counter.add(ZERO, is_total=False)
            counter.add(event, is_total=False)
        counter.add(ZERO, is_total=False)
        counter.add(ZERO, is_total=True)
        assert pair(counter.counts) == (prompt, sum(counts[: cut - 1]))


@given(prompts, pieces, st.booleans())
@pytest.mark.parametrize("convention", [in_increments, cumulative, lambda *_: []])
def test_an_event_without_choices_is_the_total(
    convention: Any, prompt: int, counts: list[int], heartbeat: bool
) -> None:
    counter = UsageCounter()
    for event in convention(prompt, counts):
        counter.add(event, is_total=False)
    counter.add(wire(prompt, 999, neurons=2.5), is_total=True)
    if heartbeat:
        counter.add(ZERO, is_total=True)
    assert pair(counter.counts) == (prompt, 999)
    assert counter.counts is not None
    assert counter.counts.neurons == 2.5


def test_increments_of_cached_tokens_and_neurons_are_summed() -> None:
    counter = UsageCounter()
    counter.add(wire(39, 0, prompt_tokens_details={"cached_tokens": 16}, neurons=1.0), is_total=False)
    counter.add(wire(0, 3, prompt_tokens_details={"cached_tokens": 0}, neurons=0.5), is_total=False)
    assert counter.counts == Counts(39, 3, 16, 1.5)


def test_only_zeros_are_zeros_and_nothing_is_none() -> None:
    counter = UsageCounter()
    assert counter.counts is None
    counter.add(ZERO, is_total=False)
    assert pair(counter.counts) == (0, 0)


@pytest.mark.parametrize(
    "unusable", [None, {}, [], "7", {"prompt_tokens": "x"}, {"prompt_tokens": -1}, {"completion_tokens": 10**400}]
)
def test_what_can_not_be_added_up_is_no_usage(unusable: Any) -> None:
    assert counts_of(unusable) is None
    counter = UsageCounter()
    counter.add(wire(3, 4), is_total=True)
    counter.add(unusable, is_total=True)
    assert pair(counter.counts) == (3, 4)


def test_the_names_of_a_responses_output_are_read() -> None:
    usage = usage_of({"input_tokens": 20, "output_tokens": 9, "input_tokens_details": {"cached_tokens": 4}}, "@cf/a/b")
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens) == (20, 9, 4)


def test_neurons_come_from_the_field_or_else_from_the_header() -> None:
    named, other = (usage_of(wire(1, 1, **more), "@cf/a/b", neurons=7.0) for more in ({"neurons": 2.0}, {}))
    assert named is not None
    assert other is not None
    assert (named.neurons, other.neurons) == (2.0, 7.0)
    assert (named + other).neurons == 9.0
    without = usage_of(wire(1, 1), "@cf/a/b")
    assert without is not None
    assert (named + without).neurons is None
