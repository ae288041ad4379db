"""The journal: whatever ends a process, its job goes on where it was."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support import PATIENCE, Serve, asked_text, connection
from tests.workersai.batch.conftest import QUICK, JobDriver
from tests.workersai.batch.test_jobs import BOTH, batches_at, by_index, echo
from workersai import Client, Completion, Message, ToolCall, Trimmed, Usage, errors
from workersai.batch import BatchRequest, notes_of, progress_of, results_of
from workersai.batch.journal import Journal
from workersai.batch.records import (
    completion_from_json,
    completion_to_json,
    error_from_json,
    error_to_json,
    request_from_json,
    request_to_json,
)
from workersai.local import LocalServer
from workersai.local.scripted import Answer, Gate, Refusal
from workersai.protocol.values import InvalidToolCall

WORKER = """
import json, sys
from workersai import Client
settings, requests, options = json.loads(sys.argv[1])
with Client(**settings) as client, client.batch(requests, **options) as job:
    for result in job:
        print(result.index, result.text, flush=True)
"""


@contextmanager
def worker(server: LocalServer, requests: list[str] | None, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A process that asks, and does not outlast the block."""
    given = json.dumps([connection(server), requests, {**QUICK, **options}])
    command = [sys.executable, "-c", WORKER, given]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:  # noqa: S603
        try:
            yield process
        finally:
            process.kill()


@BOTH
def test_a_job_whose_process_is_killed_loses_no_row(serve: Serve, tmp_path: Path, mode: str) -> None:
    server = serve(echo)
    rows, dice = [str(number) for number in range(400)], random.Random(5)  # noqa: S311
    options: dict[str, Any] = {"journal": str(tmp_path / "job"), "mode": mode, "part_size": 30, "concurrency": 8}
    for _ in range(4):
        with worker(server, rows, **options) as process:
            assert process.stdout
            for _ in range(dice.randrange(1, 200)):
                process.stdout.readline()
            process.kill()
    with worker(server, None, **options) as process:
        said, complaint = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, complaint
    answers = dict(line.split(" ", 1) for line in said.splitlines())
    assert answers == {str(number): f"you said {number}" for number in range(400)}
    assert len(said.splitlines()) == 400
    if mode == "batch":
        sent = [item["prompt"] for items in batches_at(server) for item in items]
        unclear = progress_of(tmp_path / "job").unclear_parts
        assert 400 <= len(sent) <= 400 + 30 * unclear
    assert [path.name for path in tmp_path.iterdir()] == ["job"]


def test_a_batch_that_was_noted_is_not_sent_twice(serve: Serve, tmp_path: Path) -> None:
    gate = Gate()
    server = serve(lambda request: Answer(echo(request), hold={0: gate}))
    journal = tmp_path / "job"
    with worker(server, ["a", "b"], journal=str(journal), mode="batch") as process:
        while not journal.exists() or progress_of(journal).parts == 0:
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
    gate.open()
    with Client(**connection(server)) as client:
        results = by_index(list(client.batch(journal=journal, **QUICK)))
    assert [result.text for result in results] == ["you said a", "you said b"]
    assert len(batches_at(server)) == 1


