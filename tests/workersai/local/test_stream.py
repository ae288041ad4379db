"""Streams of ``/ai/run``: events, padding, usage, failures in the middle, and clients that leave."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from typing_extensions import override

from tests.support import Serve
from tests.workersai.local.asking import (
    MESSAGES,
    PATIENCE,
    PROMPT,
    VERIFY,
    address_of,
    bearer,
    error_of,
    event_of,
    events_of,
    request_bytes,
    result_of,
    run,
    run_url,
)
from workersai.local import Answer, CalledTool, Gate, LocalServer, RawReply, Refusal, ScriptedEngine
from workersai.local.engine import GenerationRequest, Usage

ALPHABET = "abdefghijklmnopqrstuvwxyz0123456789"
STREAM: dict[str, Any] = {**PROMPT, "stream": True}


@contextmanager
def streaming(server: LocalServer) -> Iterator[httpx.Response]:
    with (
        httpx.Client(headers=bearer(server), verify=VERIFY, timeout=PATIENCE) as client,
        client.stream("POST", run_url(server), json=STREAM) as response,
    ):
        yield response


@pytest.mark.parametrize("body", [PROMPT, MESSAGES], ids=["prompt", "messages"])
def test_a_stream_is_text_then_usage_then_done(serve: Serve, body: dict[str, Any]) -> None:
    response = run(serve([Answer(pieces=["Hé", "llo ", "東京"])]), {**body, "stream": True})
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/event-stream"
    assert response.headers["cf-ray"].endswith("-LOC")
    *events, done = events_of(response.text)
    assert done == "[DONE]"
    for event in events:
        assert ALPHABET.startswith(event.pop("p"))
    usage = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}
    assert events == [
        {"response": "Hé", "tool_calls": []},
        {"response": "llo ", "tool_calls": []},
        {"response": "東京", "tool_calls": []},
        {"response": "", "tool_calls": [], "usage": usage},
    ]


def test_a_text_comes_word_by_word_and_whole(serve: Serve) -> None:
    text = "  It's a\n\ntest,  with\tspace \n"
    *events, _, _ = events_of(run(serve(text), STREAM).text)
    assert [event["response"] for event in events] == ["  It's", " a", "\n\ntest,", "  with", "\tspace", " \n"]


def test_the_padding_has_varying_length(serve: Serve) -> None:
    events = events_of(run(serve("word " * 60), STREAM).text)[:-1]
    lengths = {len(event["p"]) for event in events}
    assert len(lengths) > 5
    assert lengths <= set(range(1, len(ALPHABET) + 1))


def test_an_answer_without_text_is_a_stream_of_its_usage(serve: Serve) -> None:
    event, done = events_of(run(serve(""), STREAM).text)
    assert (event["response"], event["usage"]["completion_tokens"], done) == ("", 0, "[DONE]")


def test_a_tool_call_is_one_event_with_the_whole_call(serve: Serve) -> None:
    call = CalledTool("get_weather", {"location": "Zürich"})
    events = events_of(run(serve([Answer(tool_calls=(call,))]), STREAM).text)
    assert [event["tool_calls"] for event in events[:-1]] == [
        [{"name": "get_weather", "arguments": {"location": "Zürich"}}],
        [],
    ]


def test_cached_tokens_are_in_a_streams_usage_where_the_request_names_a_session(serve: Serve) -> None:
    server = serve(lambda _: Answer("ok", usage=Usage(10, 2, cached_tokens=8)))
    assert "prompt_tokens_details" not in events_of(run(server, STREAM).text)[-2]["usage"]
    told = events_of(run(server, STREAM, x_session_affinity="ses_1").text)[-2]["usage"]
    assert told["prompt_tokens_details"] == {"cached_tokens": 8}


def test_each_piece_is_sent_before_the_next_is_there(serve: Serve) -> None:
    gates = [Gate(), Gate(), Gate()]
    server = serve([Answer(pieces=["one", "two"], hold=dict(enumerate(gates)))])
    gates[0].open()
    with streaming(server) as response:
        lines = (line for line in response.iter_lines() if line)
        assert event_of(next(lines))["response"] == "one"
        gates[1].wait_until_reached()
        gates[1].open()
        assert event_of(next(lines))["response"] == "two"
        gates[2].wait_until_reached()
        assert server.requests[0].outcome == "open"
        gates[2].open()
        assert [*lines][-1] == "data: [DONE]"
    assert server.requests[0].wait() == "complete"


def test_a_failure_before_the_first_piece_is_an_ordinary_error_reply(serve: Serve) -> None:
    server = serve([Refusal(3040, "busy", 429), Answer(failure=Refusal(3007, "too late", 408))])
    assert error_of(run(server, STREAM)) == (429, 3040, "busy")
    assert error_of(run(server, STREAM)) == (408, 3007, "too late")


def test_a_failure_after_the_first_piece_is_an_event_without_an_end_marker(serve: Serve) -> None:
    server = serve([Answer(pieces=["Hel"], failure=Refusal(3040, "busy", 429))])
    response = run(server, STREAM)
    assert response.status_code == 200
    first, failure = events_of(response.text)
    assert first["response"] == "Hel"
    assert failure == {"errors": [{"code": 3040, "message": "busy"}], "success": False}
    assert server.requests[0].wait() == "failed"


def test_a_cut_reply_is_a_lost_connection_for_the_client(serve: Serve) -> None:
    server = serve([RawReply([b'data: {"resp'], cut=True)])
    with pytest.raises(httpx.RemoteProtocolError):
        run(server, STREAM)
    assert server.requests[0].wait() == "failed"


def test_a_client_that_leaves_a_stream_ends_the_answer(serve: Serve) -> None:
    drawn: list[int] = []
    endless = (f"{number} " for number in range(10**9) if not drawn.append(number))  # type: ignore[func-returns-value]
    server = serve([Answer(pieces=endless), "next"])
    with streaming(server) as response:
        next(response.iter_lines())
    assert server.requests[0].wait() == "disconnected"
    after = len(drawn)
    assert result_of(run(server, PROMPT))["response"] == "next"
    assert len(drawn) == after


async def test_a_client_that_leaves_a_whole_reply_ends_the_answer(serve: Serve) -> None:
    gate = Gate()
    server = serve([Answer("late", hold={0: gate})])
    async with httpx.AsyncClient(headers=bearer(server), verify=VERIFY, timeout=PATIENCE) as client:
        task = asyncio.create_task(client.post(run_url(server), json=PROMPT))
        await asyncio.to_thread(gate.wait_until_reached)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert server.requests[0].wait() == "disconnected"


class Announcing(ScriptedEngine):
    """Says when the second request is in front of it."""

    def __init__(self, *answers: Answer) -> None:
        super().__init__(answers, slots=1)
        self.second_is_here = threading.Event()
        self._asked = 0

    @override
    async def count_tokens(self, request: GenerationRequest) -> int:
        self._asked += 1
        if self._asked == 2:
            self.second_is_here.set()
        return 5


def test_a_client_that_leaves_the_queue_takes_no_slot_and_no_answer() -> None:
    gate = Gate()
    engine = Announcing(Answer(pieces=["first"], hold={0: gate}), Answer("for the third"))
    with LocalServer(engine) as server:
        first: list[httpx.Response] = []
        asking = threading.Thread(target=lambda: first.append(run(server, PROMPT)))
        asking.start()
        gate.wait_until_reached()
        with socket.create_connection(address_of(server)) as connection:
            connection.sendall(request_bytes(server, b'{"prompt":"second"}'))
            assert engine.second_is_here.wait(PATIENCE)
        assert server.requests[1].wait() == "disconnected"
        gate.open()
        asking.join()
        assert result_of(first[0])["response"] == "first"
        assert result_of(run(server, PROMPT))["response"] == "for the third"


def test_a_client_that_never_reads_does_not_hold_up_others_nor_the_end() -> None:
    with LocalServer(
        lambda request: Answer(pieces=("x" * 1000 for _ in range(10**9))) if request.stream else "ok"
    ) as server:
        with socket.create_connection(address_of(server)) as connection:
            connection.sendall(request_bytes(server, b'{"prompt":"hi","stream":true}'))
            assert connection.recv(1)
            assert result_of(run(server, PROMPT))["response"] == "ok"
            server.close()
        assert server.requests[0].wait() == "failed"


def test_many_streams_at_once_keep_their_texts_apart(serve: Serve) -> None:
    server = serve(lambda request: f"you are {request.prompt} " * 20)
    texts: dict[int, str] = {}

    def ask(number: int) -> None:
        events = events_of(run(server, {"prompt": f"{number}", "stream": True}).text)
        texts[number] = "".join(event["response"] for event in events[:-1])

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert texts == {number: f"you are {number} " * 20 for number in range(30)}
