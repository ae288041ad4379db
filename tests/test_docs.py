"""Every code block of the README and of the documentation: it runs, or is parsed, in the order of its page."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from llama_index.core import Settings

from tests.documents import FILES, NOT_RUN, OWN_PROCESS, PAGES, ROOT, Reader, blocks_of
from workersai.local import LocalServer


@pytest.fixture
def reader(smollm: LocalServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Reader]:
    """In an empty folder, with credentials that name the local server."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "environ", os.environ.copy())
    for name, value in smollm.environment.items():
        monkeypatch.setenv(name, value)
    for name, value in vars(Settings).items():  # which a page may set for the whole process
        monkeypatch.setattr(Settings, name, value)
    beside = Path(sys.executable).parent
    started = {**os.environ, "PATH": f"{beside}{os.pathsep}{os.environ['PATH']}", "RAY_USAGE_STATS_ENABLED": "0"}
    return Reader(tmp_path, started)


@pytest.mark.model
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_block_of_a_page_runs(reader: Reader, tmp_path: Path, page: Path) -> None:
    for name, text in FILES.get(page.relative_to(ROOT).as_posix(), {}).items():
        (tmp_path / name).write_text(text)
    for block in blocks_of(page):
        reader.take(block)


def test_each_reason_not_to_run_something_is_needed() -> None:
    text = "\n".join(block.text for page in PAGES for block in blocks_of(page))
    for row in (*NOT_RUN, *OWN_PROCESS):
        assert row.what.search(text), row
