"""``workersai models`` and ``workersai tokens``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.workersai.commands.conftest import command
from workersai import CATALOG, Message, count_tokens


def test_the_models_are_listed_with_what_is_known_of_them() -> None:
    shown = command(None, "models").stdout
    for card in CATALOG.values():
        (line,) = [line for line in shown.splitlines() if card.name in line]
        assert line.split()[1:4] == [f"{card.context_window:,}", f"{card.input_price:.2f}", f"{card.output_price:.2f}"]
    assert [model["name"] for model in json.loads(command(None, "models", "--json").stdout)] == list(CATALOG)


def test_the_tokens_of_a_file_are_counted(tmp_path: Path) -> None:
    text = "The quick brown fox. " * 50
    (tmp_path / "text").write_text(text)
    prompt = count_tokens([Message("user", text)])
    shown = command(None, "tokens", tmp_path / "text").stdout
    assert f"{count_tokens(text):,} tokens" in shown
    assert f"as a prompt {prompt:,} tokens, {prompt / 24_000:.1%} of the window, $0.00" in shown
    assert command(None, "tokens", "-", stdin=text).stdout == shown
    told = json.loads(command(None, "tokens", "-", "--json", stdin=text).stdout)
    assert (told["tokens"], told["prompt_tokens"], told["context_window"]) == (count_tokens(text), prompt, 24_000)


@pytest.mark.parametrize(
    ("arguments", "stdin", "words"),
    [
        (["-"], "", "0 tokens"),
        (["-"], "word " * 200_000, "over the window of 24,000"),
        (["-", "-m", "@cf/some/model"], "hi", "the window and the price of @cf/some/model are not known"),
    ],
)
def test_texts_of_all_lengths_are_counted(arguments: list[str], stdin: str, words: str) -> None:
    assert words in command(None, "tokens", *arguments, stdin=stdin).stdout


def test_what_cannot_be_counted_is_told(tmp_path: Path) -> None:
    assert "No such file" in command(None, "tokens", tmp_path / "none", ok=False).stderr
    assert "Is a directory" in command(None, "tokens", tmp_path, ok=False).stderr
    assert "is not UTF-8" in command(None, "tokens", "-", stdin=b"\xff\xfe", ok=False).stderr
