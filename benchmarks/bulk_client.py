"""One job of bulk work in a process of its own: what to do as JSON in the arguments, the numbers as JSON on stdout.

``python -m benchmarks.bulk_client '{"measure": "job", ...}'``; the server is the one that the environment names. Before
the work begins, a line says so. No result is held: each is checked, counted and dropped.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

from workersai import AsyncClient, Client
from workersai.batch import BatchResult

_FIRST = 1_000  # results, after which the memory is looked at
_JOB: dict[str, Any] = {"rate_limit": None, "poll_interval": 0.1}


def prompt_of(number: int) -> str:
    """The prompt of a row."""
    return f"Row {number}: say in one sentence what the weather will be in Paris in the next days."


def answer_to(prompt: str) -> str:
    """The answer to a prompt: a digest of it, so that each answer shows whether it is of its row."""
    return f"It will be {hashlib.sha256(prompt.encode()).hexdigest()}."


class Tally:
    """What came: how many answers, whether each row had its own, and once.

    Args:
        rows: How many are awaited.
        answer: The one answer of a server that gives no other.
    """

    def __init__(self, rows: int, answer: str | None) -> None:
        self._seen = bytearray(rows)
        self._answer = answer
        self._memory = _memory("VmRSS")
        self._first: float | None = None
        self._start, self._cpu = perf_counter(), process_time()
        self._read_after = 0.0
        self.wrong = self.twice = self.count = 0

    def requests(self) -> Iterator[str]:
        """The requests of the job, which are made as they are asked for."""
        for number in range(len(self._seen)):
            yield prompt_of(number)
        self._read_after = perf_counter() - self._start

    def take(self, number: int, text: str) -> None:
        """Counts an answer."""
        self.count += 1
        self.wrong += text != (self._answer or answer_to(prompt_of(number)))
        self.twice += self._seen[number]
        self._seen[number] = 1
        if self.count == _FIRST:
            self._first = _memory("VmRSS")

    def result(self, result: BatchResult) -> None:
        """Counts a result; one without an answer is wrong."""
        self.take(result.index, "" if result.completion is None else result.text)

    def numbers(self) -> dict[str, float]:
        """All that there is to tell, in seconds and MiB."""
        return {
            "rows": len(self._seen),
            "seconds": perf_counter() - self._start,
            "reading": self._read_after,
            "cpu": process_time() - self._cpu,
            "missing": self._seen.count(0),
            "wrong": self.wrong,
            "twice": self.twice,
            "begun_mib": self._memory,
            "first_mib": self._memory if self._first is None else self._first,
            "peak_mib": _memory("VmHWM"),
        }


def job(*, rows: int, sync: bool, again: bool = False, answer: str | None = None, **options: Any) -> dict[str, float]:
    """A job from its begin, or from where its journal says that it is; ``again``: without its requests."""
    tally, options = Tally(rows, answer), {**_JOB, **options}
    if sync:
        with Client() as client, client.batch(None if again else tally.requests(), **options) as batch:
            for result in batch:
                tally.result(result)
        return tally.numbers()

    async def main() -> None:
        async with AsyncClient() as client, client.batch(None if again else tally.requests(), **options) as batch:
            async for result in batch:
                tally.result(result)

    asyncio.run(main())
    return tally.numbers()


def plain(*, rows: int, concurrency: int, answer: str | None = None) -> dict[str, float]:
    """The same calls without a job: tasks that call again and again."""
    tally = Tally(rows, answer)

    async def main() -> None:
        numbered = enumerate(tally.requests())

        async def work(client: AsyncClient) -> None:
            for number, prompt in numbered:
                tally.take(number, (await client.run(prompt, rate_limit=None)).text)

        async with AsyncClient() as client:
            await asyncio.gather(*(work(client) for _ in range(concurrency)))

    asyncio.run(main())
    return tally.numbers()


def _memory(name: str) -> float:
    """MiB of this process: ``VmRSS`` now, ``VmHWM`` its peak; ``ru_maxrss`` would count what it was forked from."""
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
    return int(found[1]) / 1024 if found else 0.0


MEASURES: dict[str, Callable[..., dict[str, float]]] = {"job": job, "plain": plain}


def main() -> None:
    """Does the one thing that it was asked for."""
    asked = json.loads(sys.argv[1])
    measure = MEASURES[asked.pop("measure")]
    print("begun", flush=True)
    print(json.dumps(measure(**asked)), flush=True)


if __name__ == "__main__":
    main()