def test_a_batch_that_was_being_sent_is_told_as_unclear(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    journal = tmp_path / "job"
    with (
        LocalServer(echo, faults=["stall:0"]) as server,
        worker(server, ["a"], journal=str(journal), mode="batch") as process,
    ):
        while not server.requests:
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
        process.wait()
        with Client(**connection(server)) as client:
            job = client.batch(journal=journal, **QUICK)
            assert [result.text for result in job] == ["you said a"]
    assert job.progress.unclear_parts == progress_of(journal).unclear_parts == 1
    assert "it is not known whether the service took it" in caplog.text


def test_a_process_killed_while_it_reads_its_requests_has_sent_nothing(serve: Serve, tmp_path: Path) -> None:
    server = serve(echo)
    code = (
        "import json, os, signal, sys\nfrom workersai import Client\n"
        "def rows():\n"
        "    yield from map(str, range(2000))\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "list(Client(**json.loads(sys.argv[1])).batch(rows(), journal=sys.argv[2]))\n"
    )
    arguments = [sys.executable, "-c", code, json.dumps(connection(server)), str(tmp_path / "job")]
    assert subprocess.run(arguments, check=False).returncode == -signal.SIGKILL  # noqa: S603
    assert server.requests == []
    assert not progress_of(tmp_path / "job").ready
    with Client(**connection(server)) as client:
        with pytest.raises(errors.JournalError, match="nothing was sent"):
            list(client.batch(journal=tmp_path / "job"))
        assert len(list(client.batch(map(str, range(20)), journal=tmp_path / "job", **QUICK))) == 20


def test_a_job_that_is_begun_again_with_its_requests_goes_on(jobs: JobDriver, serve: Serve, tmp_path: Path) -> None:
    server = serve(echo)
    for _ in range(2):
        results = by_index(jobs.run(server, ["a", "b"], journal=tmp_path / "job", notes={"at": 1}))
        assert [result.text for result in results] == ["you said a", "you said b"]
    assert len(server.requests) == 2
    assert notes_of(tmp_path / "job") == {"at": 1}
    assert [result.text for result in results_of(tmp_path / "job")] == ["you said a", "you said b"]


@pytest.mark.parametrize(
    ("requests", "options", "words"),
    [
        (["a"], {}, "other requests"),
        (["a", "c"], {}, "other requests"),
        (["a", "b", "c"], {}, "other requests"),
        (["a", "b"], {"temperature": 0.5}, "temperature is 0.5, but the job of .* was started with None"),
        (["a", "b"], {"max_tokens": None}, "max_tokens is None, but .* 9"),
        (None, {"max_tokens": 8}, "max_tokens is 8, but"),
        (None, {"model": "@cf/a/b"}, "model is '@cf/a/b', but"),
        (["a", "b"], {"batch_input": "messages"}, "batch_input is 'messages', but the job of .* with 'template'"),
        (None, {"batch_input": "prompt"}, "batch_input is 'prompt', but the job of .* with 'template'"),
        (["a", "b"], {"prompt_form": "completion"}, "prompt_form is 'completion', but"),
    ],
)
def test_a_journal_of_another_job_is_refused(
    serve: Serve, tmp_path: Path, requests: list[str] | None, options: dict[str, Any], words: str
) -> None:
    with Client(**connection(serve(echo))) as client:
        list(client.batch(["a", "b"], journal=tmp_path / "job", max_tokens=9, **QUICK))
        with pytest.raises(errors.JournalError, match=words):
            list(client.batch(requests, journal=tmp_path / "job", **{"max_tokens": 9, **QUICK, **options}))


def test_ways_to_ask_may_change_where_a_job_goes_on(serve: Serve, tmp_path: Path) -> None:
    with Client(**connection(serve(echo)), temperature=0.3) as client:
        list(client.batch(["a"], journal=tmp_path / "job", **QUICK))
    with Client(**connection(serve(echo)), temperature=0.9, timeout=5) as client:
        again = list(client.batch(journal=tmp_path / "job", max_retries=7, mode="calls", **QUICK))
    assert len(again) == 1


def test_a_journal_of_another_account_is_refused(serve: Serve, tmp_path: Path) -> None:
    with Client(**connection(serve(echo))) as client:
        list(client.batch(["a"], journal=tmp_path / "job", **QUICK))
    with (
        LocalServer(echo, account_id="another") as server,
        Client(**connection(server)) as client,
        pytest.raises(errors.ConfigurationError, match="of the account local-account, not of another"),
    ):
        list(client.batch(journal=tmp_path / "job"))


def old_journal(path: Path) -> None:
    """Makes a journal one of a version that had no ``batch_input``."""
    journal = Journal(path)
    journal.open(must_exist=True)
    with journal.transaction():
        journal.note(options={name: value for name, value in journal.fact("options").items() if name != "batch_input"})
    journal.close()


@pytest.mark.parametrize("requests", [["a", "b"], None])
@pytest.mark.parametrize("form", ["messages", "prompt", "template"])
def test_a_job_goes_on_in_the_form_that_it_was_started_with(
    tmp_path: Path, requests: list[str] | None, form: Any
) -> None:
    ways: dict[str, Any] = {"journal": tmp_path / "job", "mode": "batch", "retry_failed": True, **QUICK}
    failing = {"b"}
    script = lambda request: Refusal(5004, "no", 400) if asked_text(request) in failing else echo(request)  # noqa: E731
    with LocalServer(script, strict=False) as server, Client(**connection(server)) as client:
        assert [result.error is None for result in by_index(list(client.batch(["a", "b"], batch_input=form, **ways)))]
        given = {} if requests is None else {"batch_input": form}
        if form == "prompt":  # as versions without the option sent it
            old_journal(tmp_path / "job")
            given = {}
        failing.clear()
        assert [result.text for result in by_index(list(client.batch(requests, **ways, **given)))] == [
            "you said a",
            "you said b",
        ]
        first, second = batches_at(server)
    assert [item for item in second if item.pop("external_reference")] == [
        {name: value for name, value in first[1].items() if name != "external_reference"}
    ]


def test_a_journal_in_use_is_refused(serve: Serve, tmp_path: Path) -> None:
    gate = Gate()
    server = serve(lambda request: Answer(echo(request), hold={0: gate}))
    with Client(**connection(server)) as client:
        with worker(server, ["a"], journal=str(tmp_path / "job")) as process:
            gate.wait_until_reached()
            with pytest.raises(errors.JournalError, match="in use by another job"):
                list(client.batch(journal=tmp_path / "job"))
            assert progress_of(tmp_path / "job").left == 1
            gate.open()
            process.communicate(timeout=PATIENCE)
        job = client.batch(journal=tmp_path / "job")
        next(job)
        with pytest.raises(errors.JournalError, match="in use"):
            next(client.batch(journal=tmp_path / "job"))
        job.close()
        assert len(list(client.batch(journal=tmp_path / "job"))) == 1


def test_what_is_no_journal_is_refused(serve: Serve, tmp_path: Path) -> None:
    text, other = tmp_path / "notes.txt", tmp_path / "other.db"
    text.write_text("no database " * 100)
    with sqlite3.connect(other) as db:
        db.execute("CREATE TABLE t (a)")
    db.close()
    with Client(**connection(serve("never"))) as client:
        for path, words in [
            (text, "not a database"),
            (other, "is a database, and no journal"),
            (tmp_path, "unable to open"),
            (tmp_path / "no" / "such", "Check that its folder is there"),
        ]:
            with pytest.raises(errors.JournalError, match=words):
                list(client.batch(["a"], journal=path))
        with pytest.raises(errors.JournalError, match="There is no journal"):
            list(client.batch(journal=tmp_path / "nothing"))
    assert text.read_text() == "no database " * 100
    for path in (text, tmp_path / "nothing"):
        with pytest.raises(errors.JournalError):
            progress_of(path)
    with pytest.raises(errors.JournalError, match="is no journal"):
        notes_of(other)


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="needs resource limits")
def test_a_full_disk_is_told_and_the_job_goes_on_later(serve: Serve, tmp_path: Path) -> None:
    server = serve(echo)
    code = (
        "import json, resource, signal, sys\nfrom workersai import Client\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))\n"
        "rows = [f'{number} ' + 'x' * 200 for number in range(300)]\n"
        "options = {'rate_limit': None, 'mode': 'calls'}\n"
        "list(Client(**json.loads(sys.argv[1])).batch(rows, journal=sys.argv[2], **options))\n"
    )
    arguments = [sys.executable, "-c", code, json.dumps(connection(server)), str(tmp_path / "job")]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)  # noqa: S603
    assert "JournalError" in done.stderr
    with Client(**connection(server)) as client:
        rows = [f"{number} " + "x" * 200 for number in range(300)]
        assert len(list(client.batch(rows, journal=tmp_path / "job", **QUICK))) == 300


