"""The command as a process of its own: run to its end, or at a terminal that a test types at."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.workersai.commands.forked import stem
from workersai.local import LocalServer

PATIENCE = 300  # seconds
COMMAND = [sys.executable, "-m", "workersai"]
PLAIN = {**os.environ, "NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "200"}
CTRL_D = "\x04"

# The command with its standard input as the terminal that Ctrl-C is typed at; Ctrl-C kills, as it does in a shell.
_AT_TERMINAL = """
import fcntl, os, signal, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execv(sys.executable, [sys.executable, "-m", "workersai", *sys.argv[1:]])
"""


def towards(server: LocalServer) -> dict[str, str]:
    """The environment of a command that calls the server."""
    return {**PLAIN, **server.environment}


def finished(
    *arguments: str, environment: dict[str, str] | None = None, typed: str | bytes = ""
) -> subprocess.CompletedProcess[str]:
    """The command after its end; ``typed`` is its standard input."""
    environment, content = environment or PLAIN, typed.encode() if isinstance(typed, str) else typed
    if environment.get("PYTHONPATH") == PLAIN.get("PYTHONPATH"):
        done = stem().run(arguments, content, environment, PATIENCE)
    else:  # it is to import something else
        done = subprocess.run(  # noqa: S603
            [*COMMAND, *arguments],
            input=content,
            capture_output=True,
            timeout=PATIENCE,
            check=False,
            env=environment,
        )
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


def complaint_of(done: subprocess.CompletedProcess[str]) -> str:
    """The one line that a command which failed has said."""
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    return line


def wait_until_idle(process: subprocess.Popen[bytes]) -> None:
    """Blocks until the process sleeps, which here is in a read: of the keyboard, or of its connection.

    Python notices a signal that comes just before such a read only after it. No hand is so quick, but a test is.
    """
    deadline = time.monotonic() + PATIENCE
    while Path(f"/proc/{process.pid}/stat").read_text().rpartition(") ")[2][0] != "S":
        assert time.monotonic() < deadline
        os.sched_yield()


class Terminal:
    """A terminal with a command at it.

    Attributes:
        process: The command.
        shown: All that the terminal has shown so far, with the line ends of a text.
    """

    def __init__(self, process: subprocess.Popen[bytes], screen: int) -> None:
        self.process = process
        self.shown = ""
        self._screen = screen
        self._looked_at = 0

    def type(self, keys: str) -> None:
        """Types them, without Enter."""
        os.write(self._screen, keys.encode())

    def enter(self, line: str) -> None:
        """Types a line, and Enter."""
        self.type(f"{line}\n")

    def interrupt(self) -> None:
        """Types Ctrl-C, once the command waits for something."""
        wait_until_idle(self.process)
        self.type("\x03")

    def read_until(self, text: str) -> str:
        """What is shown next, up to and with ``text``."""
        deadline = time.monotonic() + PATIENCE
        while (found := self.shown.find(text, self._looked_at)) < 0:
            assert self._read(deadline), f"It ended, or shows no {text!r}: {self.shown!r}"
        start, self._looked_at = self._looked_at, found + len(text)
        return self.shown[start : self._looked_at]

    def end(self) -> tuple[int, str]:
        """The exit code of the command, and what else it has shown."""
        deadline = time.monotonic() + PATIENCE
        while self._read(deadline):
            pass
        return self.process.wait(timeout=PATIENCE), self.shown[self._looked_at :]

    def close(self) -> None:
        """Closes the window: the terminal hangs up."""
        os.close(self._screen)
        self._screen = os.open(os.devnull, os.O_RDONLY)

    def _read(self, deadline: float) -> bool:
        ready, _, _ = select.select([self._screen], [], [], max(0.0, deadline - time.monotonic()))
        try:
            piece = os.read(self._screen, 65_536) if ready else b""
        except OSError:  # as Linux tells that the last process has left the terminal
            return False
        self.shown += piece.decode().replace("\r\n", "\n")
        return bool(piece)


@contextmanager
def at_terminal(*arguments: str, environment: dict[str, str], stdout: int | None = None) -> Iterator[Terminal]:
    """The command at a terminal of its own; ``stdout`` may go elsewhere."""
    screen, side = pty.openpty()
    with subprocess.Popen(  # noqa: S603
        [sys.executable, "-c", _AT_TERMINAL, *arguments],
        stdin=side,
        stdout=side if stdout is None else stdout,
        stderr=side,
        env=environment,
        start_new_session=True,
    ) as process:
        os.close(side)
        terminal = Terminal(process, screen)
        try:
            yield terminal
        finally:
            process.kill()
            terminal.close()
            os.close(terminal._screen)  # of this module
