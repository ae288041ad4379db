"""A job at a terminal: a bar that moves, a budget that is kept, and Ctrl-C that loses nothing."""

from __future__ import annotations

import asyncio
import shlex
import sys
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import (
    Progress as Bar,
)
from rich.text import Text

from workersai import AsyncClient, CostTracker, RateLimit
from workersai.batch import Progress, progress_of
from workersai.commands.app import INTERRUPTED
from workersai.commands.signals import Ended, Interrupts, exit_code
from workersai.errors import BudgetExceededError, JournalError, WorkersAIError

_TICK = 0.25  # seconds between two looks at the progress


@dataclass(frozen=True)
class Limits:
    """How fast, and for how much: calls at once, requests a minute (0: no limit), US dollars for the whole job."""

    concurrency: int
    rate: int
    budget: float | None


def run_job(journal: Path, requests: Iterable[Any] | None, options: dict[str, Any], limits: Limits) -> None:
    """Runs a job to its end, or to where something stops it; then it says how to go on.

    Raises:
        WorkersAIError: what kept it from beginning.
        typer.Exit: something stopped it, and it was told how to go on.
    """
    before = progress_of(journal) if journal.exists() else Progress()
    spent = before.cost_usd + before.unclear_cost_usd
    budget = None if limits.budget is None else max(0.0, limits.budget - spent)
    ways = {
        **options,
        "journal": journal,
        "hands_over": False,
        "concurrency": limits.concurrency,
        "rate_limit": RateLimit(calls=limits.rate) if limits.rate else None,
    }
    ended = INTERRUPTED
    try:
        with CostTracker(budget) if budget is not None else nullcontext():
            progress, ended = asyncio.run(_job(requests, ways))
    except KeyboardInterrupt as interrupt:
        progress = progress_of(journal) if journal.exists() else Progress()
        ended = interrupt.code if isinstance(interrupt, Ended) else INTERRUPTED
    except WorkersAIError as error:
        if isinstance(error, JournalError) or not journal.exists() or not progress_of(journal).ready:
            raise
        larger = " a larger --budget" if isinstance(error, BudgetExceededError) else ""
        progress = progress_of(journal)
        typer.echo(f"{error}\n{_so_far(progress)} Go on with{larger}: {_again(journal)}", err=True)
        if not _came_to_something(progress):
            typer.echo("Nothing was answered: the same command with other options starts the job over.", err=True)
        raise typer.Exit(1) from None
    _conclude(progress, journal, ended)


def _came_to_something(progress: Progress) -> bool:
    return bool(progress.answered or progress.parts or progress.unclear_parts or progress.unclear_cost_usd)


def _so_far(progress: Progress) -> str:
    rows = f"{progress.rows:,} rows" if progress.rows != 1 else "1 row"
    cost = _dollars(progress.cost_usd)
    if progress.unclear_cost_usd:
        cost += f", and up to {_dollars(progress.unclear_cost_usd)} for requests whose answer was lost"
    return f"{progress.answered + progress.failed:,} of {rows} done ({cost})."


def _again(journal: Path, *options: str) -> str:
    return shlex.join(["workersai", "batch", "resume", str(journal), *options])


def _conclude(progress: Progress, journal: Path, ended: int) -> None:
    if not progress.ready:
        typer.echo("Stopped while the rows were being read: nothing was sent.", err=True)
        raise typer.Exit(ended)
    if not progress.done:
        at_work = f" {progress.parts:,} batches go on at the service meanwhile." if progress.parts else ""
        typer.echo(f"Stopped: {_so_far(progress)}{at_work} Go on with: {_again(journal)}", err=True)
        raise typer.Exit(ended)
    typer.echo(_so_far(progress), err=True)
    if progress.unclear_parts:
        typer.echo(
            f"Of {progress.unclear_parts:,} batches it is not known whether the service took them: their rows were "
            "sent again, and may be billed twice.",
            err=True,
        )
    if progress.failed:
        again = _again(journal, "--retry-failed")
        rows = "1 row" if progress.failed == 1 else f"{progress.failed:,} rows"
        typer.echo(f"{rows} ended with an error. To ask again: {again}", err=True)


async def _job(requests: Iterable[Any] | None, ways: dict[str, Any]) -> tuple[Progress, int]:
    """How far the job has come, and the exit code if that is not its end."""
    async with AsyncClient() as client, client.batch(requests, **ways) as job:
        with _bar() as bar:
            # By the bar's console, which shows it above the bar: anything else would be overwritten by it.
            interrupts = Interrupts(job.stop, lambda line: bar.console.print(line, soft_wrap=True, highlight=False))
            with interrupts.handled():
                showing = asyncio.ensure_future(_show(bar, job.progress))
                try:
                    async for _ in job:
                        pass
                finally:
                    showing.cancel()
                    _update(bar, job.progress)
    return job.progress, INTERRUPTED if interrupts.number is None else exit_code(interrupts.number)


class _Facts(ProgressColumn):
    """Rows a second, tokens, dollars so far and to come."""

    def render(self, task: Task) -> Text:
        progress: Progress | None = task.fields.get("progress")
        if progress is None or not progress.ready:
            return Text("checking the rows")
        speed = f"{task.speed:,.1f}" if task.speed else "-"
        tokens = progress.prompt_tokens + progress.completion_tokens
        to_come = ""
        if progress.answered and progress.cost_usd:
            to_come = f", about {_dollars(progress.cost_usd / progress.answered * progress.left)} to come"
        return Text(f"{speed} rows/s  {tokens:,} tokens  {_dollars(progress.cost_usd)}{to_come}")


def _dollars(amount: float) -> str:
    return f"${amount:,.2f}" if amount >= 1 else f"${amount:.4f}"


def _bar() -> Bar:
    return Bar(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Facts(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
        speed_estimate_period=30,
    )


async def _show(bar: Bar, progress: Progress) -> None:
    while True:
        _update(bar, progress)
        await asyncio.sleep(_TICK)


def _update(bar: Bar, progress: Progress) -> None:
    done = progress.answered + progress.failed
    total = progress.rows if progress.ready else None
    failed = f" {progress.failed:,} failed" if progress.failed else ""
    under_way = f" {progress.parts:,} batches queued" if progress.parts else ""
    told = {"description": f"rows{failed}{under_way}", "total": total, "progress": progress}
    if not bar.tasks:
        bar.add_task(completed=done, **told)  # type: ignore[arg-type]
    else:
        bar.update(bar.tasks[0].id, completed=done if progress.ready else progress.rows, **told)  # type: ignore[arg-type]
