"""Each failure, through each framework, sync and async, whole and streamed: the cells of ``docs/reliability.md``."""

import asyncio
import re
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

import pytest
from langchain_core import exceptions as langchain

from langchain_workersai import ChatWorkersAI
from llamaindex_workersai import WorkersAI
from tests.reliability import (
    ANSWER,
    CASES,
    DEADLINE_CASES,
    LANGCHAIN,
    MAX_RETRIES,
    PAGE,
    ROOT,
    Case,
    Outcome,
    named_tests,
    page,
)
from tests.support import PATIENCE, connection, outcome_in_time
from workersai import errors, retries
from workersai.errors import WorkersAIError
from workersai.local import Answer, Gate, LocalServer
from workersai.local.faults import CODES, refusal

PIECES = ["It ", "is ", "sunny, ", "and ", "it ", "will ", "be ", "so ", "for ", "a ", "while."]
TEXT = "".join(PIECES)


def langchain_whole(llm: Any) -> str:
    text: str = llm.invoke("hi").text
    return text


def langchain_stream(llm: Any) -> str:
    return "".join(chunk.text for chunk in llm.stream("hi"))


async def langchain_awhole(llm: Any) -> str:
    text: str = (await llm.ainvoke("hi")).text
    return text


async def langchain_astream(llm: Any) -> str:
    async with aclosing(llm.astream("hi")) as chunks:
        return "".join([chunk.text async for chunk in chunks])


def llamaindex_whole(llm: Any) -> str:
    text: str = llm.complete("hi").text
    return text


def llamaindex_stream(llm: Any) -> str:
    return "".join(piece.delta for piece in llm.stream_complete("hi"))


async def llamaindex_awhole(llm: Any) -> str:
    text: str = (await llm.acomplete("hi")).text
    return text


async def llamaindex_astream(llm: Any) -> str:
    return "".join([piece.delta async for piece in await llm.astream_complete("hi")])


WAYS: dict[str, tuple[Any, Callable[[Any], Any]]] = {
    "langchain-sync-whole": (ChatWorkersAI, langchain_whole),
    "langchain-sync-stream": (ChatWorkersAI, langchain_stream),
    "langchain-async-whole": (ChatWorkersAI, langchain_awhole),
    "langchain-async-stream": (ChatWorkersAI, langchain_astream),
    "llamaindex-sync-whole": (WorkersAI, llamaindex_whole),
    "llamaindex-sync-stream": (WorkersAI, llamaindex_stream),
    "llamaindex-async-whole": (WorkersAI, llamaindex_awhole),
    "llamaindex-async-stream": (WorkersAI, llamaindex_astream),
}


def both(call: Callable[[Any], Any], llm: Any, later: Any) -> list[Any]:
    """The outcome of a call that meets the fault, and of the later one, on the same pool of connections."""

    async def awaited() -> list[Any]:
        return [await awaited_one(llm), await awaited_one(later)]

    async def awaited_one(model: Any) -> Any:
        try:
            return await call(model)
        except WorkersAIError as error:
            return error

    def one(model: Any) -> Any:
        try:
            return call(model)
        except WorkersAIError as error:
            return error

    return asyncio.run(awaited()) if asyncio.iscoroutinefunction(call) else [one(llm), one(later)]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", CASES, ids=[case.fault for case in CASES])
def test_each_failure_is_told(case: Case, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "_FIRST_BACKOFF", 0.0)
    expected = case.stream if way.endswith("stream") else case.whole
    if expected.in_time:
        met = outcome(case, expected, way, timeout=PATIENCE)
    else:
        met = outcome_in_time(lambda timeout: outcome(case, expected, way, timeout=timeout), has_come(expected))
    if expected.error == ANSWER:
        assert met == TEXT
        return
    check(met, expected, way)
    assert ("did not answer in time" in str(met)) != expected.in_time
    if case.fault.endswith((":1", ":100")):
        assert (met.status_code, bool(met.request_id)) == (200, True), "the head had come"
    assert ("in the error's `partial`" in str(met)) == expected.partial
    if case.fault[0].isdigit():
        written, _, status = case.fault.partition(":")[0].partition("/")
        assert (met.code, met.status_code) == (int(written), int(status) if status else refusal(int(written))[0])
        assert met.request_id


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", DEADLINE_CASES, ids=[case.fault for case in DEADLINE_CASES])
def test_a_deadline_is_kept(case: Case, way: str) -> None:
    expected = case.stream if way.endswith("stream") else case.whole
    if expected.in_time:
        met = outcome(case, expected, way, timeout=PATIENCE, deadline=20)
    else:
        met = outcome_in_time(
            lambda seconds: outcome(case, expected, way, timeout=PATIENCE, deadline=seconds), has_come(expected)
        )
    check(met, expected, way)
    assert ("longer than its deadline" in str(met)) != expected.in_time


@pytest.mark.parametrize("way", [way for way in WAYS if "async" in way])
def test_a_cancelled_task_leaves_its_model_usable(way: str) -> None:
    gate = Gate()
    model, call = WAYS[way]
    scripted = [Answer(pieces=PIECES, hold={1: gate}), Answer(pieces=PIECES)]
    with LocalServer(scripted) as server:
        llm = model(**connection(server))

        async def main() -> str:
            task = asyncio.create_task(call(llm))
            await asyncio.to_thread(gate.wait_until_reached)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await asyncio.to_thread(server.requests[0].wait)
            text: str = await call(llm)
            return text

        assert asyncio.run(main()) == TEXT
        assert [record.wait() for record in server.requests] == ["disconnected", "complete"]


def outcome(case: Case, expected: Outcome, way: str, **bounds: float) -> Any:
    """What a call ends in that meets the fault each time; the next one must succeed."""
    model, call = WAYS[way]
    faults = [case.fault] * expected.requests
    # In the native dialect, some of the text is within the first 100 bytes of a stream.
    with LocalServer(lambda _: Answer(pieces=PIECES), faults=faults, dialect="native") as server:
        patient = model(**connection(server))
        met, after = both(call, model(**connection(server), max_retries=MAX_RETRIES, **bounds), patient)
        records = server.requests
        assert after == TEXT, "the next call is not harmed"
        assert len(records) == expected.requests + 1
        kept = records[-1].connection == records[-2].connection
        assert expected.kept in (None, kept)
        for record in records:
            record.wait()  # the server has seen the end of each: none is left open
    return met


def has_come(expected: Outcome) -> Callable[[Any], bool]:
    """Whether the beginning of a reply that stalls was there before the end of the timeout."""
    return lambda met: not expected.partial or bool(met.partial and met.partial.text)


def check(met: Any, expected: Outcome, way: str) -> None:
    """The error is of its classes, and holds what had come."""
    assert isinstance(met, getattr(errors, expected.error))
    if way.startswith("langchain"):
        assert isinstance(met, getattr(langchain, LANGCHAIN[expected.error]))
    if expected.partial:
        assert met.partial is not None
        assert met.partial.text
        assert TEXT.startswith(met.partial.text)
        assert met.partial.text != TEXT
    else:
        assert met.partial is None or not met.partial.text


def test_no_code_of_the_wire_page_is_left_out() -> None:
    assert {str(code) for code in CODES} <= {case.fault for case in CASES}


@pytest.mark.parametrize("named", named_tests())
def test_the_page_names_tests_that_there_are(named: str) -> None:
    file, _, name = named.partition("::")
    assert re.search(rf"^(async )?def {name or 'test_.*'}\(", (ROOT / file).read_text(), re.MULTILINE)


def test_the_page_is_the_table() -> None:
    assert PAGE.read_text() == page(), "run python -m tests.reliability"
