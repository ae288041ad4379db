"""What a review of bulk work found, each held by a test."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import time
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from tests.support import PATIENCE, Serve, asked_text, connection
from tests.workersai.batch.conftest import QUICK, JobDriver
from tests.workersai.batch.test_jobs import BOTH, batches_at, by_index, echo
from workersai import AsyncClient, Client, CostTracker, Message, RateLimit, errors
from workersai.batch import Batch, BatchRequest, progress_of
from workersai.batch.files import Lock
from workersai.local import LocalServer
from workersai.local.scripted import Answer, Gate, Refusal


def test_a_job_cancelled_twice_closes_its_journal_after_the_work_on_it(serve: Serve, tmp_path: Path) -> None:
    async def main() -> None:
        async with AsyncClient(**connection(serve(echo))) as client:
            for ticks in range(40):
                job = client.batch(map(str, range(2_000)), journal=tmp_path / f"job{ticks}", **QUICK)
                task = asyncio.ensure_future(anext(job))
                for _ in range(ticks):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.sleep(0)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                await job.aclose()

    asyncio.run(main())
    assert all(progress_of(path).answered == 0 for path in tmp_path.iterdir())


def test_a_job_in_a_task_that_the_loop_ends_with_leaves_a_whole_journal(serve: Serve, tmp_path: Path) -> None:
    server = serve(echo)

    async def main() -> None:
        client = AsyncClient(**connection(server))
        job = client.batch(map(str, range(3_000)), journal=tmp_path / "job", mode="batch", **QUICK)

        async def consume() -> None:
            async for _ in job:
                pass

        main.task = asyncio.ensure_future(consume())  # type: ignore[attr-defined]
        while not server.requests:  # noqa: ASYNC110 - the server is of another thread
            await asyncio.sleep(0.01)

    asyncio.run(main())
    gc.collect()
    with Client(**connection(server)) as client:
        results = list(client.batch(map(str, range(3_000)), journal=tmp_path / "job", mode="batch", **QUICK))
    assert len(by_index(results)) == 3_000


@pytest.mark.parametrize("fault", ["html:404", "7003"])
def test_a_wrong_address_ends_no_batch_that_is_paid_for(jobs: JobDriver, tmp_path: Path, fault: str) -> None:
    wrong = True
    faults = lambda record: fault if wrong and "request_id" in record.body else None  # noqa: E731
    with LocalServer(echo, faults=faults) as server:
        with pytest.raises(errors.BadRequestError):
            jobs.run(server, ["a"], mode="batch", journal=tmp_path / "job")
        wrong = False
        (result,) = jobs.run(server, None, journal=tmp_path / "job")
        assert result.text == "you said a"
        assert len(batches_at(server)) == 1


def test_calls_that_wait_for_their_turn_are_not_sent_once_a_job_is_closed(serve: Serve) -> None:
    server = serve(echo)
    limit = RateLimit(calls=5, seconds=0.5, name="left")
    began = time.monotonic()
    with Client(**connection(server)) as client:
        with client.batch(map(str, range(100)), mode="calls", rate_limit=limit) as job:
            next(job)
        spans = 1 + int((time.monotonic() - began) / limit.seconds)  # more than one where the machine is slow
        for thread in threading.enumerate():
            if thread.name.startswith("workersai-batch"):
                thread.join(PATIENCE)
        assert len(server.requests) <= 5 * spans


def test_a_retry_that_waits_is_not_made_once_a_job_is_asked_to_stop(serve: Serve, tmp_path: Path) -> None:
    with LocalServer(echo, faults=["3040:50"]) as server, Client(**connection(server)) as client:
        job = client.batch(["a"], mode="batch", journal=tmp_path / "job", **QUICK)
        stopping = threading.Thread(target=_stop_after_the_first_reply, args=(server, job))
        stopping.start()
        assert list(job) == []
        stopping.join()
        assert len(server.requests) == 1
        assert progress_of(tmp_path / "job").unclear_parts == 0
        assert len(list(client.batch(journal=tmp_path / "job", **QUICK))) == 1


def _stop_after_the_first_reply(server: LocalServer, job: Batch) -> None:
    while not server.requests:
        time.sleep(0.01)
    server.requests[0].wait()
    job.stop()


@pytest.mark.skipif(not hasattr(os, "symlink"), reason="the platform has no symbolic links")
def test_a_journal_is_the_same_by_whatever_name(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "other").symlink_to(tmp_path / "job")
    with Client(**connection(serve(echo))) as client:
        job = client.batch(["a"], journal=tmp_path / "job", **QUICK)
        next(job)
        with pytest.raises(errors.JournalError, match="in use"):
            next(client.batch(["a"], journal=tmp_path / "other", **QUICK))
        job.close()


def test_only_one_of_many_has_the_lock(tmp_path: Path) -> None:
    inside, most, taken = 0, 0, 0
    guard = threading.Lock()

    def spin() -> None:
        nonlocal inside, most, taken
        for _ in range(300):
            try:
                lock = Lock(tmp_path / "job")
            except errors.JournalError:
                continue
            with guard:
                inside, taken = inside + 1, taken + 1
                most = max(most, inside)
            with guard:
                inside -= 1
            lock.release()

    threads = [threading.Thread(target=spin) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert taken > 0
    assert list(tmp_path.iterdir()) == []


def _stop_at(gate: Gate, job: Batch) -> None:
    gate.wait_until_reached()
    job.stop()


def test_a_budget_holds_over_the_runs_of_a_job(serve: Serve, tmp_path: Path) -> None:
    gate = Gate()
    server = serve(lambda request: Answer(echo(request), hold={0: gate}))
    options: dict[str, Any] = {"mode": "batch", "max_tokens": 100, "journal": tmp_path / "job", "part_size": 1, **QUICK}
    with Client(**connection(server)) as client:
        with CostTracker(budget=0.001) as cost:
            job = client.batch(["a"] * 9, **options)
            threading.Thread(target=_stop_at, args=(gate, job)).start()
            assert list(job) == []
            under_way = job.progress.parts
            assert under_way > 0
            assert cost.left == pytest.approx(0.001)
        gate.open()
        # What is under way costs so much that one more, at its most, would pass this.
        with CostTracker(budget=0.00024) as cost, pytest.raises(errors.BudgetExceededError):
            list(client.batch(**{**options, "journal": tmp_path / "job"}))
        assert cost.calls == under_way


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"prompt": None}, "a request asks a text, or a list of messages"),
        (BatchRequest(5), "a request asks a text, or a list of messages"),  # type: ignore[arg-type]
        ([5], "a request asks a text, or a list of messages"),
        (b"x", "a request is a text, messages, a BatchRequest or a dict, not bytes"),
        ([Message("user", "x", tool_calls=5)], "it can't be kept as JSON"),  # type: ignore[arg-type]
        ({"prompt": "x", "external_reference": ""}, "external_reference must be a string, and not empty"),
        ({"prompt": "x", "external_reference": "\ud800"}, "half of a surrogate pair"),
        ("\ud800", "half of a surrogate pair"),
        ({"prompt": "x", "metadata": {"a": "\ud800"}}, "half of a surrogate pair"),
        ({"prompt": "x", "response_format": 5}, "response_format must be a dict"),
        ({"prompt": "x", "tools": [5]}, "tools[0] must be"),
    ],
)
@pytest.mark.parametrize("on_invalid", ["refuse", "keep"])
def test_what_cannot_be_kept_is_told_with_its_row(serve: Serve, given: Any, words: str, on_invalid: Any) -> None:
    server = serve("never")
    with Client(**connection(server)) as client, pytest.raises(errors.BadRequestError, match="Row 2") as caught:
        list(client.batch(["fine", given], on_invalid=on_invalid, **QUICK))
    assert words in str(caught.value)
    assert server.requests == []


@pytest.mark.parametrize(
    "requests",
    ["text", b"bytes", {"prompt": "x"}, BatchRequest("x"), 5, lambda: ["x"]],
    ids=lambda one: type(one).__name__,
)
def test_one_request_alone_is_no_list_of_them(serve: Serve, requests: Any) -> None:
    with (
        Client(**connection(serve("never"))) as client,
        pytest.raises(errors.BadRequestError, match="run asks one"),
    ):
        client.batch(requests)


@pytest.mark.parametrize("journal", ["", 5, "a\0b"])
def test_what_is_no_path_is_no_journal(serve: Serve, journal: Any) -> None:
    with Client(**connection(serve("never"))) as client, pytest.raises(errors.BadRequestError, match="journal must be"):
        client.batch(["x"], journal=journal)


@pytest.mark.parametrize("name", ["in_order", "retry_failed", "hands_over"])
def test_a_switch_is_true_or_false(serve: Serve, name: str) -> None:
    options: Any = {name: "yes"}
    with Client(**connection(serve("never"))) as client, pytest.raises(errors.BadRequestError, match=name):
        client.batch(["x"], **options)


def test_the_same_options_are_the_same_in_whatever_kind_of_list(serve: Serve, tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "stop": ("END",),
        "response_format": MappingProxyType({"type": "object", "properties": {"a": {"enum": ("x", "y")}}}),
        "journal": tmp_path / "job",
    }
    with Client(**connection(serve(lambda _: Answer(object={"a": "x"})))) as client:
        for _ in range(2):
            (result,) = client.batch(["q"], **options, **QUICK)
            assert result.text == '{"a": "x"}'


def test_a_default_job_binds_nobody_to_its_rate_limit(serve: Serve) -> None:
    server = serve(echo)
    with Client(**connection(server)) as client:
        list(client.batch(["a"]))
        assert client.run("b", rate_limit=RateLimit(600, name="its own")).text == "you said b"
        assert client.run("b", rate_limit=RateLimit(calls=700)).text == "you said b"


@BOTH
def test_results_that_are_only_kept_are_not_handed_over(
    jobs: JobDriver, serve: Serve, tmp_path: Path, mode: str
) -> None:
    options: dict[str, Any] = {"mode": mode, "journal": tmp_path / "job", "hands_over": False, "in_order": True}
    assert jobs.run(serve(echo), ["a", "b"], **options) == []
    assert progress_of(tmp_path / "job").answered == 2


def test_a_foreign_database_is_left_as_it_is(serve: Serve, tmp_path: Path) -> None:
    import sqlite3  # noqa: PLC0415 - to make one

    other = tmp_path / "other.db"
    with sqlite3.connect(other) as db:
        db.execute("CREATE TABLE t (a)")
    db.close()
    before = other.read_bytes()
    with Client(**connection(serve("never"))) as client, pytest.raises(errors.JournalError, match="no journal"):
        list(client.batch(["a"], journal=other))
    assert other.read_bytes() == before


def test_a_callback_that_fails_loses_no_answer(jobs: JobDriver, tmp_path: Path) -> None:
    def fail(retry: object) -> None:
        raise LookupError("of the caller's own")

    with LocalServer(
        lambda request: Refusal(3040, "busy", 429) if asked_text(request) == "7" else echo(request)
    ) as server:
        with pytest.raises(LookupError):
            jobs.run(server, map(str, range(8)), mode="calls", journal=tmp_path / "job", on_retry=fail, concurrency=8)
        answered = sum(record.wait() == "complete" for record in server.requests) - 1
        assert progress_of(tmp_path / "job").answered >= answered - 8
