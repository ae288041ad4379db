"""``workersai models``: the catalogue, for people and for programs."""

import json
import re
from dataclasses import asdict

import pytest

from tests.workersai.commands.running import PLAIN, at_terminal, finished
from workersai import CATALOG, EMBEDDING_CATALOG
from workersai.catalog import RERANKER_CATALOG


def test_the_table_is_whole_where_it_is_not_read_at_a_terminal() -> None:
    done = finished("models", environment={**PLAIN, "COLUMNS": "20"})
    assert (done.returncode, done.stderr) == (0, "")
    told, vectors = done.stdout.split("\n\n")
    head, *rows = told.splitlines()
    assert head.split() == ["Model", "Window", "$/M", "in", "$/M", "out", "Tools", "JSON", "Mode", "Batch", "LoRA"]
    card = CATALOG["@cf/meta/llama-3.3-70b-instruct-fp8-fast"]
    assert rows[0].split() == [card.name, "24,000", "0.29", "2.25", "yes", "yes", "yes", "yes"]
    assert [row.split()[0] for row in rows] == list(CATALOG)
    head, *rows = vectors.splitlines()
    assert head.split() == ["Model", "Reads", "$/M", "in", "Vector", "Pooling", "Batch"]
    assert [row.split()[0] for row in rows] == [*EMBEDDING_CATALOG, *RERANKER_CATALOG]
    assert rows[0].split() == ["@cf/baai/bge-small-en-v1.5", "512", "0.0200", "384", "yes", "yes"]
    assert rows[-1].split() == ["@cf/baai/bge-reranker-base", "512", "0.0031", "a", "score", "no", "no"]


@pytest.mark.parametrize("columns", [200, 80, 60])
def test_nothing_of_the_table_is_cut_off_at_a_terminal(columns: int) -> None:
    with at_terminal("models", environment={**PLAIN, "TERM": "xterm", "COLUMNS": str(columns)}) as terminal:
        code, shown = terminal.end()
    lines = re.sub(r"\x1b\[\d*m", "", shown).splitlines()
    assert (code, "…" in shown) == (0, False)
    assert max(map(len, lines)) <= columns
    names = "".join(line.split(" ")[0] for line in lines)
    assert all(name in names for name in CATALOG)
    assert [price for line in lines for price in re.findall(r"\d\.\d\d\b", line)] == ["0.29", "2.25"]


def test_programs_get_all_that_the_catalogue_knows() -> None:
    done = finished("models", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    assert told[0] == {"task": "text generation", **asdict(CATALOG[told[0]["name"]])}
    assert [card["name"] for card in told] == [*CATALOG, *EMBEDDING_CATALOG, *RERANKER_CATALOG]
    assert {card["task"] for card in told} == {"text generation", "embeddings", "reranking"}
