"""Whatever a row holds, and whatever an answer is: each format can write it, and reading it gives it back."""

from __future__ import annotations

import csv
import json
import math
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workersai.batch import BatchResult
from workersai.batch.records import completion_from_json, completion_to_json, request_from_json, request_to_json
from workersai.commands.cells import DEEPEST, Changes, Columns, is_deep
from workersai.commands.prompts import AnswerColumns, Prompts, answers
from workersai.commands.replacing import replacing
from workersai.commands.tables import Row, Table
from workersai.errors import BadRequestError
from workersai.protocol.request import json_text
from workersai.protocol.values import Completion

FORMATS = ("jsonl", "csv", "parquet")
SCHEMA = {
    "type": "object",
    "properties": {"n": {"type": "integer"}, "x": {"type": "number"}, "yes": {"type": "boolean"}},
}

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
any_texts = st.text(st.characters() | st.just("\ud800") | st.just("\0"), max_size=8)  # also halves of surrogate pairs
integers = st.integers() | st.sampled_from([2**53 + 1, 2**63 - 1, 2**63, 2**64, -(2**63) - 1, 10**300, 10**400])
floats = st.floats()


def values(text: st.SearchStrategy[str]) -> st.SearchStrategy[Any]:
    """Any value of JSON, with what Python's JSON reads beyond it."""
    plain = st.none() | st.booleans() | integers | floats | text
    return st.recursive(plain, lambda inner: st.lists(inner) | st.dictionaries(text, inner), max_leaves=5)


names = texts.filter(lambda name: name not in ("prompt", "messages") and not name.startswith("answer"))
rows = st.lists(st.dictionaries(names, values(texts), max_size=4), min_size=1, max_size=4)
answer_texts = (
    any_texts
    | st.dictionaries(st.sampled_from(["n", "x", "yes", "z"]) | any_texts, values(any_texts)).map(json.dumps)
    | st.sampled_from(['{"n": 1e400}', '{"n": ' + "1" * 5000 + "}", "[" * 5000, '{"a":' * 300 + "1" + "}" * 300])
)


def result_from_journal(number: int, prompts: Prompts, row: Row, answer: str) -> BatchResult:
    """The result of a row, after its way through a journal."""
    (request,) = prompts.requests([{**row, "prompt": "p"}], None)
    metadata = json_text(dict(request.metadata))
    metadata.encode()
    again = request_from_json(request_to_json(request), "r", metadata)
    completion = completion_to_json(Completion(answer, finish_reason="stop"))
    completion.encode()
    return BatchResult(number, again, completion_from_json(completion))


def write(
    path: Path, rows: list[Row], texts: list[str], *, schema: Mapping[str, Any] | None
) -> tuple[Columns, Changes]:
    prompts = Prompts(None, schema=schema, nests=path.suffix == ".jsonl")
    results = [result_from_journal(*each) for each in zip(range(9), [prompts] * 9, rows, texts, strict=False)]
    changes = Changes()
    columns = AnswerColumns("answer", [name for name, _ in prompts.fields()], structured=schema is not None)
    Table(path).write(prompts.columns(), lambda: answers(results, columns, changes), changes)
    return prompts.columns(), changes


