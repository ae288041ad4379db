"""The benchmarks run: each measure gives its number, and the page has its row. How fast it is is not looked at."""

from collections.abc import Iterator
from typing import Any

import pytest

from benchmarks import plan
from benchmarks.plan import FAMILIES, Measure
from benchmarks.report import page, run_of, table
from benchmarks.server import serving
from benchmarks.subjects import SUBJECTS
from benchmarks.worker import Worker

SMALL = {"at_once": 2, "most": 4, "times": 3, "pieces": 5, "seconds": 20}
# Without httpx's own, whose connections nobody closes.
OURS = ["workersai", *plan.OURS.values()]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with serving() as served:
        yield served


def asked(measure: Measure) -> dict[str, Any]:
    return {name: SMALL.get(name, value) for name, value in measure.args.items()}


@pytest.mark.parametrize("name", [*OURS, *plan.ALONE.values()])
def test_each_measure_gives_its_number(name: str, address: str) -> None:
    worker = Worker(SUBJECTS[name], address)
    for measure in plan.measures(quick=False):
        if measure.method != "imports" and not (measure.own and name != "workersai"):
            found = getattr(worker, measure.method)(**asked(measure))
            assert found[measure.value] > 0 or measure.value == "kib", measure.title
            assert not found.get("failed"), measure.title
            assert found.get("whole", True), measure.title


def test_the_page_has_a_row_for_each_measure() -> None:
    for quick in (True, False):
        measures = plan.measures(quick=quick)
        results = {measure.title: dict.fromkeys(SUBJECTS, 2.0) for measure in measures}
        tables = [table(family, measures, results) for family in FAMILIES]
        assert all(f"| {measure.title}" in text for text in tables for measure in measures if not measure.own)
    written = page(measures, run_of(results, 3))
    assert all(text in written for text in tables)
    assert "| 2 | 1 | 2.00 | ≥ 0.8: yes |" in written
    assert "| 2 | 4 | 0.50 | ≤ 1.2: yes |" in written
