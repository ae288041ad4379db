"""``workersai batch`` and the signals that end it: each ends it as Ctrl-C does, and says so where it can be read."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support import Serve, asked_text
from tests.workersai.commands.running import COMMAND, at_terminal, finished, towards
from workersai.batch import progress_of
from workersai.local import LocalServer
from workersai.local.scripted import Answer, Gate

ROWS = 20
SIGNALS = [signal.SIGTERM, signal.SIGHUP]
_SEQUENCE = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])")

# The command with the handlers that a shell gives it: none, but for a signal that is ignored.
_START = """
import os, signal, sys
for name in ("SIGINT", "SIGTERM", "SIGHUP"):
    signal.signal(getattr(signal, name), signal.SIG_IGN if name == sys.argv[1] else signal.SIG_DFL)
os.execv(sys.argv[2], sys.argv[2:])
"""


def held(gate: Gate) -> Callable[..., Answer]:
    return lambda request: Answer(f"<{asked_text(request)}>", hold={0: gate})


def prompts(folder: Path) -> Path:
    source = folder / "in.jsonl"
    source.write_text("".join(json.dumps({"prompt": str(number)}) + "\n" for number in range(ROWS)))
    return source


def arguments(folder: Path) -> list[str]:
    return ["batch", "run", str(prompts(folder)), "-o", str(folder / "out.jsonl"), "--concurrency", "3", "--rate", "0"]


@contextmanager
def job(server: LocalServer, folder: Path, ignored: signal.Signals | None = None) -> Iterator[subprocess.Popen[str]]:
    """The command, with a handler of each signal that a shell would give it."""
    command = [COMMAND[0], "-c", _START, ignored.name if ignored else "", *COMMAND, *arguments(folder)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=towards(server)) as process:  # noqa: S603
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_a_job_as_ctrl_c_does(serve: Serve, tmp_path: Path, number: signal.Signals) -> None:
    gate, journal = Gate(), tmp_path / "out.jsonl.journal"
    server = serve(held(gate))
    with job(server, tmp_path) as process:
        gate.wait_until_reached(60)
        process.send_signal(number)
        assert process.stderr
        assert "Stopping once what is in progress has ended" in process.stderr.readline()
        gate.open()
        assert process.wait(300) == 128 + number
        assert f"Go on with: workersai batch resume {journal}" in process.stderr.read()
    answered = progress_of(journal).answered
    assert 0 < answered == len(server.requests) <= 3
    assert finished("batch", "resume", str(journal), environment=towards(server)).returncode == 0
    assert len(server.requests) == ROWS
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl", "out.jsonl.journal"]


@pytest.mark.parametrize("number", SIGNALS)
def test_a_second_signal_interrupts_what_is_in_progress(serve: Serve, tmp_path: Path, number: signal.Signals) -> None:
    gate = Gate()
    server = serve(held(gate))
    with job(server, tmp_path) as process:
        gate.wait_until_reached(60)
        process.send_signal(number)
        assert process.stderr
        process.stderr.readline()
        process.send_signal(number)
        assert process.wait(300) == 128 + number
        assert f"0 of {ROWS} rows done" in process.stderr.read()
    assert server.requests[0].wait() == "disconnected"


def test_a_job_that_is_to_survive_its_terminal_does(serve: Serve, tmp_path: Path) -> None:
    gate = Gate()
    server = serve(held(gate))
    with job(server, tmp_path, ignored=signal.SIGHUP) as process:
        gate.wait_until_reached(60)
        process.send_signal(signal.SIGHUP)
        gate.open()
        assert process.wait(300) == 0
    assert progress_of(tmp_path / "out.jsonl.journal").done


def test_a_job_whose_terminal_is_closed_keeps_what_it_paid_for(serve: Serve, tmp_path: Path) -> None:
    gate = Gate()
    server = serve(held(gate))
    environment = towards(server) | {"TERM": "xterm", "COLUMNS": "80"}
    with at_terminal(*arguments(tmp_path), environment=environment) as terminal:
        gate.wait_until_reached(60)
        terminal.close()
        gate.open()
        assert terminal.process.wait(300) == 128 + signal.SIGHUP
    progress = progress_of(tmp_path / "out.jsonl.journal")
    assert progress.answered == len(server.requests) > 0
    assert finished("batch", "resume", f"{tmp_path}/out.jsonl.journal", environment=towards(server)).returncode == 0
    assert len(server.requests) == ROWS


def screen(shown: str, columns: int) -> list[str]:
    """The lines of a terminal that shows this text, with the moves of the cursor that a bar makes."""
    lines, row, column, at = [""], 0, 0, 0
    while at < len(shown):
        sequence = _SEQUENCE.match(shown, at)
        if sequence:
            at = sequence.end()
            count = int(sequence[1]) if sequence[1].isdigit() else 1
            if sequence[2] == "A":
                row = max(0, row - count)
            elif sequence[2] == "K":
                assert sequence[1] == "2", sequence
                lines[row] = ""
            else:
                assert sequence[2] in "hlm", sequence
            continue
        character, at = shown[at], at + 1
        if character == "\r":
            column = 0
        elif character == "\n":
            row, column = row + 1, 0
        else:
            if column == columns:
                row, column = row + 1, 0
            lines += [""] * (row + 1 - len(lines))
            line = lines[row].ljust(column)
            lines[row], column = line[:column] + character + line[column + 1 :], column + 1
        lines += [""] * (row + 1 - len(lines))
    return [line.rstrip() for line in lines]


@pytest.mark.parametrize("columns", [80, 40])
def test_what_ctrl_c_says_stays_on_the_screen(serve: Serve, tmp_path: Path, columns: int) -> None:
    gate = Gate()
    server = serve(held(gate))
    environment = towards(server) | {"TERM": "xterm", "COLUMNS": str(columns), "LINES": "24"}
    with at_terminal(*arguments(tmp_path), environment=environment) as terminal:
        gate.wait_until_reached(60)
        terminal.read_until("rows/s")
        terminal.interrupt()
        terminal.read_until("interrupts it.")
        terminal.read_until("rows/s")  # the bar is drawn again
        gate.open()
        code, _ = terminal.end()
    assert code == 130
    lines = screen(terminal.shown, columns)
    (said,) = [place for place, line in enumerate(lines) if line.startswith("Stopping once")]
    assert "".join(lines[said : said + 3]).startswith(
        "Stopping once what is in progress has ended; Ctrl-C again interrupts it."
    )
    assert any(line.startswith("Stopped: 3 of 20 rows done") for line in lines[said + 1 :])


def test_the_screen_of_these_tests_shows_what_a_terminal_would() -> None:
    shown = "ab\rc\nlong line\r\x1b[2K\x1b[1A\x1b[2Kxy\n\x1b[?25l12345678"
    assert screen(shown, 4) == ["cb", "long", "xy", "1234", "5678"]
