"""Runs the benchmarks of bulk work: each job in a process of its own, all against one local server in another.

``python -m benchmarks.bulk [--rows 100000] [--kills 20]``, or ``--redraw`` to only write the page of the last run.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.bulk_kills import killed_jobs
from benchmarks.bulk_report import Bulk, Numbers, Pair
from benchmarks.bulk_server import Server
from benchmarks.bulk_server import serving as serving_locally
from benchmarks.report import machine, today
from benchmarks.run import BULK, ROOT, write_page
from benchmarks.server import TEXT, serving
from benchmarks.wire import ACCOUNT, TOKEN

AT_ONCE = (32, 100)
JOBS: dict[str, dict[str, Any]] = {
    "by batches, sync": {"sync": True, "mode": "batch"},
    "by batches, async": {"sync": False, "mode": "batch"},
    **{f"by calls, async, {most} at once": {"sync": False, "mode": "calls", "concurrency": most} for most in AT_ONCE},
}
"""The jobs that are measured, with their options."""
_SMALLER = 10  # by this is the job smaller that shows whether memory grows
_REPEATS = 3  # of the pairs of a job and a plain loop; medians are told


def measured(environment: dict[str, str], **asked: Any) -> Numbers:
    """What a new process measures, with the bytes of the journal after that."""
    command = [sys.executable, "-m", "benchmarks.bulk_client", json.dumps(asked)]
    told = subprocess.run(  # noqa: S603 - ourselves
        command, cwd=ROOT, env={**os.environ, **environment}, stdout=subprocess.PIPE, check=True
    ).stdout
    numbers: Numbers = json.loads(told.splitlines()[-1])
    journal = asked.get("journal")
    return {**numbers, "journal": Path(journal).stat().st_size if journal else 0}


def _jobs(server: Server, rows: int, folder: Path) -> dict[str, list[Numbers]]:
    """Each job at both sizes, and those by batches once more from their finished journals."""
    found: dict[str, list[Numbers]] = {}

    def measure(title: str, **asked: Any) -> None:
        numbers = measured(server.environment, measure="job", **asked)
        found.setdefault(title, []).append(numbers)
        print(f"{title}, {numbers['rows']:,} rows: {numbers}", flush=True)

    for count in (rows // _SMALLER, rows):
        for title, options in JOBS.items():
            journal = str(folder / f"{title} {count}")
            measure(title, rows=count, journal=journal, **options)
            if options["mode"] == "batch":
                again = {"sync": options["sync"], "again": True, "journal": journal}
                measure(f"going on with that journal, {title.split()[-1]}", rows=count, **again)
    return found


def _pairs(rows: int, folder: Path, local: Server) -> list[Pair]:
    """Jobs by calls beside plain loops of the same calls, interleaved."""
    pairs: list[Pair] = []
    with serving() as address:
        leaner = dict(zip(local.environment, (address, ACCOUNT, TOKEN), strict=True))
        for name, environment, answer in (("local", local.environment, None), ("leaner", leaner, TEXT)):
            for most in AT_ONCE:
                asked = {"rows": rows, "concurrency": most, "answer": answer}
                job: dict[str, Any] = {"measure": "job", "sync": False, "mode": "calls", **asked}
                both = [
                    (
                        measured(environment, journal=str(folder / f"{name} {most} {number}"), **job),
                        measured(environment, measure="plain", **asked),
                    )
                    for number in range(_REPEATS)
                ]
                (job_rate, job_us), (plain_rate, plain_us) = (
                    (statistics.median(rows / one["seconds"] for one in repeats), _micros(repeats))
                    for repeats in zip(*both, strict=True)
                )
                pairs.append(
                    Pair(
                        server=name,
                        at_once=most,
                        rows=rows,
                        job_rate=job_rate,
                        plain_rate=plain_rate,
                        job_us=job_us,
                        plain_us=plain_us,
                    )
                )
                print(pairs[-1], flush=True)
    return pairs


def _micros(repeats: tuple[Numbers, ...]) -> float:
    return statistics.median(1e6 * one["cpu"] / one["rows"] for one in repeats)


def main() -> None:
    """Measures, prints, and writes the numbers and the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000, help="of the larger jobs (default: 100,000)")
    parser.add_argument("--kills", type=int, default=20, help="how often a job is killed, over all (default: 20)")
    parser.add_argument("--redraw", action="store_true", help="only write the page of the last run")
    options = parser.parse_args()
    if not options.redraw:
        bulk = run(options.rows, options.kills)
        BULK.write_text(json.dumps(bulk, indent=1) + "\n", encoding="utf-8")
    write_page()


def run(rows: int, kills: int) -> Bulk:
    """All of it."""
    before = os.getloadavg()[0]
    with TemporaryDirectory() as name:
        folder = Path(name)
        with serving_locally() as server:
            jobs = _jobs(server, rows, folder)
            pairs = _pairs(max(1, rows // _SMALLER), folder, server)
        killed = killed_jobs(kills, min(rows, 5_000), folder)
    return Bulk(
        day=today(), machine=machine(), load=(before, os.getloadavg()[0]), jobs=jobs, pairs=pairs, killed=killed
    )


if __name__ == "__main__":
    main()
