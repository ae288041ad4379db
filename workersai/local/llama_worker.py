"""The program of llama.cpp's own process: loads a model, serves it on loopback, and ends with the process it works for.

:mod:`~workersai.local.llama_process` starts it. It is run as a file, so it imports nothing of this package. The first
line of its input is its configuration, and the end of its input is its end. It writes one line: its address, or why it
has none.
"""

from __future__ import annotations

import json
import os
import select
import sys
import threading
from pathlib import Path
from typing import Any, TextIO

# What llama.cpp may allocate beside a model and its copy. A schema that it can't handle then ends this process, not the
# machine (17 GB were seen).
_SPARE_BYTES = 8 * 2**30
# Seconds between two looks at whether the parent is still there. A process that the parent forked keeps the pipe open.
_LOOK_SECONDS = 1.0


def main() -> None:
    """Serves until the process that started this one has ended, or closes the pipe."""
    parent = os.getppid()
    # Libraries write to the standard output as they like; the pipe is for the one line.
    reply = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    config = json.loads(sys.stdin.buffer.readline())
    sys.path[:] = config["sys_path"]
    _limit_memory(Path(config["path"]))
    threading.Thread(target=_end_with_parent, args=(parent,), daemon=True).start()
    try:
        server = _load(config)
    except RuntimeError as error:
        _send(reply, {"error": str(error)})
        return
    _send(reply, {"address": server.listening_address})
    threading.Event().wait()


def _send(reply: TextIO, line: dict[str, str]) -> None:
    reply.write(json.dumps(line) + "\n")
    reply.close()


def _load(config: dict[str, Any]) -> Any:
    import xllamacpp  # noqa: PLC0415 - the search path is known only now

    params = xllamacpp.CommonParams()
    params.model.path = config["path"]
    params.api_keys = [config["key"]]
    params.n_ctx = config["context"]
    params.n_parallel = config["slots"]
    params.kv_unified = True
    params.cache_ram_mib = config["prompt_cache_mib"]
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = config["threads"]
    params.verbosity = -1
    # An assistant's message at the end is one more message, as to the service, and not the answer's beginning.
    params.prefill_assistant = False
    return xllamacpp.Server(params)


def _limit_memory(model: Path) -> None:
    if sys.platform != "linux":
        return
    import resource  # noqa: PLC0415 - Windows has none

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    most = 2 * model.stat().st_size + _SPARE_BYTES
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard in (resource.RLIM_INFINITY, -1) or hard > most:
        resource.setrlimit(resource.RLIMIT_DATA, (most, hard))


def _end_with_parent(parent: int) -> None:
    """Ends this process with its parent, also while it is loading a model."""
    pipe = sys.stdin.fileno()
    while os.getppid() == parent:
        if os.name != "nt" and not select.select([pipe], [], [], _LOOK_SECONDS)[0]:
            continue
        if not os.read(pipe, 1):
            break
    # Nothing is left to save, and llama.cpp's threads take a moment to stop.
    os._exit(0)


if __name__ == "__main__":
    main()
