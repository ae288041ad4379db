"""Every code block of the README and of the documentation: it runs, or is parsed, in the order of its page."""

import os
import sys
from pathlib import Path

import pytest
from llama_index.core import Settings

from docs.roles import to_markdown
from tests.documents import ELSEWHERE, FILES, NOT_RUN, PAGES, ROOT, Reader, blocks_of
from workersai import pacing
from workersai.local import LocalServer


@pytest.fixture
def reader(brief_smollm: LocalServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Reader:
    """In an empty folder, with credentials that name the local server."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "environ", os.environ.copy())
    for name, value in brief_smollm.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(pacing, "_limiters", {})  # a page may give the account other limits than a test
    for name, value in vars(Settings).items():  # which a page may set for the whole process
        monkeypatch.setattr(Settings, name, value)
    beside = Path(sys.executable).parent
    started = {**os.environ, "PATH": f"{beside}{os.pathsep}{os.environ['PATH']}", "RAY_USAGE_STATS_ENABLED": "0"}
    return Reader(tmp_path, started)


@pytest.mark.model
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # what the frameworks do among themselves
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_block_of_a_page_runs(reader: Reader, tmp_path: Path, page: Path) -> None:
    for name, text in FILES.get(page.relative_to(ROOT).as_posix(), {}).items():
        (tmp_path / name).write_text(text)
    for block in blocks_of(page):
        reader.take(block)


def test_each_reason_not_to_run_something_is_needed() -> None:
    text = "\n".join(block.text for page in PAGES for block in blocks_of(page))
    for row in (*NOT_RUN, *ELSEWHERE):
        assert row.what.search(text), row


@pytest.mark.parametrize(
    ("docstring", "markdown"),
    [
        (
            "See :class:`~workersai.Client`.",
            'See <autoref identifier="workersai.Client" optional><code>Client</code></autoref>.',
        ),
        (
            ":meth:`run` of it.",
            '<autoref identifier="here.run" optional><code>run</code></autoref> of it.',
        ),
        ("So many (wire.md#errors).", "So many."),
        ("So many\n(wire.md#tool-calls, wire.md#streams), and more.", "So many, and more."),
        (
            "Example:\n    .. code-block:: python\n\n        a = 1\n\nMore.",
            "Example:\n    ```python\n    a = 1\n    ```\nMore.",
        ),
        ("So::\n\n    a = 1\n    b = 2\n\nMore.", "So:\n\n```python\na = 1\nb = 2\n```\nMore."),
        ("===  ===\na    b\n===  ===\n1    2 3\n===  ===", "| a | b |\n| --- | --- |\n| 1 | 2 3 |"),
    ],
)
def test_a_docstring_becomes_markdown(docstring: str, markdown: str) -> None:
    assert to_markdown(docstring, lambda name: name if "." in name else f"here.{name}") == markdown