def read(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".jsonl":
        return [json.loads(line, parse_constant=pytest.fail) for line in path.read_bytes().splitlines()]
    if path.suffix == ".csv":
        with path.open(newline="", encoding="utf-8") as lines:
            return list(csv.DictReader(lines, strict=True))
    table: list[dict[str, Any]] = pa.parquet.read_table(path).to_pylist()
    return table


def plain(value: Any) -> Any:
    """A value as it is kept: documented for what JSON can't hold."""
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    if isinstance(value, dict):
        return {name: plain(inner) for name, inner in value.items()}
    return [plain(inner) for inner in value] if isinstance(value, list) else value


def text_form(value: Any, *, nul: bool) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    escaped = text.encode("utf-8", "backslashreplace").decode()
    return escaped.replace("\0", "\\u0000") if nul else escaped


def assert_same(written: Any, value: Any, suffix: str) -> None:
    """The value, or the text form that the guide names."""
    if suffix == ".jsonl":
        assert written == value
    elif suffix == ".csv":
        assert written == ("" if value is None else text_form(value, nul=True))
    elif isinstance(written, str):
        assert written == text_form(value, nul=False) or json.loads(written) == json.loads(text_form(value, nul=False))
    else:
        assert written == value
        assert isinstance(written, bool) == isinstance(value, bool)


@pytest.mark.parametrize("suffix", FORMATS)
@settings(deadline=None)  # a first import, or a busy machine, takes its time
@given(rows=rows, texts=st.lists(any_texts, min_size=4, max_size=4))
def test_any_row_and_any_answer_can_be_written_and_read(rows: list[Row], texts: list[str], suffix: str) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"out.{suffix}"
        columns, changes = write(path, rows, texts, schema=None)
        written = read(path)
    assert len(written) == len(rows)
    for row, answer, line in zip(rows, texts, written, strict=False):
        cells = dict(zip((name for name, _ in columns), line.values(), strict=True))
        for name, value in {**row, "answer": answer}.items():
            assert_same(cells[name], plain(value), path.suffix)
    lines = changes.warnings()
    assert len({line.partition("':")[0] for line in lines}) <= len(lines) <= len(columns)


@pytest.mark.parametrize("suffix", FORMATS)
@settings(deadline=None)  # a first import, or a busy machine, takes its time
@given(texts=st.lists(answer_texts, min_size=1, max_size=4))
def test_any_structured_answer_can_be_written_and_read(texts: list[str], suffix: str) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"out.{suffix}"
        write(path, [{}] * len(texts), texts, schema=SCHEMA)
        written = read(path)
    for text, line in zip(texts, written, strict=True):
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            value = text
        if is_deep(value):
            value = text
        if suffix == "jsonl" and "1e400" not in text and not has_odd_numbers(value):
            assert line["answer"] == value
        if suffix != "jsonl" and isinstance(value, dict) and not has_odd_numbers(value):
            assert json.loads(line["answer"]) == json.loads(text_form(value, nul=suffix == "csv"))
            for name in SCHEMA["properties"]:
                assert_same(line[f"answer.{name}"], value.get(name), path.suffix)


def has_odd_numbers(value: Any) -> bool:
    if isinstance(value, dict | list):
        return any(map(has_odd_numbers, value.values() if isinstance(value, dict) else value))
    return isinstance(value, float) and not math.isfinite(value)


@pytest.mark.parametrize(
    ("suffix", "values", "written", "warning"),
    [
        (
            "parquet",
            [1, 2**64],
            ["1", str(2**64)],
            "'a': not every value is a 64-bit integer, so that the column is text",
        ),
        ("parquet", [0.5, 2**53 + 1], ["0.5", str(2**53 + 1)], "'a': not every value is a 64-bit number"),
        ("parquet", [1, "x"], ["1", "x"], "'a': values that are not text are written as JSON text"),
        ("parquet", [{}, [1]], ["{}", "[1]"], "'a': lists and objects are written as JSON text"),
        ("csv", [{}, [1]], ["{}", "[1]"], "'a': lists and objects are written as JSON text"),
        ("csv", ["\0", "x"], ["\\u0000", "x"], "'a': characters that the format can't hold are written as escapes"),
        ("parquet", [1, 2], [1, 2], ""),
        ("csv", [1, True], ["1", "true"], ""),
        ("jsonl", [2**64, {"a": 10**400}], [2**64, {"a": 10**400}], ""),
    ],
)
def test_what_a_format_cannot_hold_is_written_in_another_form_with_one_warning(
    tmp_path: Path, suffix: str, values: list[Any], written: list[Any], warning: str
) -> None:
    _, changes = write(tmp_path / f"o.{suffix}", [{"a": value} for value in values], ["x"] * 2, schema=None)
    assert [line["a"] for line in read(tmp_path / f"o.{suffix}")] == written
    lines = changes.warnings()
    assert len(lines) == bool(warning)
    assert not warning or warning in lines[0]


def test_what_json_cannot_hold_is_kept_in_another_form_with_a_warning() -> None:
    prompts = Prompts("{a}")
    values = [math.nan, math.inf, [-math.inf], b"\xff"]
    kept = [request.metadata["a"] for request in prompts.requests([{"a": value} for value in values], None)]
    assert kept == [None, "Infinity", ["-Infinity"], "\\xff"]
    (warning,) = prompts.changes.warnings()
    for words in ("NaN", "infinity", "not UTF-8"):
        assert words in warning


def test_a_cell_too_deep_to_be_written_again_is_named_before_anything_is_sent() -> None:
    cell: Any = 1
    for _ in range(DEEPEST + 1):
        cell = [cell]
    with pytest.raises(BadRequestError, match="Row 1: its column 'deep' nests more than"):
        list(Prompts(None).requests([{"prompt": "p", "deep": cell}], None))
    (request,) = Prompts(None).requests([{"prompt": "p", "deep": cell[0]}], None)
    assert request.metadata == {"deep": cell[0]}


def test_a_column_of_the_input_may_look_like_one_of_the_answers_but_not_be_one(tmp_path: Path) -> None:
    write(tmp_path / "o.csv", [{"answer.note": "mine"}], ['{"n": 1}'], schema=SCHEMA)
    (line,) = read(tmp_path / "o.csv")
    assert (line["answer.note"], line["answer.n"]) == ("mine", "1")
    with pytest.raises(BadRequestError, match=r"it has a column 'answer\.n'"):
        write(tmp_path / "o.csv", [{"answer.n": "mine"}], ["{}"], schema=SCHEMA)


def test_two_columns_of_one_name_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("a,b,a\n1,2,3\n")
    table = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])
    pa.parquet.write_table(table, tmp_path / "in.parquet")
    for name in ("in.csv", "in.parquet"):
        with pytest.raises(BadRequestError, match="two columns are named 'a'"):
            list(Table(tmp_path / name).rows())


