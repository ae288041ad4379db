"""A job for sync callers: its calls run in threads, and what it hands over is an iterator."""

from __future__ import annotations

import contextvars
import queue
import threading
from collections.abc import Callable, Generator, Iterable
from contextlib import suppress
from itertools import islice
from typing import Any

from workersai._cleanup import drain, finish, start
from workersai._wait_queue import WaitQueue
from workersai.calls import Call
from workersai.errors import WorkersAIError
from workersai.flows import Flow
from workersai.jobs.steps import Begin, Ended, Hand, JobFlow, Key, Leave, Next, NotSentError, Take, Watched, Work

Pump = Callable[[Call, Flow[Any]], Any]

_A_WHILE = 0.5  # seconds; who asks to stop, or interrupts, is heard after so long on every platform


def results_in_threads(flow: JobFlow, requests: Iterable[Any], pump: Pump) -> Generator[Any, None, None]:
    """What a job hands over; its calls are made in threads."""
    sources, threads, outcome = iter(requests), _Threads(pump), None
    start()  # now, since the end may come in a finalizer, which can start no thread
    try:
        while True:
            try:
                step = flow.send(outcome)
            except StopIteration:
                return
            outcome = None
            match step:
                case Take(most):
                    outcome = list(islice(sources, most))
                case Work(what):
                    outcome = what()
                case Begin():
                    threads.begin(step)
                case Next(seconds):
                    outcome = threads.ended(seconds)
                case Leave():
                    threads.leave_unsent()
                case Hand(results):
                    yield from results
    finally:
        flow.close()
        finish(threads.leave)
        finish(drain)  # what the flow has left, if it was interrupted


class _Threads:
    """Threads that make the calls, as many as are needed at once; they don't keep the process alive."""

    def __init__(self, pump: Pump) -> None:
        self._pump = pump
        self._begun: queue.SimpleQueue[tuple[Watched, contextvars.Context] | None] = queue.SimpleQueue()
        self._ended: WaitQueue[Ended | BaseException] = WaitQueue()
        self._under_way: dict[Key, Watched] = {}
        self._idle = threading.Semaphore(0)
        self._count = 0
        self._failure: BaseException | None = None  # of our own or the caller's making, told once the rest is kept

    def begin(self, call: Begin) -> None:
        """Begins a call, in a thread that is idle or in a new one."""
        if not self._idle.acquire(blocking=False):
            self._count += 1
            threading.Thread(target=self._work, name=f"workersai-batch-{self._count}", daemon=True).start()
        self._under_way[call.key] = watched = Watched(call)
        # In the caller's context, as a task would be: a span of theirs is the parent of the call's.
        self._begun.put((watched, contextvars.copy_context()))

    def _work(self) -> None:
        while (begun := self._begun.get()) is not None:
            watched, context = begun
            try:
                value = context.run(self._pump, watched.call, watched.flow())
                ended: Ended | BaseException = Ended(watched.key, value)
            except WorkersAIError as error:
                ended = Ended(watched.key, error=error)
            except BaseException as error:  # noqa: BLE001 - raised again where the results are awaited
                ended = error
            self._idle.release()
            self._ended.put(ended)

    def leave_unsent(self) -> None:
        """Ends the calls that are not being sent; their threads will find out."""
        for key, watched in list(self._under_way.items()):
            if watched.leave():
                self._ended.put(Ended(key, error=NotSentError("The job was stopped.")))

    def ended(self, seconds: float | None) -> list[Ended]:
        """All calls that have ended; waits a while for the first one, and not always as long as it is asked to."""
        if self._failure is not None:
            raise self._failure
        found: list[Ended | BaseException] = []
        with suppress(queue.Empty):
            found.append(self._ended.get(timeout=_A_WHILE if seconds is None else min(seconds, _A_WHILE)))
        with suppress(queue.Empty):
            while True:
                found.append(self._ended.get(timeout=0))
        self._failure = next((ended for ended in found if isinstance(ended, BaseException)), None)
        # Of one that was left, its thread tells once more when it has found out.
        kept = [ended for ended in found if isinstance(ended, Ended) and self._is_awaited(ended.key)]
        return kept if kept or self._failure is None else self.ended(0)

    def _is_awaited(self, key: Key) -> bool:
        return self._under_way.pop(key, None) is not None

    def leave(self) -> None:
        """Lets the threads end, each after what it is doing."""
        self.leave_unsent()
        for _ in range(self._count):
            self._begun.put(None)
