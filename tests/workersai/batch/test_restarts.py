"""A job that came to nothing is started over; one that may be billed is not, and its budget remembers it."""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support import Serve, connection
from tests.workersai.batch.conftest import QUICK, JobDriver
from tests.workersai.batch.test_jobs import batches_at, by_index, echo
from tests.workersai.batch.test_journal import worker
from tests.workersai.commands.running import COMMAND, finished, towards
from workersai import Client, CostTracker, errors
from workersai.batch import progress_of
from workersai.catalog import CATALOG, DEFAULT_MODEL
from workersai.local import LocalServer
from workersai.local.engine import GenerationRequest
from workersai.local.records import RequestRecord
from workersai.local.scripted import Refusal, ScriptedAnswer
from workersai.protocol.batch import most_added_tokens

UNKNOWN = "@cf/nobody/nothing"
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}


def script(request: GenerationRequest) -> ScriptedAnswer:
    return Refusal(5025, "no schema") if request.json_schema else echo(request)


@pytest.mark.parametrize(
    ("wrong", "faults"),
    [({"model": UNKNOWN}, ["5007"]), ({"temperature": 0.1}, ["10000"]), ({"response_format": SCHEMA}, None)],
    ids=["a wrong model", "a wrong token", "a wrong schema"],
)
def test_a_job_that_came_to_nothing_is_started_over_with_other_options(
    jobs: JobDriver, tmp_path: Path, wrong: dict[str, Any], faults: Any, caplog: pytest.LogCaptureFixture
) -> None:
    ways: dict[str, Any] = {"journal": tmp_path / "job", "concurrency": 1}
    with LocalServer(script, faults=faults) as server:
        try:
            results = jobs.run(server, ["a", "b"], **ways, **wrong)
        except errors.WorkersAIError:
            results = []
        assert all(result.error for result in results)
        caplog.set_level(logging.INFO)
        answers = by_index(jobs.run(server, ["a", "b", "c"], **ways, notes={"n": 1}))
    assert [result.text for result in answers] == ["you said a", "you said b", "you said c"]
    assert "the journal is started over" in caplog.text


def test_rows_that_all_failed_are_not_asked_again_by_themselves(jobs: JobDriver, serve: Serve, tmp_path: Path) -> None:
    server = serve(lambda _: Refusal(5004, "no"))
    for _ in range(2):
        results = jobs.run(server, ["a", "b"], journal=tmp_path / "job")
        assert [type(result.error) for result in results] == [errors.BadRequestError] * 2
    assert len(server.requests) == 2
    with pytest.raises(errors.JournalError, match=r"other requests.* It has no answer: to start over, delete"):
        jobs.run(server, ["c"], journal=tmp_path / "job")


def test_a_job_with_an_answer_is_not_started_over(jobs: JobDriver, serve: Serve, tmp_path: Path) -> None:
    server = serve(echo)
    jobs.run(server, ["a"], journal=tmp_path / "job")
    with pytest.raises(errors.JournalError, match="To start over without its answers, delete"):
        jobs.run(server, ["a"], journal=tmp_path / "job", temperature=0.5)


@pytest.mark.parametrize("mode", ["batch", "calls"])
def test_a_job_that_may_be_billed_is_not_started_over(jobs: JobDriver, tmp_path: Path, mode: str) -> None:
    with LocalServer(echo, faults=["stall"]) as server:
        ways: dict[str, Any] = {"journal": tmp_path / "job", "mode": mode, "max_retries": 0}
        try:
            jobs.run(server, ["a"], timeout=0.5, **ways)
        except errors.APITimeoutError:
            assert mode == "batch"
        assert progress_of(tmp_path / "job").unclear_cost_usd > 0
        with pytest.raises(errors.JournalError, match=r"some of its requests may be billed.* delete"):
            jobs.run(server, ["a"], temperature=0.5, **ways)
        assert len(server.requests) == 1


def most(rows: list[str], max_tokens: int, mode: str = "calls") -> float:
    """What a budget keeps for these rows; in a batch, the service may add a chat template to each."""
    with LocalServer("x") as server, Client(**connection(server)) as client, CostTracker() as cost:
        calls = [client.prepare(row, {"max_tokens": max_tokens, "model": DEFAULT_MODEL}) for row in rows]
        for call in calls:
            call.meter().__enter__()
        added = len(rows) * most_added_tokens("template") if mode == "batch" else 0
        return cost.held_usd + CATALOG[DEFAULT_MODEL].cost_usd(added, 0)


