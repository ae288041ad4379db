"""The page on the HTTP API: the sections that the code refers to, and the samples and sources that it names."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "internals" / "wire.md"
SAMPLES = ROOT / "tests" / "wire" / "samples"
FOLDERS = ("workersai", "langchain_workersai", "llamaindex_workersai", "tests", "docs", "benchmarks", "examples")
CODE = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py") if path != Path(__file__))

_FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_LINK = re.compile(r"wire\.md#([\w-]*)")
_KEY = re.compile(r"`([a-z]\d\d)`")
_FILE = re.compile(r"`([a-z]\d\d_\w+\.(?:json|sse))`")
_CITED = re.compile(r"\bids?\s+(\d+(?:(?:,|\s+and)\s+\d+)*)")
_SOURCE_ROW = re.compile(r"^\| (\d[\d, ]*) \|", re.MULTILINE)


def page() -> str:
    return PAGE.read_text()


def anchors() -> list[str]:
    """The anchor of each heading, as the site and Markdown viewers make it."""
    headings = _HEADING.findall(_FENCE.sub("", page()))
    return [re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings]


def test_each_anchor_is_unique() -> None:
    assert len(set(anchors())) == len(anchors())


@pytest.mark.parametrize("path", [*CODE, PAGE], ids=lambda path: path.relative_to(ROOT).as_posix())
def test_each_section_that_the_code_refers_to_exists(path: Path) -> None:
    assert not set(_LINK.findall(path.read_text())) - set(anchors())


def test_the_code_refers_to_sections() -> None:
    """Otherwise the test above would check nothing."""
    assert len([path for path in CODE if _LINK.search(path.read_text())]) > 20


@pytest.mark.parametrize("path", CODE, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_comment_names_the_page_without_a_section(path: Path) -> None:
    assert "wire page" not in path.read_text().lower(), "Refer to a section, for example wire.md#streams."


def test_each_sample_that_the_page_names_exists() -> None:
    files = {path.name for path in SAMPLES.iterdir()}
    assert set(_FILE.findall(page())) <= files
    assert set(_KEY.findall(page())) <= {name.partition("_")[0] for name in files}


def test_each_sample_is_listed_with_its_key() -> None:
    for name in _FILE.findall(page()):
        assert f"| `{name[:3]}` | `{name}` |" in page()


def test_each_source_is_described_and_used() -> None:
    text, _, sources = page().partition("\n## Sources\n")
    cited = {number for found in _CITED.findall(text) for number in re.findall(r"\d+", found)} - {"123"}  # an example
    described = {number for row in _SOURCE_ROW.findall(sources) for number in re.findall(r"\d+", row)}
    assert cited == described
