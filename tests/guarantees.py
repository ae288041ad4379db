"""The guarantees beyond single failures: the shape of the later tables of ``docs/reliability.md``.

``guarantees_calls.py`` and ``guarantees_jobs.py`` hold them, and ``reliability.py`` writes the page.
"""

from __future__ import annotations

from dataclasses import dataclass

HERE = "tests/workersai"


@dataclass(frozen=True)
class Row:
    """One guarantee: the cells of its row, and the tests that hold it.

    A test is named as in ``file::function``. A file alone stands for all of its tests.
    """

    cells: tuple[str, ...]
    tests: tuple[str, ...]


@dataclass(frozen=True)
class Section:
    """A table of the page. The column of the tests is added to ``columns``."""

    title: str
    text: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]


def new_row(*cells: str, tests: tuple[str, ...]) -> Row:
    """A row with its cells as they stand."""
    return Row(cells, tests)
