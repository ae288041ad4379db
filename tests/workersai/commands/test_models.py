"""``workersai models``: the catalogue, for people and for programs."""

import json
import re
from dataclasses import asdict

import pytest

from tests.workersai.commands.running import PLAIN, at_terminal, finished
from workersai import CATALOG


def test_the_table_is_whole_where_it_is_not_read_at_a_terminal() -> None:
    done = finished("models", environment={**PLAIN, "COLUMNS": "20"})
    assert (done.returncode, done.stderr) == (0, "")
    head, *rows = done.stdout.splitlines()
    assert head.split() == ["Model", "Window", "$/M", "in", "$/M", "out", "Tools", "JSON", "Mode", "Batch", "LoRA"]
    card = CATALOG["@cf/meta/llama-3.3-70b-instruct-fp8-fast"]
    assert rows[0].split() == [card.name, "24,000", "0.29", "2.25", "yes", "yes", "yes", "yes"]
    assert [row.split()[0] for row in rows] == list(CATALOG)


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
    assert json.loads(done.stdout) == [asdict(card) for card in CATALOG.values()]
