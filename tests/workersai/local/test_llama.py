"""llama.cpp in a process of its own: what becomes of calls when it crashes, and that it never outlives its host."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.workersai.local.asking import PATIENCE, VERIFY, bearer, error_of, event_of, result_of, run, run_url
from workersai.local import LocalServer, SmolLM
from workersai.local.llama_process import LlamaConfig, LlamaProcess

pytestmark = [
    pytest.mark.model,
    pytest.mark.skipif(sys.platform == "win32", reason="signals and forks are POSIX's"),
]

PROMPT: dict[str, Any] = {"prompt": "Say hello.", "max_tokens": 3}
LONG = {"prompt": "Count from 1 to 10000.", "max_tokens": 8_000, "raw": True, "frequency_penalty": -2, "stream": True}
# Prints what it has started, then waits to be killed; its standard error ends when its last process does.
HOST = """
import os, sys, time
from workersai.local import LocalServer
server = LocalServer()
server.start()
if "fork" in sys.argv and os.fork() == 0:
    os.close(2)
    time.sleep(600)
print(server.engine._llama.process.pid, flush=True)
time.sleep(600)
"""


@pytest.fixture
def server() -> Iterator[LocalServer]:
    with LocalServer() as server:
        yield server


def worker_of(server: LocalServer) -> int:
    assert isinstance(server.engine, SmolLM)
    process = server.engine._llama.process
    assert process is not None
    return process.pid


def test_a_crash_fails_the_calls_in_progress_and_no_other(server: LocalServer) -> None:
    worker = worker_of(server)
    with (
        httpx.Client(headers=bearer(server), verify=VERIFY, timeout=PATIENCE) as client,
        client.stream("POST", run_url(server), json=LONG) as response,
    ):
        lines = response.iter_lines()
        assert event_of(next(lines))["response"]
        os.kill(worker, signal.SIGKILL)
        told = [line for line in lines if "errors" in line]
    assert len(told) == 1
    (error,) = event_of(told[0])["errors"]
    assert error["code"] == 5000
    assert "llama.cpp did not answer: its process ended (signal SIGKILL)" in error["message"]
    assert result_of(run(server, PROMPT))["response"]
    assert worker_of(server) != worker


def test_a_crash_between_two_calls_is_not_noticed(server: LocalServer) -> None:
    assert isinstance(server.engine, SmolLM)
    process = server.engine._llama.process
    assert process is not None
    os.kill(process.pid, signal.SIGABRT)
    assert process.wait_for_crash() == "signal SIGABRT"
    answers: list[dict[str, Any]] = []
    threads = [threading.Thread(target=lambda: answers.append(result_of(run(server, PROMPT)))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 3
    assert worker_of(server) != process.pid


def test_a_grammar_that_takes_too_long_is_5024_and_the_next_call_works(
    server: LocalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workersai.local.smollm._GRAMMAR_SECONDS", 0.0)
    wanted = {"response_format": {"type": "json_schema", "json_schema": {"const": 1}}}
    status, code, message = error_of(run(server, {**PROMPT, **wanted}))
    assert (status, code) == (400, 5024)
    assert "took more than 0 seconds to make a grammar" in message
    assert result_of(run(server, PROMPT))["response"]


def test_closing_the_server_ends_the_process() -> None:
    with LocalServer() as server:
        worker = worker_of(server)
    with pytest.raises(ProcessLookupError):
        os.kill(worker, 0)


@pytest.mark.parametrize("kind", ["alone", "fork"])
def test_a_host_that_is_killed_leaves_no_process_behind(kind: str) -> None:
    command = [sys.executable, "-c", HOST, kind]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True) as host:  # noqa: S603
        assert host.stdout
        assert host.stderr
        try:
            assert int(host.stdout.readline())
            host.kill()
            host.stderr.read()  # it ends with the last process that holds it, which is the one in question
        finally:
            os.killpg(host.pid, signal.SIGKILL) if kind == "fork" else host.kill()


def test_ctrl_c_is_for_the_host_alone(server: LocalServer) -> None:
    assert os.getsid(worker_of(server)) != os.getsid(0)


def test_what_a_program_changes_about_its_search_path_holds_for_the_process(tmp_path: Path) -> None:
    (tmp_path / "xllamacpp.py").write_text("raise RuntimeError('this one')")
    sys.path.insert(0, str(tmp_path))
    try:
        with pytest.raises(Exception, match="this one"):
            LlamaProcess(LlamaConfig(str(tmp_path), "key", 1, 1, 1, 1))
    finally:
        sys.path.remove(str(tmp_path))
