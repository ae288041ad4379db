"""``workersai batch run --dry-run``: what it shows is an estimate, with the bound beside it."""

import contextlib
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.workersai.commands.running import PATIENCE, PLAIN
from tests.workersai.commands.test_tokens import WITHOUT_TOKENIZER
from workersai import CATALOG, DEFAULT_MODEL, Message, count_tokens
from workersai.batch import BatchRequest
from workersai.commands.estimate import estimate

TEXT = "Watu wote wamezaliwa huru, hadhi na haki zao ni sawa."
CARD = CATALOG[DEFAULT_MODEL]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in.jsonl"
    path.write_text(f"{json.dumps({'prompt': TEXT})}\n" * 100)
    return path


def dry_run(program: str, source: Path, *options: str) -> dict[str, str]:
    """The lines that it prints, by their first words."""
    command = [sys.executable, "-c", program, "batch", "run", str(source), "--dry-run", "--max-tokens", "10", *options]
    done = subprocess.run(  # noqa: S603
        command, capture_output=True, text=True, timeout=PATIENCE, check=True, env=PLAIN
    )
    return {line.split()[0]: line.split(maxsplit=1)[1] for line in done.stdout.splitlines()}


def test_with_the_tokenizer_prompts_are_counted(source: Path) -> None:
    count = 100 * count_tokens([Message("user", TEXT)])
    lines = dry_run("from workersai.cli import main; main()", source)
    assert lines["prompts"] == f"{count:,} tokens"
    prompts, most = CARD.cost_usd(count, 0), CARD.cost_usd(count, 1_000)
    assert lines["price"] == f"${prompts:,.4f} for the prompts, ${most:,.4f} at most with the answers"
    assert "schemas" not in lines


def test_without_the_tokenizer_an_estimate_says_so_and_has_its_bound_beside_it(source: Path) -> None:
    count = 100 * count_tokens([Message("user", TEXT)])
    lines = dry_run(WITHOUT_TOKENIZER, source)
    found = re.fullmatch(
        r"about ([\d,]+) tokens \(estimated\), at most ([\d,]+); for an exact count: pip install 'workersai\[tokens\]'",
        lines["prompts"],
    )
    assert found is not None
    estimate, most = (int(number.replace(",", "")) for number in found.groups())
    assert estimate < count <= most
    price = f"about ${CARD.cost_usd(estimate, 0):,.4f} for the prompts, ${CARD.cost_usd(most, 1_000):,.4f} at most"
    assert lines["price"].startswith(price)


def test_texts_to_be_continued_are_counted_without_a_template(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text(f"{json.dumps({'prompt': TEXT})}\n")
    asked = [BatchRequest(TEXT, options={"prompt_form": "completion"})]
    with contextlib.redirect_stdout(io.StringIO()) as shown:
        estimate(asked, {}, mode="auto", rate=0)
    count = count_tokens(TEXT)
    assert f"about {1 + count:,} tokens (estimated), at most {1 + count:,}" in shown.getvalue()


def test_a_schema_that_the_service_may_add_to_each_prompt_is_in_the_bound(source: Path, tmp_path: Path) -> None:
    schema = tmp_path / "schema.json"
    schema.write_text(json.dumps({"type": "object", "properties": {"sky": {"type": "string", "description": "x"}}}))
    plain = dry_run("from workersai.cli import main; main()", source)
    lines = dry_run("from workersai.cli import main; main()", source, "--schema", str(schema))
    assert re.match(r"[\d,]+ tokens at most, if the service adds them", lines["schemas"])
    assert lines["prompts"] == plain["prompts"]
    assert lines["price"] != plain["price"]
