"""``workersai batch``, as a process of its own: tables in, tables out, and whatever stops it in between."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
from datetime import datetime, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from tests.support import Serve, asked_text
from tests.workersai.batch.test_jobs import batches_at, calls_at
from tests.workersai.commands.running import COMMAND, PATIENCE, PLAIN, at_terminal, finished, towards
from workersai.batch import progress_of
from workersai.local import LocalServer
from workersai.local.engine import GenerationRequest
from workersai.local.scripted import Answer, Gate, Refusal, ScriptedAnswer
from workersai.protocol.template import rendered

REVIEWS = [{"id": "007", "text": "a good, film", "stars": 4}, {"id": "008", "text": "bad\nfilm", "stars": 1}]
WHOLE = {"answer_error": "", "answer_finish_reason": "stop"}


def script(request: GenerationRequest) -> ScriptedAnswer:
    asked = asked_text(request)
    if request.json_schema:
        return Answer(object={"mood": "good" if "good" in asked else "bad", "score": 5})
    return Refusal(5004, "no") if "refuse" in asked else f"<{asked}>"


def environment(server: LocalServer | None) -> dict[str, str]:
    return (
        towards(server) if server else {name: value for name, value in PLAIN.items() if name[:3] not in ("CLO", "CF_")}
    )


def command(server: LocalServer | None, *arguments: object, ok: bool = True) -> subprocess.CompletedProcess[str]:
    done = finished("batch", *map(str, arguments), environment=environment(server))
    assert (done.returncode == 0) == ok, done.stderr
    assert "Traceback" not in done.stderr
    return done


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def write_csv(path: Path, rows: list[dict[str, Any]]) -> Path:
    with path.open("w", newline="") as lines:
        writer = csv.DictWriter(lines, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as lines:
        return list(csv.DictReader(lines))


@pytest.mark.parametrize("form", ["template", "prompt", "messages"])
def test_the_form_of_batches_is_an_option_that_a_resumed_job_keeps(tmp_path: Path, form: str) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [{"prompt": "one"}])
    arguments = ["--mode", "batch", "--batch-input", form]
    with LocalServer(script, strict=False) as server:
        command(server, "run", source, "-o", tmp_path / "out.jsonl", *arguments)
        (item,) = next(record.body["requests"] for record in server.requests if "requests" in record.body)
        command(server, "resume", tmp_path / "out.jsonl.journal")
    messages = [{"role": "user", "content": "one"}]
    expected = {"template": rendered(messages), "prompt": "one", "messages": messages}
    assert item["messages" if form == "messages" else "prompt"] == expected[form]


def test_prompts_in_answers_out(serve: Serve, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"prompt": "one", "external_reference": "r1", "n": 1},
        {"messages": [{"role": "user", "content": "two"}], "n": None},
        {"prompt": "refuse", "n": [1, {"a": 2}]},
    ]
    server, output = serve(script), tmp_path / "answers.jsonl"
    done = command(server, "run", write_jsonl(tmp_path / "prompts.jsonl", rows), "-o", output, "--system", "Be terse.")
    first, second, third = read_jsonl(output)
    assert (first["n"], first["external_reference"], first["answer"]) == (1, "r1", "<one>")
    assert (second["n"], second["answer"], second["answer_finish_reason"]) == (None, "<two>", "stop")
    assert (third["n"], third["answer"]) == ([1, {"a": 2}], None)
    assert "code 5004" in third["answer_error"]
    assert "3 of 3 rows done" in done.stderr
    assert f"workersai batch resume {output}.journal --retry-failed" in done.stderr
    assert calls_at(server)[0]["messages"][0] == {"role": "system", "content": "Be terse."}


def test_a_job_goes_through_the_gateway(serve: Serve, tmp_path: Path) -> None:
    server, output = serve(script), tmp_path / "answers.jsonl"
    command(server, "run", write_jsonl(tmp_path / "p.jsonl", [{"prompt": "one"}]), "-o", output, "--gateway", "gw")
    command(server, "resume", f"{output}.journal", "--gateway", "gw")
    assert {record.headers["cf-aig-gateway-id"] for record in server.requests} == {"gw"}


def test_a_template_takes_cells_of_a_csv_as_they_are(serve: Serve, tmp_path: Path) -> None:
    output = tmp_path / "out.csv"
    arguments = ["--prompt", "{{{id}}}: {text}", "--id-column", "id", "--keep", "id,stars"]
    command(serve(script), "run", write_csv(tmp_path / "in.csv", REVIEWS), "-o", output, *arguments)
    assert read_csv(output) == [
        {
            "id": "007",
            "stars": "4",
            "answer": "<{007}: a good, film>",
            "answer_error": "",
            "answer_finish_reason": "stop",
        },
        {"id": "008", "stars": "1", "answer": "<{008}: bad\nfilm>", "answer_error": "", "answer_finish_reason": "stop"},
    ]


def test_structured_rows_are_objects_in_jsonl_and_columns_elsewhere(serve: Serve, tmp_path: Path) -> None:
    schema = tmp_path / "schema.json"
    properties = {"mood": {"type": "string"}, "score": {"type": "integer"}}
    schema.write_text(json.dumps({"type": "object", "properties": properties}))
    source = write_jsonl(tmp_path / "in.jsonl", REVIEWS)
    server = serve(script)
    options = ["--prompt-column", "text", "--schema", schema, "--answer-column", "told"]
    for name in ("out.jsonl", "out.csv", "out.parquet"):
        command(server, "run", source, "-o", tmp_path / name, *options)
    assert [row["told"] for row in read_jsonl(tmp_path / "out.jsonl")] == [
        {"mood": "good", "score": 5},
        {"mood": "bad", "score": 5},
    ]
    assert [row["told.mood"] for row in read_csv(tmp_path / "out.csv")] == ["good", "bad"]
    table = pa.parquet.read_table(tmp_path / "out.parquet")
    assert table.column("told.score").to_pylist() == [5, 5]
    assert table.schema.field("stars").type == pa.int64()
    assert json.loads(table.column("told")[0].as_py()) == {"mood": "good", "score": 5}


def test_parquet_keeps_its_types_as_far_as_json_can_hold_them(serve: Serve, tmp_path: Path) -> None:
    at = datetime(2026, 1, 2, tzinfo=timezone.utc)
    columns = {
        "text": ["a", None],
        "n": [1, None],
        "x": [0.5, float("nan")],
        "yes": [True, False],
        "at": [at, at],
        "price": [Decimal("1.50"), None],
        "list": [[1, 2], []],
        "none": pa.nulls(2),
    }
    pa.parquet.write_table(pa.table(columns), tmp_path / "in.parquet")
    arguments = ["-o", tmp_path / "out.parquet", "--prompt", "say {text}"]
    command(serve(script), "run", tmp_path / "in.parquet", *arguments)
    (first, second) = pa.parquet.read_table(tmp_path / "out.parquet").to_pylist()
    assert first["answer"] == "<say a>"
    assert second["answer"] == "<say >"
    kept = {name: first[name] for name in columns}
    assert kept == {
        "text": "a",
        "n": 1,
        "x": 0.5,
        "yes": True,
        "at": "2026-01-02 00:00:00+00:00",
        "price": "1.50",
        "list": "[1, 2]",
        "none": None,
    }
    assert (second["n"], second["x"]) == (None, None)


def test_a_value_that_a_format_cannot_hold_is_written_as_text_and_said(serve: Serve, tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text('{"id": 18446744073709551615, "x": NaN, "prompt": "a"}\n{"id": 2, "x": 0.5, "prompt": "b"}\n')
    done = command(serve(script), "run", source, "-o", tmp_path / "out.parquet")
    table = pa.parquet.read_table(tmp_path / "out.parquet")
    assert table.column("id").to_pylist() == ["18446744073709551615", "2"]
    assert table.column("answer").to_pylist() == ["<a>", "<b>"]
    assert done.stderr.count("Warning: column 'id': not every value is a 64-bit integer") == 1
    assert done.stderr.count("Warning: column 'x': NaN") == 1


@pytest.mark.parametrize(("name", "content"), [("in.jsonl", "\n\n"), ("in.csv", "prompt\n"), ("in.csv", "")])
def test_a_table_without_rows_is_an_error_before_anything_is_made(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    for more in (["-o", tmp_path / "out.jsonl"], ["--dry-run"]):
        assert "has no rows" in command(None, "run", tmp_path / name, *more, ok=False).stderr
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_an_output_that_can_not_be_written_is_an_error_before_anything_is_sent(serve: Serve, tmp_path: Path) -> None:
    server, output = serve("never"), tmp_path / "out.jsonl"
    source = write_jsonl(tmp_path / "in.jsonl", [{"prompt": "a"}])
    output.mkdir()
    assert "it is a folder" in command(server, "run", source, "-o", output, "--overwrite", ok=False).stderr
    output.rmdir()
    (tmp_path / "out.jsonl.part").symlink_to(source)
    assert "is in the way" in command(server, "run", source, "-o", output, ok=False).stderr
    assert server.requests == []
    assert read_jsonl(source) == [{"prompt": "a"}]


def test_many_rows_go_by_the_batch_api(serve: Serve, tmp_path: Path) -> None:
    server = serve(script)
    source = write_jsonl(tmp_path / "in.jsonl", [{"prompt": str(number)} for number in range(350)])
    command(server, "run", source, "-o", tmp_path / "out.jsonl", "--rate", 0, "--part-size", 200)
    assert [row["answer"] for row in read_jsonl(tmp_path / "out.jsonl")] == [f"<{number}>" for number in range(350)]
    assert sorted(map(len, batches_at(server))) == [150, 200]


def test_the_same_command_again_asks_nothing_twice(serve: Serve, tmp_path: Path) -> None:
    server = serve(script)
    source = write_jsonl(tmp_path / "in.jsonl", [{"prompt": "a"}])
    for _ in range(2):
        command(server, "run", source, "-o", tmp_path / "out.jsonl")
        assert read_jsonl(tmp_path / "out.jsonl")[0]["answer"] == "<a>"
        (tmp_path / "out.jsonl").unlink()
    assert len(server.requests) == 1
    write_jsonl(source, [{"prompt": "b"}])
    assert "other requests" in command(server, "run", source, "-o", tmp_path / "out.jsonl", ok=False).stderr


def test_failed_rows_are_asked_again_on_request(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [{"prompt": "a"}, {"prompt": "b"}])
    with LocalServer(script, faults=["5004", None]) as server:
        command(server, "run", source, "-o", tmp_path / "out.jsonl", "--concurrency", 1)
        assert [row["answer"] for row in read_jsonl(tmp_path / "out.jsonl")] == [None, "<b>"]
        command(server, "resume", tmp_path / "out.jsonl.journal", "--retry-failed", "-o", tmp_path / "new.csv")
        assert [row["answer"] for row in read_csv(tmp_path / "new.csv")] == ["<a>", "<b>"]


def interrupted(server: LocalServer, *arguments: object, gate: Gate) -> tuple[int, str]:
    """Runs the command at a terminal, types Ctrl-C once an answer is under way; exit code and what was shown."""
    with at_terminal("batch", *map(str, arguments), environment=towards(server) | {"TERM": "xterm"}) as terminal:
        gate.wait_until_reached(PATIENCE)
        terminal.interrupt()
        terminal.read_until("Ctrl-C again")
        gate.open()
        code, _ = terminal.end()
        return code, terminal.shown


def test_ctrl_c_leaves_a_job_that_goes_on(serve: Serve, tmp_path: Path) -> None:
    gate = Gate()
    server = serve(lambda request: Answer(f"<{asked_text(request)}>", hold={0: gate}))
    source = write_jsonl(tmp_path / "in.jsonl", [{"prompt": str(number)} for number in range(20)])
    journal = tmp_path / "out.jsonl.journal"
    arguments = ["run", source, "-o", tmp_path / "out.jsonl", "--concurrency", 3]
    code, shown = interrupted(server, *arguments, gate=gate)
    assert code == 130
    assert "3 of 20 rows done" in shown
    assert f"workersai batch resume {journal}" in shown.replace("\n", "")
    assert "rows/s" in shown
    assert not (tmp_path / "out.jsonl").exists()
    assert progress_of(journal).answered == 3
    assert "answered          3" in command(None, "status", journal).stdout
    told = json.loads(command(None, "status", journal, "--json").stdout)
    assert (told["rows"], told["answered"], told["left"], told["done"]) == (20, 3, 17, False)
    command(None, "export", journal, "-o", tmp_path / "some.csv")
    assert len(read_csv(tmp_path / "some.csv")) == 3
    command(server, "resume", journal)
    assert [row["answer"] for row in read_jsonl(tmp_path / "out.jsonl")] == [f"<{number}>" for number in range(20)]
    assert len(server.requests) == 20


def test_a_killed_command_goes_on(serve: Serve, tmp_path: Path) -> None:
    gate = Gate()
    server = serve(
        lambda request: Answer(f"<{asked_text(request)}>", hold={0: gate} if asked_text(request) == "7" else {})
    )
    source = write_jsonl(tmp_path / "in.jsonl", [{"prompt": str(number)} for number in range(9)])
    arguments = ["run", source, "-o", tmp_path / "out.jsonl", "--concurrency", 1]
    with subprocess.Popen([*COMMAND, "batch", *map(str, arguments)], env=environment(server)) as process:  # noqa: S603
        gate.wait_until_reached(PATIENCE)
        process.kill()
    gate.open()
    command(server, *arguments)
    assert [row["answer"] for row in read_jsonl(tmp_path / "out.jsonl")] == [f"<{number}>" for number in range(9)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl", "out.jsonl.journal"]


def test_a_budget_ends_the_job_and_a_larger_one_goes_on(serve: Serve, tmp_path: Path) -> None:
    server = serve(script)
    source = write_jsonl(tmp_path / "in.jsonl", [{"prompt": "word " * 100} for _ in range(200)])
    arguments = ["run", source, "-o", tmp_path / "out.jsonl", "--max-tokens", 100, "--rate", 0]
    done = command(server, *arguments, "--budget", 0.005, ok=False)
    assert "The budget of $0.005000 could be passed" in done.stderr
    assert "Go on with a larger --budget: workersai batch resume" in done.stderr
    progress = progress_of(tmp_path / "out.jsonl.journal")
    assert 0 < progress.cost_usd <= 0.005
    again = command(server, "resume", tmp_path / "out.jsonl.journal", "--rate", 0, "--budget", 0.005, ok=False)
    assert f"{progress.answered} of 200 rows" in again.stderr
    command(server, "resume", tmp_path / "out.jsonl.journal", "--rate", 0, "--budget", 5)
    assert len(read_jsonl(tmp_path / "out.jsonl")) == 200


def test_a_dry_run_counts_and_sends_nothing(tmp_path: Path) -> None:
    source = write_csv(tmp_path / "in.csv", REVIEWS * 200)
    done = command(None, "run", source, "--dry-run", "--prompt-column", "text", "--max-tokens", 10, "--limit", 350)
    lines = {line.split()[0]: line.split(maxsplit=1)[1] for line in done.stdout.splitlines()}
    assert lines["rows"] == "350"
    assert lines["prompts"].split()[0].replace(",", "").isdigit()
    assert lines["answers"].startswith("3,500 tokens at most")
    assert lines["price"].startswith("$0.00")
    assert lines["sent"] == "350 rows in batches, 0 as single calls"
    done = command(None, "run", source, "--dry-run", "--prompt-column", "text", "--mode", "calls")
    assert "400 as single calls, 2 minutes at 300 a minute" in done.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.csv"]


@pytest.mark.parametrize(
    ("rows", "arguments", "words"),
    [
        ([{"text": "a"}], [], "Row 1: it has neither a prompt nor messages: say with --prompt-column"),
        ([{"text": "a"}], ["--prompt", "{no}"], "Row 1: it has no column 'no'; its columns: text."),
        ([{"text": "a"}], ["--prompt", "{"], "--prompt: "),
        ([{"text": "a"}], ["--prompt", "{text!r}"], "--prompt: {text!r} is not the name of a column alone"),
        ([{"text": "a"}], ["--prompt", "{text}", "--prompt-column", "text"], "either --prompt or --prompt-column"),
        ([{"text": "a", "answer": 1}], ["--prompt-column", "text"], "it has a column 'answer'"),
        ([{"text": "a"}], ["--prompt-column", "text", "--keep", "no"], "no column 'no'"),
        ([{"text": "a"}, {"text": ""}], ["--prompt-column", "text"], "Row 2 (requests[1]): The prompt is empty"),
        ([{"prompt": "a"}], ["-m", "llama"], "model: must be a model's full name"),
        ([{"prompt": "a"}], ["--temperature", "9"], "temperature: must be between 0 and 5"),
        ([{"prompt": "a"}], ["--schema", "nothing.json"], "Can't read nothing.json"),
    ],
)
def test_what_is_wrong_is_told_before_anything_is_sent(
    serve: Serve, tmp_path: Path, rows: list[dict[str, Any]], arguments: list[str], words: str
) -> None:
    server = serve("never")
    done = command(
        server, "run", write_jsonl(tmp_path / "in.jsonl", rows), "-o", tmp_path / "out.csv", *arguments, ok=False
    )
    assert words in done.stderr
    assert server.requests == []
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("in.jsonl", b'{"prompt": "a"}\n{"prompt": \n', "line 2: it is not JSON"),
        ("in.jsonl", b"[1]\n", "line 1: a row is an object, not list"),
        ("in.jsonl", b'{"prompt": "\xff"}\n', "it is not UTF-8"),
        ("in.csv", b"prompt,b\nx\n", "line 2: it has fewer cells"),
        ("in.csv", b"prompt,b\nx,y,z\n", "line 2: it has more cells"),
        ("in.csv", b'prompt\n"x\n', "unexpected end of data"),
        ("in.parquet", b"no parquet", "can't be read"),
        ("in.txt", b"x", "a table is a .jsonl, .csv or .parquet file"),
        ("in.jsonl", None, "No such file"),
    ],
)
def test_a_table_that_cannot_be_read_is_told(
    serve: Serve, tmp_path: Path, name: str, content: bytes | None, words: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    done = command(serve("never"), "run", tmp_path / name, "-o", tmp_path / "out.jsonl", ok=False)
    assert words in done.stderr


def test_no_file_is_written_over_another(serve: Serve, tmp_path: Path) -> None:
    server = serve(script)
    source = write_jsonl(tmp_path / "in.jsonl", [{"prompt": "a"}])
    same = command(server, "run", source, "-o", tmp_path / "." / "in.jsonl", ok=False)
    assert "INPUT and --output are the same file" in same.stderr
    same = command(server, "run", source, "-o", tmp_path / "out.csv", "--journal", source, ok=False)
    assert "INPUT and --journal are the same file" in same.stderr
    taken = write_jsonl(tmp_path / "taken.jsonl", [{"mine": 1}])
    there = command(server, "run", source, "-o", taken, ok=False)
    assert "is there already, and no journal of a job that has written it" in there.stderr
    assert server.requests == []
    command(server, "run", source, "-o", taken, "--overwrite")
    journal = f"{taken}.journal"
    for again in (["export", journal, "-o", source], ["resume", journal, "-o", source]):
        assert "--output and the input of the job are the same file" in command(server, *again, ok=False).stderr
    assert "a .jsonl, .csv or .parquet file" in command(server, "export", journal, "-o", journal, ok=False).stderr
    assert read_jsonl(source) == [{"prompt": "a"}]
    assert [row["answer_error"] for row in read_jsonl(taken)] == [None]
    command(server, "run", source, "-o", taken)
    assert len(server.requests) == 1


def test_a_wrong_token_stops_the_job_and_tells_how_to_go_on(serve: Serve, tmp_path: Path) -> None:
    server = serve(script)
    source = write_jsonl(tmp_path / "in.jsonl", [{"prompt": "a"}] * 50)
    wrong = {**environment(server), "CLOUDFLARE_API_TOKEN": "wrong-token"}
    arguments = [*COMMAND, "batch", "run", str(source), "-o", str(tmp_path / "out.jsonl")]
    done = subprocess.run(arguments, capture_output=True, text=True, env=wrong, check=False)  # noqa: S603
    assert done.returncode == 1
    assert "Authentication error" in done.stderr
    assert "Go on with: workersai batch resume" in done.stderr
    command(server, "resume", tmp_path / "out.jsonl.journal")


def test_no_credentials_are_told_in_one_line(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [{"prompt": "a"}])
    done = command(None, "run", source, "-o", tmp_path / "out.jsonl", ok=False)
    assert "CLOUDFLARE_ACCOUNT_ID" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_second_ctrl_c_breaks_off_what_is_under_way(serve: Serve, tmp_path: Path) -> None:
    gate = Gate()
    server = serve(lambda _: Answer("late", hold={0: gate}))
    source = write_jsonl(tmp_path / "in.jsonl", [{"prompt": "a"}])
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    arguments = [*COMMAND, "batch", "run", str(source), "-o", str(tmp_path / "out.jsonl")]
    process = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True, env=environment(server))  # noqa: S603
    signal.signal(signal.SIGINT, before)
    with process:
        try:
            gate.wait_until_reached(PATIENCE)
            process.send_signal(signal.SIGINT)
            assert process.stderr
            assert "Ctrl-C again" in process.stderr.readline()
            process.send_signal(signal.SIGINT)
            assert process.wait(PATIENCE) == 130
            assert "0 of 1 row done" in process.stderr.read()
        finally:
            process.kill()
    assert server.requests[0].wait() == "disconnected"