@pytest.mark.parametrize("mode", ["batch", "calls"])
def test_what_may_be_billed_is_known_after_a_kill(tmp_path: Path, mode: str) -> None:
    """Each process is killed while its requests are on their way; the service takes each of them."""
    journal, rows = tmp_path / "job", ["a", "b", "c"]
    with LocalServer(echo, faults=["stall"] * (3 if mode == "batch" else 9) + [None] * 9) as server:
        for kills in range(1, 4):
            with worker(server, rows, journal=str(journal), mode=mode, max_tokens=50) as process:
                while len(server.requests) < kills * (1 if mode == "batch" else 3):
                    assert process.poll() is None
                    time.sleep(0.001)
                process.kill()
            assert progress_of(journal).unclear_cost_usd == pytest.approx(kills * most(rows, 50, mode))
        with Client(**connection(server)) as client:
            job = client.batch(None, journal=journal, **QUICK)
            assert len(list(job)) == 3
    # What has an answer now is known; what was lost before stays unclear.
    assert job.progress.unclear_cost_usd == pytest.approx(3 * most(rows, 50, mode))
    assert progress_of(journal).unclear_cost_usd == pytest.approx(3 * most(rows, 50, mode))


@pytest.mark.parametrize(("mode", "budget"), [("batch", 0.03), ("calls", 0.01)])
def test_the_budget_of_a_whole_job_is_kept_over_kills_and_lost_replies(
    tmp_path: Path, mode: str, budget: float
) -> None:
    source, journal = tmp_path / "in.jsonl", tmp_path / "out.jsonl.journal"
    source.write_text("".join(json.dumps({"prompt": f"{n} " + "word " * 100}) + "\n" for n in range(60)))
    sent = 0

    def lose(record: RequestRecord) -> str | None:
        nonlocal sent
        if "request_id" in record.body:
            return None
        sent += 1
        return "stall" if sent <= 4 else None

    def answer(request: GenerationRequest) -> str:
        return "answer " * 90

    first = ["batch", "run", str(source), "-o", str(tmp_path / "out.jsonl"), "--mode", mode, "--max-tokens", "100"]
    again = ["batch", "resume", str(journal)]
    ways = ["--budget", str(budget), "--rate", "0", "--concurrency", "1"]
    with LocalServer(answer, faults=lose) as server:
        for _ in range(4):
            before = len(server.requests)
            command = [*COMMAND, *(again if journal.exists() else first), *ways]
            with subprocess.Popen(command, stderr=subprocess.DEVNULL, env=towards(server)) as process:  # noqa: S603
                while len(server.requests) == before and process.poll() is None:
                    time.sleep(0.001)
                process.send_signal(signal.SIGKILL)
        done = finished(*again, *ways, environment=towards(server))
        billed = sum(
            len(record.body["requests"]) if "requests" in record.body else 1
            for record in server.requests
            if "request_id" not in record.body
        )
    progress = progress_of(journal)
    assert progress.cost_usd + progress.unclear_cost_usd <= budget + 1e-9
    assert billed * most(["x"], 100) <= budget
    assert done.returncode == 1
    assert "could be passed" in done.stderr
    assert "for requests whose answer was lost" in done.stderr


def test_a_wrong_model_on_the_command_line_is_no_dead_end(tmp_path: Path) -> None:
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text('{"prompt": "a"}\n')
    command = ["batch", "run", str(source), "-o", str(output)]
    with LocalServer(echo, faults=["5007"]) as server:
        wrong = finished(*command, "-m", UNKNOWN, environment=towards(server))
        assert wrong.returncode == 1
        assert "the same command with other options starts the job over" in wrong.stderr
        right = finished(*command, environment=towards(server))
    assert right.returncode == 0, right.stderr
    assert "the journal is started over" in right.stderr
    assert json.loads(output.read_text())["answer"] == "you said a"
    assert len(batches_at(server)) == 0
