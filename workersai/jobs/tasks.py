"""A job for asyncio: its calls are tasks, and what it hands over is an async iterator."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable
from itertools import islice
from typing import Any

from workersai._cleanup import drain
from workersai.calls import Call
from workersai.errors import WorkersAIError
from workersai.flows import Flow
from workersai.jobs.steps import Begin, Ended, Hand, JobFlow, Leave, Next, NotSentError, Take, Watched, Work

Pump = Callable[[Call, Flow[Any]], Awaitable[Any]]


async def results_in_tasks(
    flow: JobFlow, requests: Iterable[Any] | AsyncIterable[Any], tasks: Tasks
) -> AsyncGenerator[Any, None]:
    """What a job hands over; its calls are made in tasks."""
    take, outcome = _taker(requests), None
    try:
        while True:
            try:
                step = flow.send(outcome)
            except StopIteration:
                return
            outcome = None
            match step:
                case Take(most):
                    outcome = await take(most)
                case Work(what):
                    outcome = await _whole(what)
                case Begin():
                    tasks.begin(step)
                case Next(seconds):
                    outcome = await tasks.ended(seconds)
                case Leave():
                    await tasks.leave_unsent()
                case Hand(results):
                    for result in results:
                        yield result
    finally:
        await tasks.cancel()
        flow.close()
        drain()  # what the flow has left


def _taker(requests: Iterable[Any] | AsyncIterable[Any]) -> Callable[[int], Awaitable[list[Any]]]:
    if not isinstance(requests, AsyncIterable):
        plain = iter(requests)

        async def take(most: int) -> list[Any]:
            return list(islice(plain, most))

        return take
    sources = aiter(requests)

    async def take_as_they_come(most: int) -> list[Any]:
        found: list[Any] = []
        while len(found) < most:
            try:
                found.append(await anext(sources))
            except StopAsyncIteration:
                break
        return found

    return take_as_they_come


async def _whole(what: Callable[[], Any]) -> Any:
    """Does it in a thread, to its end: cancelled in the middle, the journal would have two hands on it."""
    # It is no task, which the end of the loop would cancel by itself.
    work = asyncio.get_running_loop().run_in_executor(None, contextvars.copy_context().run, what)
    cancelled: asyncio.CancelledError | None = None
    while not work.done():
        try:
            await asyncio.wait([work])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        work.exception()  # which nobody asks for any more
        raise cancelled
    return work.result()


class Tasks:
    """Tasks that make the calls."""

    def __init__(self, pump: Pump) -> None:
        self._pump = pump
        self._running: dict[asyncio.Task[None], Watched] = {}
        self._ended: list[Ended | Exception] = []
        self._some_ended = asyncio.Event()
        self._failure: Exception | None = None  # of our own or the caller's making, told once the rest is kept

    def begin(self, call: Begin) -> None:
        """Begins a call."""
        watched = Watched(call)
        task = asyncio.ensure_future(self._work(watched))
        self._running[task] = watched
        task.add_done_callback(self._running.pop)

    async def _work(self, watched: Watched) -> None:
        try:
            ended: Ended | Exception = Ended(watched.key, await self._pump(watched.call, watched.flow()))
        except WorkersAIError as error:
            ended = Ended(watched.key, error=error)
        except Exception as error:  # noqa: BLE001 - raised again where the results are awaited
            ended = error
        self._ended.append(ended)
        self.wake()

    async def leave_unsent(self) -> None:
        """Breaks off the calls that are not being sent."""
        left = {task: watched for task, watched in self._running.items() if watched.leave()}
        await _cancelled(left)
        self._ended += [Ended(watched.key, error=NotSentError("The job was stopped.")) for watched in left.values()]

    def wake(self) -> None:
        """Ends the wait for the next one."""
        self._some_ended.set()

    async def ended(self, seconds: float | None) -> list[Ended]:
        """All calls that have ended; waits for the first one."""
        if self._failure is not None:
            raise self._failure
        if not self._ended:
            self._some_ended.clear()
            # Not wait_for, which until Python 3.12 may swallow a cancellation.
            loop = asyncio.get_running_loop()
            alarm = None if seconds is None else loop.call_later(seconds, self._some_ended.set)
            try:
                await self._some_ended.wait()
            finally:
                if alarm is not None:
                    alarm.cancel()
        found, self._ended = self._ended, []
        self._failure = next((ended for ended in found if isinstance(ended, Exception)), None)
        kept = [ended for ended in found if isinstance(ended, Ended)]
        return kept if kept or self._failure is None else await self.ended(0)

    async def cancel(self) -> None:
        """Breaks off all that are under way."""
        await _cancelled(self._running)


async def _cancelled(tasks: Iterable[asyncio.Task[None]]) -> None:
    tasks = list(tasks)
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)
