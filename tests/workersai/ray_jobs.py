"""A driver of Ray for test_ray.py: it starts a local Ray, then does a job for each line of its input.

A line names a function of this file and its arguments. It is answered by a line of what the function returned, or
raised; Ray prints others.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import ray

from workersai import RateLimit
from workersai.errors import APITimeoutError
from workersai.ray import AskModel, forget_rate_limit
from workersai.ray.sharing import SharedLimiter, SharingClient

OUTCOME = "outcome: "


class Mortal(AskModel):
    """Kills its process in the middle of a batch, the first time that it meets a row: half of the batch is answered."""

    def __init__(self, marker: str, deadly_row: int, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._marker, self._deadly_row = Path(marker), deadly_row

    def __call__(self, batch: pa.Table) -> pa.Table:
        if self._deadly_row in batch["id"].to_pylist():
            super().__call__(batch.slice(0, batch.num_rows // 2))
            with suppress(FileExistsError):  # it has died already
                self._marker.touch(exist_ok=False)
                os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(batch)


def ask(source: str | list[dict[str, Any]], target: str, limit: list[Any], **arguments: Any) -> str:
    """Asks about all rows with two workers, of which one may be killed, and writes the answers to a folder."""
    rows = ray.data.read_parquet(source) if isinstance(source, str) else ray.data.from_items(source)
    rows = rows.repartition(8)
    answers = rows.map_batches(
        Mortal if "marker" in arguments else AskModel,
        fn_constructor_kwargs={"rate_limit": RateLimit(*limit), **arguments},
        compute=ray.data.ActorPoolStrategy(size=2),
        batch_format="pyarrow",
        batch_size=10,
        num_cpus=0.1,
    )
    answers.write_parquet(target)
    return "done"


def ask_by_turns(prompts: list[list[str]], limit: list[Any]) -> dict[str, Any]:
    """The answers of several workers at once, each with prompts of its own, and the time when all were ready."""
    actor: Any = ray.remote(AskModel).options(num_cpus=0.1)
    workers = [actor.remote(rate_limit=RateLimit(*limit)) for _ in prompts]
    ray.get([worker.__call__.remote(pa.table({"prompt": pa.array([], pa.string())})) for worker in workers])
    began = time.monotonic()  # which all processes of a machine share
    tables = [worker.__call__.remote(pa.table({"prompt": own})) for worker, own in zip(workers, prompts, strict=True)]
    return {"began": began, "answers": [table["answer"].to_pylist() for table in ray.get(tables)]}


def refuse_other_numbers() -> str:
    limit = RateLimit(calls=5, seconds=60, name="agreed")
    SharedLimiter(limit, "account")
    try:
        SharedLimiter(RateLimit(calls=6, seconds=60, name="agreed"), "account")
    finally:
        assert forget_rate_limit(limit)
        assert not forget_rate_limit(limit)
        SharedLimiter(RateLimit(calls=6, seconds=60, name="agreed"), "account")
    return "done"


def run(example: str) -> str:
    """Runs a program that uses the Ray which is there."""
    exec(example, {"__name__": "example"})  # noqa: S102 - our own
    return "done"


def leave_the_line() -> list[int]:
    """How many wait for a turn: one, two, one again as the second is cancelled, and as the time of another is over."""
    limit = RateLimit(calls=1, seconds=3_600, name="line")

    async def main() -> list[int]:
        turns = SharedLimiter(limit, "account")
        await turns.taken()
        async with SharingClient(rate_limit=limit) as client:
            first = asyncio.create_task(client.run("first"))
            counts = [await _waiting(turns, 1)]
            second = asyncio.create_task(client.run("second"))
            counts.append(await _waiting(turns, 2))
            second.cancel()
            counts.append(await _waiting(turns, 1))
            with pytest.raises(APITimeoutError, match="deadline"):
                await client.run("third", deadline=0.5)
            counts.append(await _waiting(turns, 1))
            first.cancel()
            return [*counts, await _waiting(turns, 0)]

    return asyncio.run(main())


async def _waiting(limiter: SharedLimiter, wanted: int) -> int:
    """How many wait, once it is as many as wanted, or after five minutes."""
    for _ in range(6_000):
        count: int = await limiter._turns.__ray_call__.remote(lambda turns: len(turns._limiter._waiting))
        if count == wanted:
            break
        await asyncio.sleep(0.05)
    return count


def main() -> None:
    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=100 << 20, log_to_driver=False)
    for line in sys.stdin:
        name, arguments = json.loads(line)
        try:
            outcome = {"value": globals()[name](**arguments)}
        except Exception as error:  # noqa: BLE001 - whatever it is, the test has to see it
            outcome = {"error": str(error)}
        print(OUTCOME + json.dumps(outcome), flush=True)  # noqa: T201 - to the test


if __name__ == "__main__":
    main()
