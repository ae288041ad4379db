"""The command as a process of its own, at a terminal or without one."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress

from workersai.local import LocalServer

COMMAND = [sys.executable, "-m", "workersai"]


def environment(server: LocalServer | None) -> dict[str, str]:
    """What the command finds around it: the server's three variables, or no credentials."""
    own = {"NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "200", **(server.environment if server else {})}
    return {name: value for name, value in os.environ.items() if not name.startswith(("CLOUDFLARE", "CF_"))} | own


def command(
    server: LocalServer | None, *arguments: object, stdin: str | bytes = "", ok: bool = True
) -> subprocess.CompletedProcess[str]:
    """Runs it to its end, which no traceback may be a part of."""
    done = subprocess.run(  # noqa: S603
        [*COMMAND, *map(str, arguments)],
        input=stdin if isinstance(stdin, bytes) else stdin.encode(),
        capture_output=True,
        timeout=60,
        env=environment(server),
        check=False,
    )
    told = subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())
    assert "Traceback" not in told.stderr
    assert (told.returncode == 0) == ok, told.stderr
    return told


class Terminal:
    """The command at a terminal."""

    def __init__(self, server: LocalServer, *arguments: object) -> None:
        self._pid, self._terminal = pty.fork()
        if self._pid == 0:
            settings = environment(server) | {"TERM": "xterm"}
            os.execve(sys.executable, [*COMMAND, *map(str, arguments)], settings)  # noqa: S606
        self.shown = ""

    def press(self, keys: str) -> None:
        """Types; Ctrl-C is the character 3, Ctrl-D is 4."""
        os.write(self._terminal, keys.encode())

    def wait_for(self, words: str) -> None:
        """Reads until the words have been shown, after those that were waited for before."""
        while words not in self.shown:
            self.shown += self._read()
        self.seen, self.shown = self.shown, self.shown.split(words, 1)[1]

    def _read(self) -> str:
        if not select.select([self._terminal], [], [], 30)[0]:
            os.kill(self._pid, signal.SIGKILL)
            raise TimeoutError(f"Nothing more was shown: {self.shown[-200:]!r}")
        return os.read(self._terminal, 4096).decode(errors="replace")

    def end(self) -> tuple[int, str]:
        """Reads to the end; the exit code, and what was shown last."""
        with suppress(OSError):  # the other side has ended
            while some := self._read():
                self.shown += some
        os.close(self._terminal)
        return os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1]), self.shown


Run = Callable[..., subprocess.CompletedProcess[str]]
