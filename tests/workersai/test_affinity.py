"""session_affinity="auto": one id a conversation, and none of its words in a header."""

import subprocess
import sys
from typing import Any

import pytest

from tests.support import Driver, Serve, connection
from tests.workersai.batch.conftest import QUICK, SyncJobs
from workersai import Client, Message, ToolCall
from workersai.local import LocalServer

TURNS = [
    Message("system", "You are terse."),
    Message("user", "Hi, I am Ann."),
    Message("assistant", "Hello, Ann."),
    Message("user", "What is a rainbow?"),
    Message("assistant", "Light in drops."),
    Message("user", "Thank you."),
]


@pytest.fixture
def server(serve: Serve) -> LocalServer:
    return serve(lambda _: "ok")


def ids(server: LocalServer) -> list[str | None]:
    return [record.headers.get("x-session-affinity") for record in server.requests]


def test_each_turn_of_a_conversation_has_the_same_id(driver: Driver, server: LocalServer) -> None:
    settings = {**connection(server), "session_affinity": "auto"}
    driver.run(settings, TURNS[:2])
    driver.stream(settings, TURNS[:4])
    driver.run(settings, [*TURNS[:4], {"role": "assistant", "content": "Light."}, {"role": "user", "content": "Ok."}])
    (first, *others) = ids(server)
    assert others == [first] * 2
    assert first is not None
    assert len(first) == 32
    assert int(first, 16), "a digest"


@pytest.mark.parametrize(
    "other",
    [
        [TURNS[0], Message("user", "Hi, I am Bob."), *TURNS[2:]],
        [Message("system", "You are kind."), *TURNS[1:]],
        TURNS[1:],
        "Hi, I am Ann.\n",
    ],
)
def test_another_conversation_has_another(driver: Driver, server: LocalServer, other: Any) -> None:
    for said in (TURNS, other):
        driver.run(connection(server), said, session_affinity="auto")
    first, second = ids(server)
    assert first != second


def test_a_text_is_the_message_of_a_user(driver: Driver, server: LocalServer) -> None:
    def tool(city: str) -> str:
        return city

    settings = {**connection(server), "session_affinity": "auto"}
    driver.run(settings, "hi")
    driver.run(settings, "hi", tools=[tool])
    driver.run(settings, [Message("user", "hi"), Message("assistant", "ok"), Message("user", "and?")])
    assert len(set(ids(server))) == 1


def test_a_conversation_that_no_user_began_has_one_too(driver: Driver, server: LocalServer) -> None:
    call = Message("assistant", "", tool_calls=(ToolCall("1", "now", {}),))
    for said in ([TURNS[2]], [TURNS[2], call, Message("tool", "noon", tool_call_id="1")]):
        driver.run(connection(server), said, session_affinity="auto")
    assert len(set(ids(server))) == 1


def test_it_is_that_of_the_whole_conversation_where_old_turns_are_left_out(driver: Driver, server: LocalServer) -> None:
    long = Message("assistant", "word " * 23_000)
    settings = {**connection(server), "session_affinity": "auto"}
    driver.run(settings, TURNS[:2])
    completion = driver.run(settings, [*TURNS[:2], long, *TURNS[3:]], on_overflow="trim")
    assert completion.trimmed is not None
    assert 1 in completion.trimmed.messages, "the message that it is made of"
    assert len(set(ids(server))) == 1


def test_half_a_surrogate_pair_has_an_id_and_is_refused_as_ever(driver: Driver, server: LocalServer) -> None:
    with pytest.raises(ValueError, match="half of a surrogate pair"):
        driver.run(connection(server), "\ud800", session_affinity="auto")


def test_each_process_makes_the_same(server: LocalServer) -> None:
    with Client(**connection(server)) as client:
        client.run("hi", session_affinity="auto")
    code = f"import workersai; workersai.Client(**{connection(server)!r}, session_affinity='auto').run('hi')"
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONHASHSEED": "7"})  # noqa: S603
    assert len(set(ids(server))) == 1


def test_each_row_of_a_job_has_its_own_and_a_batch_has_none(server: LocalServer) -> None:
    SyncJobs().run(server, ["a", "b", "a"], mode="calls", session_affinity="auto", concurrency=1)
    first, second, third = ids(server)
    assert first == third != second
    SyncJobs().run(server, ["a", "b"], mode="batch", session_affinity="auto", **QUICK)
    assert set(ids(server)[3:]) == {None}


@pytest.mark.model
def test_a_second_turn_finds_the_first_in_the_cache(driver: Driver, smollm: LocalServer) -> None:
    settings = {**connection(smollm), "session_affinity": "auto", "max_tokens": 8, "temperature": 0.0}
    said = [{"role": "user", "content": f"Tell me of the rainbow, {type(driver).__name__}, in one short sentence."}]
    first = driver.run(settings, said)
    said += [{"role": "assistant", "content": first.text}, {"role": "user", "content": "And of the snow?"}]
    usage = driver.run(settings, said).usage
    assert usage is not None
    assert usage.cached_tokens > 10
    assert 0 < usage.cached_share < 1
    one, two = ids(smollm)[-2:]
    assert one == two
