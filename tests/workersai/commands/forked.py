"""The command in a process of its own that need not import it first: a fork of one that has.

Most of the time of a short command goes into its imports. One process makes them, and forks for each command; the fork
has the streams, the folder, the environment and the arguments of the command, and ends as Python ends any program. What
is about the start of a process itself, its signals or its terminal, has a process that is started anew: ``running.py``.
"""

from __future__ import annotations

import atexit
import json
import os
import runpy
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from functools import cache
from pathlib import Path

_LONGEST = 1 << 17  # bytes of a command with its environment
_ROOT = Path(__file__).parents[3]


class Stem:
    """The process that commands are forked from."""

    def __init__(self) -> None:
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - ourselves
                [sys.executable, "-m", "tests.workersai.commands.forked", str(theirs.fileno())],
                cwd=_ROOT,
                pass_fds=[theirs.fileno()],
            )
        atexit.register(self.end)

    def end(self) -> None:
        """Ends the process, and a command that it waits for is left alone."""
        self._ours.close()
        self._process.kill()
        self._process.wait()

    def run(
        self, arguments: tuple[str, ...], typed: bytes, environment: Mapping[str, str], timeout: float
    ) -> subprocess.CompletedProcess[bytes]:
        """The command after its end; ``typed`` is its standard input.

        Raises:
            TimeoutError: it has not ended in time.
        """
        reading, writing = os.pipe()
        typing = threading.Thread(target=_type, args=[writing, typed], daemon=True)
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, os.fdopen(reading, "rb") as read:
            call = json.dumps([arguments, dict(environment), str(Path.cwd())]).encode()
            socket.send_fds(self._ours, [call], [read.fileno(), out.fileno(), err.fileno()])
            read.close()
            typing.start()
            self._ours.settimeout(timeout)
            code = int(self._ours.recv(_LONGEST))
            typing.join()
            out.seek(0)
            err.seek(0)
            return subprocess.CompletedProcess(arguments, code, out.read(), err.read())


def _type(writing: int, typed: bytes) -> None:
    try:
        with os.fdopen(writing, "wb") as writer:
            writer.write(typed)
    except BrokenPipeError:  # the command has ended without reading all of it
        pass


@cache
def stem() -> Stem:
    """The one of this process."""
    return Stem()


def main(number: int) -> None:
    """Forks for each command that comes, and becomes the command in the fork; returns when no more will come."""
    _prepare()
    with socket.socket(fileno=number) as calls:
        while True:
            call, streams, _, _ = socket.recv_fds(calls, _LONGEST, 3)
            if not call:
                return
            child = os.fork()
            if child == 0:
                break
            for stream in streams:
                os.close(stream)
            calls.send(str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])).encode())
    _become(json.loads(call), streams)


def _prepare() -> None:
    """What most commands do first, each time the same: imports, and reading the tokenizer's words."""
    import anyio  # noqa: F401, PLC0415

    import workersai.commands  # noqa: PLC0415

    workersai.count_tokens("")


def _become(call: tuple[list[str], dict[str, str], str], streams: list[int]) -> None:
    """Does the command, as ``python -m workersai`` would."""
    arguments, environment, folder = call
    for place, stream in enumerate(streams):
        os.dup2(stream, place)
        os.close(stream)
    sys.stdin = open(0, encoding="utf-8")  # noqa: SIM115 - as at the start of Python
    sys.stdout = open(1, "w", encoding="utf-8")  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1)  # noqa: SIM115
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = ["workersai", *arguments]
    runpy.run_module("workersai", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
