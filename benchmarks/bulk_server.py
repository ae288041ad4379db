"""The local server in a process of its own: its script answers each prompt, and counts them."""

from __future__ import annotations

import multiprocessing
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from benchmarks.bulk_client import answer_to
from workersai.local import LocalServer, ScriptedEngine
from workersai.local.engine import GenerationRequest
from workersai.local.llama_markup import messages_in

_SLOTS = 128  # more than a client asks for at once, so that no call waits for a seat
_QUIET = 0.2  # seconds without another prompt, on top of the delay of a batch, until all has been asked


@dataclass
class Server:
    """A server that runs; ``environment`` has what points a client at it."""

    environment: dict[str, str]
    _delay: float
    _ask: Connection

    def asked(self) -> Counter[str]:
        """How often each prompt was asked since this was asked last, once no batch is under way any more."""
        count, before = self._told("how many"), None
        while count != before:
            time.sleep(self._delay + _QUIET)
            count, before = self._told("how many"), count
        counts: Counter[str] = self._told("which")
        return counts

    def _told(self, what: str) -> Any:
        self._ask.send(what)
        return self._ask.recv()


@contextmanager
def serving(*, batch_delay: float = 0.0) -> Iterator[Server]:
    """A server, which is stopped at the end."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(theirs, batch_delay), daemon=True)
    process.start()
    try:
        yield Server(ours.recv(), batch_delay, ours)
    finally:
        process.kill()
        process.join()


def _serve(line: Connection, batch_delay: float) -> None:
    asked: Counter[str] = Counter()

    def script(request: GenerationRequest) -> str:
        turns = request.messages or messages_in(request.prompt or "")  # a batch has conversations in Llama's template
        prompt = turns[-1].content if turns else request.prompt or ""
        asked[prompt] += 1
        return answer_to(prompt)

    with LocalServer(ScriptedEngine(script, slots=_SLOTS), batch_delay=batch_delay, strict=True) as server:
        line.send(server.environment)
        while True:
            if line.recv() == "how many":
                line.send(asked.total())
            else:
                line.send(asked.copy())
                asked.clear()
