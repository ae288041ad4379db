"""llama.cpp in a process of its own, so that a crash in it is a failed call, and not the end of the host program."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from workersai.local.engine import EngineError

_PROGRAM = Path(__file__).with_name("llama_worker.py")
# Seconds that the process has to end by itself.
_STOP_SECONDS = 5.0


@dataclass(frozen=True)
class LlamaConfig:
    """What the process is to run.

    Args:
        path: The GGUF file.
        key: The key of its HTTP API.
        context: The tokens that the slots share.
        slots: How many answers it gives at once.
        prompt_cache_mib: The memory for old prompts.
        threads: The threads that compute.
    """

    path: str
    key: str
    context: int
    slots: int
    prompt_cache_mib: int
    threads: int


class LlamaProcess:
    """A running llama.cpp. The process ends when it is stopped, and when this one ends, whichever way.

    Args:
        config: What to run.

    Raises:
        EngineError: the process can't be started, or llama.cpp can't run the model.
    """

    def __init__(self, config: LlamaConfig) -> None:
        self._process = _spawn()
        try:
            self.address = self._start(config)
        except BaseException:
            self.stop()
            raise

    @property
    def pid(self) -> int:
        """The number by which the system knows the process."""
        return self._process.pid

    @property
    def crash(self) -> str | None:
        """How the process ended by itself, in words; None while it runs."""
        status = self._process.poll()
        if status is None:
            return None
        if status < 0:
            with suppress(ValueError):
                return f"signal {signal.Signals(-status).name}"
        return f"exit status {status}"

    def wait_for_crash(self) -> str | None:
        """How the process ended, in words, where it has lost its connections; None if it still runs a moment later."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_STOP_SECONDS)
        return self.crash

    def kill(self) -> None:
        """Ends the process at once; the next call starts another."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """Ends the process, and returns once it has ended."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):  # what was not written has nobody to read it
                    pipe.close()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _start(self, config: LlamaConfig) -> str:
        """Sends the configuration, and returns the address once the model is loaded."""
        written, read = self._process.stdin, self._process.stdout
        if written is None or read is None:
            raise EngineError("llama.cpp's process has no pipes.")
        # The process looks for libraries where this one does, whatever the program has changed about that.
        line = json.dumps({**asdict(config), "sys_path": [str(entry) or str(Path.cwd()) for entry in sys.path]})
        with suppress(OSError):  # it has ended; its silence says so below
            written.write(f"{line}\n".encode())
            written.flush()
        reply = read.readline()
        if not reply:
            self._process.wait()
            raise EngineError(f"llama.cpp can't run {config.path}: its process ended with {self.crash}.")
        told: dict[str, str] = json.loads(reply)
        if "error" in told:
            raise EngineError(f"llama.cpp can't run {config.path}: {told['error']}")
        return told["address"]


def _spawn() -> subprocess.Popen[bytes]:
    try:
        # A session of its own: Ctrl-C in the terminal is for the host program, which then closes the server.
        return subprocess.Popen(  # noqa: S603 - this interpreter, and a file of this package
            [sys.executable, "-I", str(_PROGRAM)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        raise EngineError(
            f"The process for the local model can't be started with sys.executable, {sys.executable!r}: {error}"
        ) from error