def test_failed_rows_are_asked_again_on_request(jobs: JobDriver, serve: Serve, tmp_path: Path) -> None:
    answers = {"a": Refusal(5004, "no"), "b": Refusal(5004, "no")}
    server = serve(lambda request: answers.get(asked_text(request)) or echo(request))
    results = jobs.run(server, ["a", "b", "c"], journal=tmp_path / "job")
    assert sum(result.error is not None for result in results) == 2
    del answers["a"]
    results = by_index(jobs.run(server, None, journal=tmp_path / "job", retry_failed=True))
    assert [result.completion is not None for result in results] == [True, False, True]
    assert len(server.requests) == 5
    progress = progress_of(tmp_path / "job")
    assert (progress.answered, progress.failed, progress.left, progress.done) == (2, 1, 0, True)


texts = st.text(st.characters(exclude_categories=["Cs"]))
usages = st.builds(Usage, st.integers(0, 10**9), st.integers(0, 10**9), st.integers(0, 10**9), texts)
arguments = st.dictionaries(texts, st.integers() | texts | st.none() | st.booleans() | st.lists(texts))
calls = st.builds(ToolCall, texts, texts, arguments)
broken = st.builds(InvalidToolCall, texts, texts, texts, texts)
completions = st.builds(
    Completion,
    texts,
    st.lists(calls).map(tuple),
    st.lists(broken).map(tuple),
    st.none() | usages,
    st.none() | texts,
    st.none() | texts,
    st.none() | texts,
    st.lists(calls | broken).map(tuple),
    st.none() | st.builds(Trimmed, st.lists(st.integers(0, 99)).map(tuple), st.integers(0, 99)),
)


