"""Measures one subject, in a process of its own: a line of JSON with what to measure in, a line with the result out.

``python -m benchmarks.worker SUBJECT ADDRESS``. Between two lines it waits and costs nothing, so that the repeats of
several subjects can be interleaved.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import resource
import statistics
import sys
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, suppress
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

from benchmarks.server import HELD, PACED, TEXT
from benchmarks.subjects import LANGCHAIN, SUBJECTS, Subject

PROMPT = "Say something about the weather."


class Worker:
    """The measures; each is a method that returns its numbers."""

    def __init__(self, subject: Subject, address: str) -> None:
        self._subject = subject
        self._address = address

    def _make(self, pieces: int = 12) -> Any:
        return self._subject.make(self._address, pieces)

    def calls(self, *, at_once: int, most: int, seconds: float, warm: bool) -> dict[str, float]:
        """Whole answers a second, of ``at_once`` tasks that call again and again."""

        async def main() -> dict[str, float]:
            model = self._make()
            if warm:
                await self._burst(model, at_once, at_once, seconds)
            return await self._burst(model, at_once, most, seconds)

        return dict(_run(main()))

    async def _burst(self, model: Any, at_once: int, most: int, seconds: float) -> dict[str, float]:
        begun = done = failed = 0

        async def work() -> None:
            nonlocal begun, done, failed
            while begun < most:
                begun += 1
                try:
                    await self._subject.acall(model, PROMPT)
                except Exception as error:  # noqa: BLE001 - whatever a peer raises under load is counted
                    failed += 1
                    print(f"{self._subject.name}: {error!r}", file=sys.stderr)
                else:
                    done += 1

        start = perf_counter()
        tasks = [asyncio.create_task(work()) for _ in range(at_once)]
        await asyncio.wait(tasks, timeout=seconds)
        took, made = perf_counter() - start, done
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return {"per_second": made / took, "failed": failed}

    def threads(self, *, at_once: int, most: int) -> dict[str, float]:
        """Whole answers a second of threads that share a model; LangChain's by its own ``batch``."""
        model = self._make()
        self._subject.call(model, PROMPT)
        start = perf_counter()
        if self._subject.family == LANGCHAIN:
            model.batch([PROMPT] * most, config={"max_concurrency": at_once})
        else:
            with ThreadPoolExecutor(at_once) as pool:
                list(pool.map(lambda _: self._subject.call(model, PROMPT), range(most)))
        return {"per_second": most / (perf_counter() - start)}

    def streams(self, *, at_once: int, pieces: int, seconds: float) -> dict[str, float]:
        """Pieces a second of streams that are read at once."""

        async def main() -> dict[str, float]:
            model = self._make(pieces)
            read = 0

            async def work() -> None:
                nonlocal read
                async for _ in self._subject.astream(model, PROMPT):
                    read += 1

            start = perf_counter()
            tasks = [asyncio.create_task(work()) for _ in range(at_once)]
            finished, _ = await asyncio.wait(tasks, timeout=seconds)
            took = perf_counter() - start
            whole = len(finished) == at_once
            got = at_once * pieces if whole else read  # a raw reader gets several pieces at a time
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            return {"per_second": got / took, "whole": whole}

        return dict(_run(main()))

    def piece(self, *, pieces: int, sync: bool) -> dict[str, float]:
        """Microseconds of processor time a piece of one stream whose pieces come one by one."""
        model = self._make(pieces)
        if sync:
            stream = self._subject.stream(model, PACED)
            next(stream)
            start = process_time()
            for _ in stream:
                pass
            return {"us": 1e6 * (process_time() - start) / pieces}

        async def main() -> float:
            stream = self._subject.astream(model, PACED)
            await anext(stream)
            start = process_time()
            async for _ in stream:
                pass
            return process_time() - start

        return {"us": 1e6 * _run(main()) / pieces}

    def call(self, *, times: int, sync: bool) -> dict[str, float]:
        """Microseconds of a whole answer, one after the other."""
        model = self._make()

        async def main() -> float:
            return statistics.median([await self._timed(model) for _ in range(times)])

        if not sync:
            return {"us": 1e6 * _run(main())}
        taken = []
        for _ in range(times):
            start = perf_counter()
            self._subject.call(model, PROMPT)
            taken.append(perf_counter() - start)
        return {"us": 1e6 * statistics.median(taken)}

    async def _timed(self, model: Any) -> float:
        start = perf_counter()
        await self._subject.acall(model, PROMPT)
        return perf_counter() - start

    def first(self, *, times: int, sync: bool) -> dict[str, float]:
        """Microseconds until the first piece of a stream of three."""
        model = self._make(3)
        taken: list[float] = []

        async def main() -> None:
            for _ in range(times):
                start = perf_counter()
                stream = self._subject.astream(model, PROMPT)
                await anext(stream)
                taken.append(perf_counter() - start)
                async for _ in stream:
                    pass

        if sync:
            for _ in range(times):
                start = perf_counter()
                stream = self._subject.stream(model, PROMPT)
                next(stream)
                taken.append(perf_counter() - start)
                for _ in stream:
                    pass
        else:
            _run(main())
        return {"us": 1e6 * statistics.median(taken)}

    def open_streams(self, *, at_once: int, seconds: float) -> dict[str, float]:
        """How many streams that don't end are open at the same time, and the memory of each."""

        async def main() -> dict[str, float]:
            model = self._make()
            opened, enough = 0, asyncio.Event()

            async def work(hold: asyncio.Event) -> None:
                nonlocal opened
                async with aclosing(self._subject.astream(model, HELD)) as stream:  # type: ignore[type-var]
                    await anext(stream)
                    opened += 1
                    if opened == at_once:
                        enough.set()
                    await hold.wait()

            async def some(count: int) -> list[asyncio.Task[None]]:
                return [asyncio.create_task(work(hold)) for _ in range(count)]

            hold = asyncio.Event()
            async for _ in self._subject.astream(model, PROMPT):  # what is made once is not counted
                pass
            before = _resident()
            tasks = await some(at_once)
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(enough.wait(), seconds)
            result = {"open": opened, "kib": (_resident() - before) / 1024 / max(1, opened)}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            return result

        return dict(_run(main()))

    def making(self, *, times: int) -> dict[str, float]:
        """Microseconds of making a model: the first one after the imports, and the median of those after it."""
        for name in self._subject.imports:
            importlib.import_module(name)
        taken = []
        for _ in range(times):
            start = perf_counter()
            self._make()
            taken.append(perf_counter() - start)
        return {"first_us": 1e6 * taken[0], "us": 1e6 * statistics.median(taken[1:])}

    def window(self, *, times: int) -> dict[str, float]:
        """Microseconds to check a chat of 20,000 tokens against the window, a turn longer each time."""
        workersai: Any = importlib.import_module("workersai")
        fitted: Any = importlib.import_module("workersai.window").fitted
        body: Any = importlib.import_module("workersai.protocol.request").input_body
        offer = importlib.import_module("workersai.protocol.tools").Offer()
        options = workersai.CallOptions()
        chat = [workersai.Message("user", f"{number}: {TEXT * 10}") for number in range(200)]
        while workersai.count_tokens(chat) > 20_000:  # noqa: PLR2004 - as the row says
            chat.pop()
        fitted(body(chat, options, offer), (), options)
        taken = []
        for number in range(times):
            chat.append(workersai.Message("user", f"And {number}?"))
            start = perf_counter()
            fitted(body(chat, options, offer), (), options)
            taken.append(perf_counter() - start)
        return {"us": 1e6 * statistics.median(taken)}

    def imports(self, *, beside: list[str]) -> dict[str, float]:
        """Milliseconds and MiB of the imports, after those of ``beside``; only right in a new process."""
        for name in beside:
            importlib.import_module(name)
        before, start = _resident(), perf_counter()
        for name in self._subject.imports:
            importlib.import_module(name)
        return {"ms": 1e3 * (perf_counter() - start), "mib": (_resident() - before) / 2**20}


def _run(main: Coroutine[Any, Any, Any]) -> Any:
    """Like ``asyncio.run``, silent about the connections that some leave open."""

    async def silently() -> Any:
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        return await main

    return asyncio.run(silently())


def _resident() -> float:
    """Bytes of memory that this process has now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize()


def main() -> None:
    """Reads what to measure until there is no more."""
    results = os.fdopen(os.dup(1), "w")  # for us alone, whatever else is printed
    os.dup2(2, 1)
    worker = Worker(SUBJECTS[sys.argv[1]], sys.argv[2])
    for line in sys.stdin:
        asked = json.loads(line)
        measure: Callable[..., dict[str, float]] = getattr(worker, asked.pop("measure"))
        print(json.dumps(measure(**asked)), file=results, flush=True)


if __name__ == "__main__":
    main()
