"""Kills jobs at random moments, and looks whether each of their rows has its answer in the end, and only one."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.bulk_report import Killed
from benchmarks.bulk_server import Server, serving
from benchmarks.run import ROOT
from workersai.batch import Progress, progress_of
from workersai.errors import JournalError

CONCURRENCY = 32
_PARTS = 20  # batches of a job
_MOST = 3  # kills of one job
_MODES: dict[str, dict[str, Any]] = {"batch": {}, "calls": {"concurrency": CONCURRENCY}}
MOMENTS = ("while its requests were read", "before the first answer", "between two answers", "after the last answer")


class _Job:
    """A job of one mode, and what is to become of its journal."""

    def __init__(self, mode: str, rows: int, journal: Path, environment: Mapping[str, str]) -> None:
        self._journal = journal
        self._environment = {**os.environ, **environment}
        self.part_size = max(1, rows // _PARTS)
        options = {**_MODES[mode], **({"part_size": self.part_size} if mode == "batch" else {})}
        self._asked = {"measure": "job", "rows": rows, "sync": False, "mode": mode, "journal": str(journal), **options}

    def run(self, seconds: float | None = None) -> dict[str, float] | None:
        """Goes on with it to its end, or for so long; None where it was killed then."""
        command = [sys.executable, "-m", "benchmarks.bulk_client", json.dumps(self._asked)]
        with subprocess.Popen(command, cwd=ROOT, env=self._environment, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603 - ourselves
            assert process.stdout is not None  # noqa: S101 - a pipe
            process.stdout.readline()  # it has begun
            if seconds is not None:
                time.sleep(seconds)
                process.kill()
            told = process.stdout.read()
        return json.loads(told) if told else None

    def progress(self) -> Progress:
        """How far it is; nothing, where it has no journal yet."""
        try:
            return progress_of(self._journal)
        except JournalError:
            return Progress()


def killed_jobs(kills: int, rows: int, folder: Path, *, batch_delay: float = 0.5, seed: int = 5) -> list[Killed]:
    """Jobs of so many rows, half of the kills on those by batches; each is run again until it ends."""
    dice = random.Random(seed)  # noqa: S311 - the same moments each time
    with serving(batch_delay=batch_delay) as server:
        return [_killed(mode, kills // 2, rows, folder, server, dice) for mode in _MODES]


def _killed(mode: str, kills: int, rows: int, folder: Path, server: Server, dice: random.Random) -> Killed:
    undisturbed = _Job(mode, rows, folder / f"{mode} undisturbed", server.environment).run() or {}
    server.asked()
    told = Killed(
        mode=mode,
        rows=rows,
        seconds=undisturbed["seconds"],
        jobs=0,
        kills=dict.fromkeys(MOMENTS, 0),
        missing=0,
        twice=0,
        wrong=0,
        left=0,
        unclear=0,
        again=0,
        most_again=0,
    )
    while sum(told["kills"].values()) < kills:
        job = _Job(mode, rows, folder / f"{mode} {told['jobs']}", server.environment)
        here, ended = 0, None
        for _ in range(min(_MOST, kills - sum(told["kills"].values()))):
            share = max(0.1, job.progress().left / rows) if here else 1.0
            # The square: early moments, in which more happens, are the more frequent.
            if ended := job.run(told["seconds"] * share * dice.random() ** 2):
                break  # it was sooner
            here += 1
            told["kills"][_moment(job.progress())] += 1
        ended = ended or job.run() or {}
        _look_at(told, job, ended, server, here)
        print(told, flush=True)
    return told


def _moment(progress: Progress) -> str:
    if not progress.ready:
        return MOMENTS[0]
    if not progress.answered:
        return MOMENTS[1]
    return MOMENTS[2 if progress.left else 3]


def _look_at(told: Killed, job: _Job, ended: dict[str, float], server: Server, kills: int) -> None:
    """Adds up what is wrong with a job that has ended, and how many rows were asked again."""
    progress, asked = job.progress(), server.asked()
    told["jobs"] += 1
    for name in ("missing", "twice", "wrong"):
        told[name] += int(ended[name])
    told["left"] += progress.left + (not progress.done)
    told["unclear"] += progress.unclear_parts
    told["again"] += asked.total() - len(asked)
    told["most_again"] += progress.unclear_parts * job.part_size if told["mode"] == "batch" else kills * CONCURRENCY