@given(completions)
def test_an_answer_comes_back_from_the_journal_as_it_was(completion: Completion) -> None:
    assert completion_from_json(completion_to_json(completion)) == completion


ERRORS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.WorkersAIError)]


@pytest.mark.parametrize("kind", ERRORS)
def test_an_error_comes_back_from_the_journal_as_it_was(kind: type[errors.WorkersAIError]) -> None:
    error = kind("It failed.", status_code=429, code=3040, request_id="ray", retry_after=2.5, retryable=True)
    again = error_from_json(error_to_json(error))
    assert type(again) is kind
    assert (again.message, again.facts()) == (error.message, error.facts())


@pytest.mark.parametrize(
    "model_input",
    [
        "a text",
        [{"role": "user", "content": "hi"}],
        [Message("system", "s"), Message("user", "hi", name="ann")],
        [
            Message("user", "hi"),
            Message(
                "assistant",
                "",
                [ToolCall("1", "f", {"a": [1]})],
                invalid_tool_calls=[InvalidToolCall("2", "g", "{", "x")],
            ),
            Message("tool", "done", tool_call_id="1"),
        ],
        [{"role": "user", "content": "hi"}, Message("assistant", "ho"), {"role": "user", "content": "ha"}],
    ],
)
def test_a_request_comes_back_from_the_journal_as_it_was(model_input: Any) -> None:
    request = BatchRequest(model_input, "mine", {"seed": 3, "stop": ["a"]}, {"n": 1.5})
    again = request_from_json(request_to_json(request), "mine", '{"n":1.5}')
    assert request_to_json(again) == request_to_json(request)
    assert (again.options, again.metadata, again.external_reference) == ({"seed": 3, "stop": ["a"]}, {"n": 1.5}, "mine")