def test_a_row_too_deep_to_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"a": ' + "[" * 100_000 + "\n")
    with pytest.raises(BadRequestError, match=r"line 1: it is not JSON"):
        list(Table(tmp_path / "in.jsonl").rows())


@pytest.mark.skipif(not hasattr(os, "symlink"), reason="the platform has no symbolic links")
def test_what_is_in_the_way_of_the_new_file_is_left_alone(tmp_path: Path) -> None:
    victim, part, target = tmp_path / "victim", tmp_path / "out.csv.part", tmp_path / "out.csv"
    victim.write_text("precious")
    part.symlink_to(victim)
    for use in (Table(target).check_writable, lambda: write(target, [{}], ["x"], schema=None)):
        with pytest.raises(BadRequestError, match=r"out\.csv\.part is in the way: it is a link"):
            use()
    assert (victim.read_text(), part.is_symlink(), target.exists()) == ("precious", True, False)
    part.unlink()
    os.link(victim, part)  # as a file of our own it is removed, not written to
    write(target, [{}], ["x"], schema=None)
    assert victim.read_text() == "precious"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.csv", "victim"]


def test_an_output_keeps_its_mode(tmp_path: Path) -> None:
    target = tmp_path / "out.csv"
    target.write_text("old")
    target.chmod(0o600)
    write(target, [{}], ["x"], schema=None)
    assert target.stat().st_mode & 0o777 == 0o600
    assert "old" not in target.read_text()


def test_who_writes_the_same_file_waits(tmp_path: Path) -> None:
    target, writers = tmp_path / "out", 6

    def write_lines(name: bytes) -> None:
        for _ in range(20):
            with replacing(target) as file:
                for _ in range(50):
                    file.write(name)
                    file.flush()

    threads = [threading.Thread(target=write_lines, args=(bytes([65 + number]),)) for number in range(writers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    content = target.read_bytes()
    assert content == content[:1] * 50
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
