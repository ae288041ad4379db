"""One way to drive a job, sync or async."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

import pytest

from tests.support import connection
from workersai import AsyncClient, Client
from workersai.batch import BatchResult, Progress
from workersai.local import LocalServer

QUICK: dict[str, Any] = {"rate_limit": None, "poll_interval": 0.01}
"""For a server that answers at once."""


class JobDriver(Protocol):
    """One face of ``batch``, as a test calls it."""

    def run(self, server: LocalServer, requests: Any, **options: Any) -> list[BatchResult]:
        """All results."""

    def progress(self, server: LocalServer, requests: Any, **options: Any) -> Progress:
        """The progress at the end."""


class SyncJobs:
    def run(self, server: LocalServer, requests: Any, **options: Any) -> list[BatchResult]:
        with Client(**connection(server)) as client, client.batch(requests, **{**QUICK, **options}) as job:
            return list(job)

    def progress(self, server: LocalServer, requests: Any, **options: Any) -> Progress:
        with Client(**connection(server)) as client, client.batch(requests, **{**QUICK, **options}) as job:
            for _ in job:
                assert job.progress.ready
            return job.progress


class AsyncJobs:
    def run(self, server: LocalServer, requests: Any, **options: Any) -> list[BatchResult]:
        async def main() -> list[BatchResult]:
            async with (
                AsyncClient(**connection(server)) as client,
                client.batch(requests, **{**QUICK, **options}) as job,
            ):
                return [result async for result in job]

        return asyncio.run(main())

    def progress(self, server: LocalServer, requests: Any, **options: Any) -> Progress:
        async def main() -> Progress:
            async with (
                AsyncClient(**connection(server)) as client,
                client.batch(requests, **{**QUICK, **options}) as job,
            ):
                async for _ in job:
                    assert job.progress.ready
                return job.progress

        return asyncio.run(main())


@pytest.fixture(params=[SyncJobs(), AsyncJobs()], ids=["sync", "async"])
def jobs(request: pytest.FixtureRequest) -> JobDriver:
    """Each test that takes it runs once with either face."""
    given: JobDriver = request.param
    return given
