"""The notebooks: each runs from top to bottom without an account, and the stored ones are such runs."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest

from notebooks.run import NOTEBOOKS, executed
from tests.support import Serve
from workersai.local import Answer
from workersai.local.engine import CalledTool, GenerationRequest

# What each of them shows, whatever the model says: kinds of output, and words in them.
SHOWN = {
    "agent": ({"text/html"}, ["Question", "Calls", "returned", "Answer", "CostTracker", "<table"]),
    "chat_and_cost": (
        {"image/png", "text/html", "text/markdown"},
        ["First words after", "BudgetExceededError", "<table"],
    ),
    "extraction": ({"text/html", "text/markdown"}, ["<progress", "mails could not be read", "whole row", "<table"]),
    "rag": ({"image/png", "text/html", "text/markdown"}, ["Sources:", "ContextWindowExceededError", "<table"]),
}
EXTRACTION = NOTEBOOKS[0].with_name("extraction.ipynb")

STALE = "what is stored is of an older version: run make notebooks"

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def stored(path: Path) -> Any:
    return nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def outputs(notebook: Any) -> Iterator[Any]:
    for cell in code_cells(notebook):
        yield from cell.outputs


def shape(cell: Any) -> set[Any]:
    """What a cell shows, whatever the model says: the kinds of output, and the words around the numbers."""
    return {(*sorted(output.data), re.sub(r"\d[\d,.]*", "0", output.data["text/plain"])) for output in cell.outputs}


def assert_shows_what_it_should(notebook: Any, name: str) -> None:
    kinds, words = SHOWN[name]
    assert {output.output_type for output in outputs(notebook)} <= {"display_data", "execute_result"}, "no noise"
    shown = [output.data for output in outputs(notebook)]
    assert kinds <= {kind for each in shown for kind in each}
    text = json.dumps(shown)
    assert [word for word in words if word not in text] == []
    assert all(cell.outputs for cell in code_cells(notebook)[1:] if "display(" in cell.source)


@pytest.mark.model
@pytest.mark.slow
@each_notebook
def test_a_notebook_runs_without_an_account_as_it_is_stored(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORKERSAI_NOTEBOOK_ROWS", "26")  # of which some go wrong, like some of the 200 that are stored
    ran = executed(path, tmp_path)
    assert_shows_what_it_should(ran, path.stem)
    (first, *_) = outputs(ran)
    assert "No credentials are set" in first.data["text/plain"]
    assert [cell.source for cell in ran.cells] == [cell.source for cell in stored(path).cells]
    assert [shape(cell) for cell in code_cells(ran)] == [shape(cell) for cell in code_cells(stored(path))], STALE
    assert list(tmp_path.iterdir()) == [], "it leaves nothing behind"


def test_a_notebook_runs_unchanged_with_credentials_and_tells_what_failed(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def only_lamps(request: GenerationRequest) -> str:
        return '{"quantity": 7, "item": "lamp", "city": "Rome"}' if "lamp" in request.messages[-1].content else "{}"

    server = serve(only_lamps)
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("WORKERSAI_NOTEBOOK_ROWS", "20")
    shown = [output.data for output in outputs(executed(EXTRACTION, tmp_path))]
    assert shown[0]["text/plain"] == f"Credentials are set: this runs on {server.base_url}."
    _, *mails = [record.body["messages"][-1]["content"] for record in server.requests]
    lamps = sum("lamp" in mail for mail in mails)
    assert 0 < lamps < 20
    told = json.dumps(shown)
    assert f"**{20 - lamps} of 20 mails could not be read**; {lamps} are wrong in places." in told
    assert "The answer is no valid Mail" in told


@pytest.mark.slow
@pytest.mark.parametrize("path", [path for path in NOTEBOOKS if path != EXTRACTION], ids=lambda path: path.stem)
def test_the_other_notebooks_run_unchanged_with_credentials(
    path: Path, serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def script(request: GenerationRequest) -> Answer | str:
        if request.tools and request.messages[-1].role == "user":
            return Answer("", tool_calls=(CalledTool("next_ferry", {"island": "Skye"}),))
        return "The sky is blue."

    server = serve(script)
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    ran = executed(path, tmp_path)
    assert_shows_what_it_should(ran, path.stem)
    assert "Credentials are set" in next(outputs(ran)).data["text/plain"]
    assert server.requests


@each_notebook
def test_a_notebook_is_stored_with_the_outputs_of_one_run(path: Path) -> None:
    notebook = stored(path)
    counts = [cell.execution_count for cell in code_cells(notebook)]
    assert counts == list(range(1, len(counts) + 1)), STALE
    assert_shows_what_it_should(notebook, path.stem)


@each_notebook
def test_a_stored_notebook_tells_nothing_of_the_machine_that_ran_it(path: Path) -> None:
    notebook = stored(path)
    assert notebook.metadata == {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    assert all(cell.metadata == {} for cell in notebook.cells)
    text = re.sub(r'"image/png": "[^"]*"', "", path.read_text())
    assert (
        re.findall(r"/(?:home|root|tmp|Users|usr|var|opt|work)/\S*|127\.0\.0\.1\S*|localhost\S*| at 0x\w+", text) == []
    )
    assert path.stat().st_size < 300_000


def test_no_notebook_was_forgotten() -> None:
    assert {path.stem for path in NOTEBOOKS} == set(SHOWN)
