"""A job as its caller holds it: its results as they come, how far it is, and how it is stopped."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Generator, Iterable, Iterator
from types import TracebackType
from typing import Any

from typing_extensions import Self

from workersai._cleanup import flush
from workersai.batch.job import Job
from workersai.batch.values import BatchResult, Progress
from workersai.jobs import tasks, threads
from workersai.jobs.tasks import Tasks, results_in_tasks
from workersai.jobs.threads import results_in_threads


class Batch(Iterator[BatchResult]):
    """The results of a job, as they come; closing it stops the job, which a journal can take up again.

    Attributes:
        progress: How far it is; it changes as the job goes on.
        stop: Called from any thread, lets the results end once what is under way has ended.
    """

    def __init__(self, job: Job, requests: Iterable[Any], pump: threads.Pump) -> None:
        self.progress: Progress = job.progress
        self.stop = job.stop
        self._results: Generator[BatchResult, None, None] = results_in_threads(job.flow(), requests, pump)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> BatchResult:
        return next(self._results)

    def close(self) -> None:
        """Stops the job. Single calls that are under way end unheard; batches go on at the service."""
        self._results.close()
        flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncBatch(AsyncIterator[BatchResult]):
    """The results of a job, as they come; closing it stops the job, which a journal can take up again.

    Attributes:
        progress: How far it is; it changes as the job goes on.
    """

    def __init__(self, job: Job, requests: Iterable[Any] | AsyncIterable[Any], pump: tasks.Pump) -> None:
        self.progress: Progress = job.progress
        self._job, self._tasks = job, Tasks(pump)
        self._results: AsyncGenerator[BatchResult, None] = results_in_tasks(job.flow(), requests, self._tasks)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> BatchResult:
        return await anext(self._results)

    def stop(self) -> None:
        """Lets the results end once what is under way has ended."""
        self._job.stop()
        self._tasks.wake()

    async def aclose(self) -> None:
        """Stops the job. Single calls that are under way are broken off; batches go on at the service."""
        await self._results.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
