"""What the site takes from elsewhere in the repository: the help of the command, the plots and the notebooks."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
PLOTS = ROOT / "benchmarks"
NOTEBOOKS = ROOT / "notebooks"
WIDE = ("reliability.md", "benchmarks.md")
"""Pages of wide tables, which take the place of the table of contents."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the plots of the benchmarks, and the notebooks as files to download."""
    for path in (*sorted(PLOTS.glob("*.png")), *sorted(NOTEBOOKS.glob("*.ipynb"))):
        files.append(File.generated(config, f"{path.parent.name}/{path.name}", abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Writes what a page has a marker for."""
    if page.file.src_uri in WIDE:
        page.meta["hide"] = ["toc"]
    for marker, write in (("<!-- the command -->", help_of_the_command), ("<!-- the notebooks -->", notebooks)):
        if marker in markdown:
            markdown = markdown.replace(marker, write())
    return markdown


def help_of_the_command() -> str:
    """What ``--help`` says, of the command and all below it, as Markdown."""
    from typer import Context  # noqa: PLC0415 - only one page needs it
    from typer.cli import get_docs_for_click  # noqa: PLC0415
    from typer.main import get_command  # noqa: PLC0415

    from workersai.commands import app  # noqa: PLC0415

    command = get_command(app)
    context = Context(command, info_name="workersai")
    told = get_docs_for_click(obj=command, ctx=context, name="workersai")
    told = re.sub(r"\*\*Commands\*\*:\n\n(\* .*\n)+\n?", "", told)  # cut short; each has its own heading below
    return told.partition("\n")[2]


def notebooks() -> str:
    """A table of the notebooks: title, first sentence, and the file."""
    rows = [
        f"| [{title}](notebooks/{name}) | {first} |" for name, title, first in map(_told, NOTEBOOKS.glob("*.ipynb"))
    ]
    return "\n".join(["| notebook | what it shows |", "| --- | --- |", *sorted(rows)]) if rows else "There is none yet."


def _told(path: Path) -> tuple[str, str, str]:
    cells: list[dict[str, Any]] = json.loads(path.read_text())["cells"]
    lines = "".join(next(cell["source"] for cell in cells if cell["cell_type"] == "markdown")).splitlines()
    title, *rest = [line.strip() for line in lines if line.strip()]
    return path.name, title.lstrip("# "), " ".join(rest).partition(". ")[0]
