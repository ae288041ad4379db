"""The benchmarks run: each measure gives its number, and the page has its row. How fast it is is not looked at."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks import bulk_client, plan
from benchmarks.bulk import JOBS
from benchmarks.bulk_kills import killed_jobs
from benchmarks.bulk_report import Bulk, Killed, Numbers, Pair, section
from benchmarks.bulk_server import Server
from benchmarks.bulk_server import serving as serving_locally
from benchmarks.plan import FAMILIES, Measure
from benchmarks.report import page, run_of, table
from benchmarks.retrieval import RERANKED, Labelled, measured
from benchmarks.retrieval import page as page_of_retrieval
from benchmarks.server import serving
from benchmarks.subjects import SUBJECTS
from benchmarks.worker import Worker

SMALL = {"at_once": 2, "most": 4, "times": 3, "pieces": 5, "seconds": 300}
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


@pytest.fixture(scope="module")
def bulk_server() -> Iterator[Server]:
    with serving_locally() as served:
        yield served


@pytest.fixture
def told_server(bulk_server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    for name, value in bulk_server.environment.items():
        monkeypatch.setenv(name, value)
    return bulk_server


def whole(numbers: Numbers) -> bool:
    return not numbers["missing"] and not numbers["twice"] and not numbers["wrong"]


@pytest.mark.usefixtures("told_server")
@pytest.mark.parametrize("title", JOBS)
def test_each_job_of_bulk_work_gives_its_numbers(title: str, tmp_path: Path) -> None:
    job = {**JOBS[title], "rows": 300, "journal": str(tmp_path / "journal")}
    numbers = bulk_client.job(**job)
    assert whole(numbers)
    assert whole(bulk_client.job(**job, again=True))
    assert all(numbers[name] > 0 for name in ("seconds", "reading", "cpu", "begun_mib", "first_mib", "peak_mib"))


@pytest.mark.usefixtures("told_server")
def test_a_plain_loop_makes_the_same_calls() -> None:
    assert whole(bulk_client.plain(rows=50, concurrency=4))


def test_killed_jobs_end_whole(tmp_path: Path) -> None:
    for killed in killed_jobs(2, 300, tmp_path, batch_delay=0.1):
        assert sum(killed["kills"].values()) == 1
        assert killed["missing"] == killed["twice"] == killed["wrong"] == killed["left"] == 0
        assert killed["again"] <= killed["most_again"]


def test_the_page_has_a_row_for_each_job_of_bulk_work() -> None:
    numbers = dict.fromkeys(("seconds", "reading", "cpu", "begun_mib", "first_mib", "peak_mib", "journal"), 2.0)
    pair = Pair(server="local", at_once=32, rows=9, job_rate=1, plain_rate=2, job_us=4, plain_us=5)
    counts = dict.fromkeys(("jobs", "missing", "twice", "wrong", "left", "unclear", "again", "most_again"), 7)
    killed = Killed(mode="calls", rows=9, seconds=1, kills={"sooner": 3, "later": 4}, **counts)  # type: ignore[typeddict-item]  # all counts
    written = section(
        Bulk(
            day="today",
            machine="here",
            load=(0.5, 1.5),
            jobs={title: [{**numbers, "rows": 1_000}, {**numbers, "rows": 2_000}] for title in JOBS},
            pairs=[pair],
            killed=[killed],
        )
    )
    assert all(f"| {title} | 2,000 | 1,000 | 1,000 | 1,000 | 2 | 2 | 2 | 0 |" in written for title in JOBS)
    assert "| 9 of the local server | 32 | 1 | 2 | 0.50 | 4 | 5 |" in written
    assert "|  | 7 jobs of 9 rows by calls |" in written
    assert "| killed | 7 |\n| killed sooner | 3 |" in written


@pytest.mark.model
def test_each_way_to_search_gives_its_row() -> None:
    labelled = Labelled.read()
    small = labelled.small(2)
    assert 2 <= len(small.passages) < RERANKED < len(labelled.passages)
    rows = measured(small)
    assert all(0 <= share <= 1 for row in rows for share in row.recall)
    assert all(0 < share <= 1 for row in rows for share in row.rank)
    assert sum(next(row.rank for row in rows if row.title == "embeddings")) > 1
    written = page_of_retrieval(small, rows)
    assert all(f"\n| {row.title} | " in written for row in rows)


def test_the_questions_of_retrieval_are_answered_by_passages() -> None:
    labelled = Labelled.read()
    assert (len(labelled.passages), len(labelled.questions)) == (262, 70)
    assert len(set(labelled.passages)) == 262
    assert all(labelled.answers)
