"""The report of a run: a table for people, an object for programs."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workersai._doctor.findings import Finding, Status
from workersai._version import __version__

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

_WIDE = 1_000  # columns for what is not read at a terminal
_NARROW = 64  # columns, below which a row is a paragraph
_OTHER_SHAPES = (
    "Some replies don't have the expected shape. The library reads the shapes it names, so this is no failure, but a "
    "report helps: run `workersai doctor --save FILE` and attach the file."
)
_STYLES: dict[Status, str] = {"ok": "green", "warn": "yellow", "fail": "bold red", "skip": "dim"}
_MARKS: dict[Status, str] = {"ok": "ok", "warn": "WARN", "fail": "FAIL", "skip": "skip"}


@dataclass(frozen=True)
class Costs:
    """US dollars: at most, by the estimate before the run, and by the usage of the replies."""

    most: float | None
    used: float


def report_object(findings: Sequence[Finding], model: str, costs: Costs, exit_code: int) -> dict[str, Any]:
    """The object that ``--json`` prints."""
    return {
        "version": __version__,
        "model": model,
        "exit_code": exit_code,
        "estimated_cost_usd": costs.most,
        "cost_usd": round(costs.used, 6),
        "checks": [_check_object(finding) for finding in findings],
    }


def _check_object(finding: Finding) -> dict[str, Any]:
    return {
        "name": finding.name,
        "status": finding.status,
        "summary": finding.summary,
        "advice": finding.advice,
        "shape": finding.shape,
        "expected_shape": finding.expected_shape,
        "prompt_tokens": finding.prompt_tokens,
        "completion_tokens": finding.completion_tokens,
        "seconds": finding.seconds,
        "details": finding.details,
    }


def print_report(findings: Sequence[Finding], costs: Costs) -> None:
    """Prints the table, and a line that sums it up, to stdout."""
    from rich.console import Console  # noqa: PLC0415 - takes longer to import than all else here

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_WIDE)
    console.print(_paragraphs(findings) if console.width < _NARROW else _table(findings))
    console.print()
    if any(finding.expected_shape not in (None, finding.shape) for finding in findings):
        console.print(_OTHER_SHAPES)
    console.print(summary_line(findings, costs))


def summary_line(findings: Sequence[Finding], costs: Costs) -> str:
    """How many checks went well, and what the run cost."""
    counts = Counter(finding.status for finding in findings)
    warnings = f"{counts['warn']} {'warning' if counts['warn'] == 1 else 'warnings'}"
    parts = [f"{counts['ok']} ok", warnings, f"{counts['fail']} failed", f"{counts['skip']} skipped"]
    return f"{', '.join(parts)}. Cost: {dollars(costs.used)} by the usage of the replies."


def dollars(amount: float) -> str:
    """A small amount of US dollars."""
    return f"${amount:.4f}"


def _table(findings: Sequence[Finding]) -> RenderableType:
    from rich.table import Table  # noqa: PLC0415 - as above

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("Check", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("Shape", no_wrap=True)
    table.add_column("Found", overflow="fold")
    for finding in findings:
        table.add_row(finding.name, _mark(finding), finding.shape or "", _found(finding))
    return table


def _paragraphs(findings: Sequence[Finding]) -> RenderableType:
    from rich.console import Group  # noqa: PLC0415 - as above
    from rich.padding import Padding  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    parts: list[RenderableType] = []
    for finding in findings:
        shape = f" ({finding.shape})" if finding.shape else ""
        parts += [_mark(finding) + Text(f" {finding.name}{shape}"), Padding(_found(finding), (0, 0, 0, 5))]
    return Group(*parts)


def _mark(finding: Finding) -> Text:
    from rich.text import Text  # noqa: PLC0415 - as above

    return Text(_MARKS[finding.status], _STYLES[finding.status])


def _found(finding: Finding) -> Text:
    from rich.text import Text  # noqa: PLC0415 - as above

    # As Text without control characters: these may be the words of a service.
    text = Text(_printable(finding.summary), "dim" if finding.status == "skip" else "")
    if finding.expected_shape not in (None, finding.shape):
        text.append(f"; expected shape: {finding.expected_shape}")
    if finding.advice:
        text.append(f"\n-> {_printable(finding.advice)}", "bold" if finding.status == "fail" else "")
    return text


def _printable(text: str) -> str:
    text = "".join(each if each.isprintable() else " " for each in text)
    return text.encode(sys.stdout.encoding, "backslashreplace").decode(sys.stdout.encoding)
