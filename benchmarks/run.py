"""Runs the benchmarks: each subject in a process of its own, all against one server in another.

``python -m benchmarks.run [--quick]``. The repeats of a measure are interleaved over the subjects, so that what else
the machine does meets all of them, and medians are compared.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks import plan
from benchmarks.bulk_report import Bulk, section
from benchmarks.plan import ALONE, FAMILIES, OURS, PEERS, TOGETHER, TRANSPORT, WIRE, Measure
from benchmarks.report import Results, Run, page, run_of, table
from benchmarks.server import serving
from benchmarks.subjects import SUBJECTS

ROOT = Path(__file__).parents[1]
_ALL_PEERS = {peer for family in FAMILIES for peer in PEERS[family]}
_WARM_UP = Measure("", "call", "", "us", {"times": 20, "sync": True})
_OF_PEERS = 2  # repeats of a throughput; some of them take minutes
FOLDER = ROOT / "benchmarks"
RAW = FOLDER / "results.json"
BULK = FOLDER / "bulk.json"


class Worker:
    """A process that measures one subject."""

    def __init__(self, subject: str, address: str, log: Any) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - ourselves
            [sys.executable, "-m", "benchmarks.worker", subject, address],
            cwd=ROOT,
            env={name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )

    def measure(self, measure: Measure, **more: Any) -> dict[str, float]:
        """One repeat.

        Raises:
            RuntimeError: the worker has died; what it said is in the log.
        """
        assert self._process.stdin is not None  # noqa: S101 - pipes, both
        assert self._process.stdout is not None  # noqa: S101
        asked = {"measure": measure.method, **measure.args, **more}
        print(json.dumps(asked), file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"a worker died over {asked}; benchmarks/bench.log tells more")
        result: dict[str, float] = json.loads(line)
        return result

    def close(self) -> None:
        """Ends it."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait()


@contextmanager
def _workers(subjects: Iterable[str], address: str, log: Any) -> Iterator[dict[str, Worker]]:
    workers = {subject: Worker(subject, address, log) for subject in subjects}
    try:
        yield workers
    finally:
        for worker in workers.values():
            worker.close()


def _subjects(measure: Measure, *, peers: bool) -> list[str]:
    if measure.own:
        return [TRANSPORT]
    subjects = [TRANSPORT] if measure.sync is None else [WIRE[measure.sync], TRANSPORT]
    for family in FAMILIES:
        together = [TOGETHER[family]] if measure.aim is not None else []
        subjects += [ALONE[family], *together, OURS[family], *(PEERS[family] if peers and measure.peers else ())]
    return subjects


def _run(measures: list[Measure], address: str, repeats: int, *, peers: bool, log: Any) -> Results:
    results: Results = {}
    lasting = {subject for one in measures if not one.fresh for subject in _subjects(one, peers=peers)}
    with _workers(sorted(lasting), address, log) as workers:
        for subject in sorted(lasting):
            workers[subject].measure(_WARM_UP)
        for measure in (one for one in measures if not one.fresh):
            subjects = _subjects(measure, peers=peers)
            rows: dict[str, list[float]] = {subject: [] for subject in subjects}
            for number in range(min(repeats, measure.most_repeats)):
                for subject in subjects:
                    if number >= _OF_PEERS and measure.higher and subject in _ALL_PEERS:
                        continue
                    rows[subject].append(workers[subject].measure(measure)[measure.value])
            results[measure.title] = {subject: statistics.median(values) for subject, values in rows.items()}
            _show(measure, results)
    seen: dict[tuple[str, str], list[dict[str, float]]] = {}
    for measure in (one for one in measures if one.fresh):
        for subject in _subjects(measure, peers=peers):
            key = measure.method, subject
            if key not in seen:
                seen[key] = [_fresh(measure, subject, address, log) for _ in range(min(repeats, measure.most_repeats))]
            values = [result[measure.value] for result in seen[key]]
            results.setdefault(measure.title, {})[subject] = statistics.median(values)
        _show(measure, results)
    return results


def _fresh(measure: Measure, subject: str, address: str, log: Any) -> dict[str, float]:
    more = {"beside": plan.beside(SUBJECTS[subject].family)} if measure.method == "imports" else {}
    with _workers([subject], address, log) as workers:
        return workers[subject].measure(measure, **more)


def _show(measure: Measure, results: Results) -> None:
    found = ", ".join(f"{subject} {value:,.6g}" for subject, value in results[measure.title].items())
    print(f"{measure.title} ({measure.unit}): {found}", flush=True)


def main() -> None:
    """Measures, prints, and writes the page and the plots."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a part of it, in less than a minute; nothing is written")
    parser.add_argument("--no-peers", action="store_true", help="without the other packages")
    parser.add_argument("--repeats", type=int, default=25, help="most repeats of each measurement (default: 25)")
    parser.add_argument("--redraw", action="store_true", help="only write the page and the plots of the last run")
    options = parser.parse_args()
    if options.redraw:
        write()
        return
    measures = plan.measures(quick=options.quick)
    repeats = 1 if options.quick else options.repeats
    with (FOLDER / "bench.log").open("w", encoding="utf-8") as log, serving() as address:
        results = _run(measures, address, repeats, peers=not options.no_peers, log=log)
    for family in FAMILIES:
        print(f"\n{table(family, measures, results)}")
    if not (options.quick or options.no_peers):
        RAW.write_text(json.dumps(run_of(results, repeats), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        write()


def write() -> None:
    """Writes the page and the plots from the numbers of the last run."""
    from benchmarks.plots import draw  # noqa: PLC0415 - its library is not needed for the numbers

    draw(write_page()["results"], FOLDER)
    print("Its plots are written, too.")


def write_page() -> Run:
    """Writes the page alone, from the numbers of this run and of that of the bulk work; gives those of this one."""
    run: Run = json.loads(RAW.read_text(encoding="utf-8"))
    bulk: Bulk = json.loads(BULK.read_text(encoding="utf-8"))
    text = f"{page(plan.measures(quick=False), run)}\n{section(bulk)}"
    (FOLDER / "RESULTS.md").write_text(text, encoding="utf-8")
    print(f"\nWritten: {FOLDER.relative_to(ROOT)}/RESULTS.md")
    return run


if __name__ == "__main__":
    main()
