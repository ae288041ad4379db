"""``workersai tokens``: the length of a text, its share of the window, and its price."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.workersai.commands.running import PATIENCE, PLAIN, complaint_of, finished
from workersai import CATALOG, DEFAULT_MODEL, Message, count_tokens

TEXT = "It was the best of times, it was the worst of times.\r\n" * 40
WITHOUT_TOKENIZER = "import sys; sys.modules['llama_models'] = None; from workersai.cli import main; main()"


@pytest.fixture
def text(tmp_path: Path) -> Path:
    file = tmp_path / "text.txt"
    file.write_bytes(TEXT.encode())
    return file


def test_a_text_is_counted_and_priced(text: Path) -> None:
    done = finished("tokens", str(text))
    prompt = count_tokens([Message("user", TEXT)])
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        f"{count_tokens(TEXT):,} Llama tokens (exact)",
        f"{prompt:,} as a prompt to {DEFAULT_MODEL}: {prompt / 24_000:.1%} of its window of 24,000",
        f"${prompt * 0.29 / 1_000_000:.6f} as input",
    ]


def test_standard_input_is_counted_like_a_file_and_programs_get_an_object(text: Path) -> None:
    done = finished("tokens", "-", "--json", typed=TEXT)
    prompt = count_tokens([Message("user", TEXT)])
    assert json.loads(done.stdout) == {
        "tokens": count_tokens(TEXT),
        "most_tokens": count_tokens(TEXT),
        "exact": True,
        "model": DEFAULT_MODEL,
        "prompt_tokens": prompt,
        "most_prompt_tokens": prompt,
        "context_window": 24_000,
        "share_of_window": prompt / 24_000,
        "input_cost_usd": CATALOG[DEFAULT_MODEL].cost_usd(prompt, 0),
    }
    assert finished("tokens", str(text), "--json").stdout == done.stdout


def test_an_empty_file_has_no_tokens(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.touch()
    assert finished("tokens", str(empty)).stdout.startswith("0 Llama tokens (exact)\n")


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    marked = tmp_path / "marked"
    marked.write_bytes(b"\xef\xbb\xbfhello")
    assert json.loads(finished("tokens", str(marked), "--json").stdout)["tokens"] == count_tokens("hello")


def test_an_estimate_says_so_and_how_to_count_exactly(text: Path) -> None:
    command = [sys.executable, "-c", WITHOUT_TOKENIZER, "tokens", str(text)]
    done = subprocess.run(  # noqa: S603
        command, capture_output=True, text=True, timeout=PATIENCE, check=True, env=PLAIN
    )
    found = re.match(
        r"([\d,]+) Llama tokens \(estimated, at most ([\d,]+)\)\n[\d,]+ \(at most [\d,]+\) as a prompt", done.stdout
    )
    assert found is not None
    estimate, most = (int(number.replace(",", "")) for number in found.groups())
    (hint,) = done.stderr.splitlines()
    assert hint.endswith("pip install 'workersai[tokens]'.")
    assert most > estimate >= count_tokens(TEXT)


def test_of_a_model_outside_the_catalogue_the_window_is_not_made_up(text: Path) -> None:
    done = finished("tokens", str(text), "-m", "@cf/example/model")
    assert done.stdout.endswith("as a prompt to @cf/example/model, whose window and price are not known\n")


def test_what_is_no_text_in_utf_8_is_one_line(tmp_path: Path) -> None:
    binary = tmp_path / "binary"
    binary.write_bytes(b"text \xff\xfe")
    complaints = {name: complaint_of(finished("tokens", str(name))) for name in (binary, tmp_path, tmp_path / "none")}
    assert complaints == {
        binary: f"Can't read {binary}: byte 5 is not UTF-8. Convert it to UTF-8 first.",
        tmp_path: f"Can't read {tmp_path}: Is a directory.",
        tmp_path / "none": f"Can't read {tmp_path / 'none'}: No such file or directory.",
    }
    assert complaint_of(finished("tokens", "-", typed=b"\xff")).startswith("Can't read standard input: byte 0 ")


def test_a_name_that_is_no_model_is_one_line(text: Path) -> None:
    assert "must be a model's full name" in complaint_of(finished("tokens", str(text), "-m", "llama"))
