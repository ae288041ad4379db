"""Engines of one's own behind the server: what they tell, and the ways in which they can fail."""

import logging
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import pytest
from typing_extensions import override

from tests.workersai.local.asking import MESSAGES, PROMPT, chat, error_of, events_of, result_of, run
from workersai.local import LocalServer, ScriptedEngine
from workersai.local.engine import (
    ChatMessage,
    End,
    EngineError,
    Event,
    GenerationRequest,
    GrammarError,
    Note,
    Sampling,
    TextPiece,
    Usage,
)

STREAM: dict[str, Any] = {**PROMPT, "stream": True}
END = End(Usage(1, 1))


class Giving(ScriptedEngine):
    """Gives the same events to each request, and then fails if it is to."""

    def __init__(self, events: Sequence[Event] = (), failure: Exception | None = None) -> None:
        super().__init__("never")
        self.asked: list[GenerationRequest] = []
        self._events = events
        self._failure = failure

    @override
    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Event, None]:
        self.asked.append(request)
        for event in self._events:
            yield event
        if self._failure:
            raise self._failure


class Uncounted(ScriptedEngine):
    """Fails before it answers."""

    @override
    async def count_tokens(self, request: GenerationRequest) -> int:
        raise ConnectionError("llama.cpp is gone")


def test_an_engine_is_asked_what_the_request_says() -> None:
    engine = Giving([TextPiece("ok"), END])
    sampling = {
        "temperature": 0.1,
        "top_p": 0.2,
        "top_k": 3,
        "seed": 4,
        "repetition_penalty": 1.5,
        "frequency_penalty": -0.6,
        "presence_penalty": 0.7,
    }
    with LocalServer(engine) as server:
        run(server, {"prompt": "hi", "raw": True, "max_tokens": 9, **sampling}, x_session_affinity="ses_1")
        run(server, {"messages": [{"role": "tool", "name": "f", "tool_call_id": "1", "content": "x"}], "stream": True})
    first, second = engine.asked
    assert first == GenerationRequest(
        prompt="hi",
        raw=True,
        max_tokens=9,
        session_affinity=True,
        sampling=Sampling(**sampling),  # type: ignore[arg-type]
    )
    assert second == GenerationRequest(messages=(ChatMessage("tool", "x", "f", "1"),), stream=True)


def test_a_note_is_told_in_the_envelope_and_in_a_header() -> None:
    with LocalServer(Giving([Note("the prompt\nwas too löng"), TextPiece("ok"), END])) as server:
        whole, streamed = run(server, PROMPT), run(server, STREAM)
        twin = chat(server, MESSAGES)
    assert whole.json()["messages"] == [{"code": 1000, "message": "the prompt\nwas too löng"}]
    for response in (whole, streamed, twin):
        assert response.headers["x-workersai-local-note"] == "the prompt was too l?ng"


def test_a_grammar_that_can_not_be_made_is_5024() -> None:
    body = {**PROMPT, "response_format": {"type": "json_schema", "json_schema": {"type": "object"}}}
    with LocalServer(Giving(failure=GrammarError("too odd a schema"))) as server:
        assert error_of(run(server, body)) == (400, 5024, "AiError: JSON Mode couldn't be met: too odd a schema")


@pytest.mark.parametrize(
    ("events", "failure", "words"),
    [
        ([], EngineError("the model is gone"), "the model is gone"),
        ([], ValueError("a bug"), "a bug"),
        ([], None, "the engine gave no answer"),
        ([Note("hm")], None, "the engine gave no answer"),
    ],
)
def test_a_failure_before_the_first_piece_is_500_and_logged(
    events: list[Event], failure: Exception | None, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    with LocalServer(Giving(events, failure)) as server:
        for body in (PROMPT, STREAM):
            status, code, message = error_of(run(server, body))
            assert (status, code) == (500, 5000)
            assert words in message
        assert chat(server, MESSAGES).json()["error"]["code"] == 5000
    assert [record.levelno for record in caplog.records if record.name == "workersai.local"] == [logging.ERROR] * 3


@pytest.mark.parametrize("failure", [None, EngineError("the model is gone")])
def test_a_failure_in_the_middle_is_500_or_an_error_event(failure: Exception | None) -> None:
    with LocalServer(Giving([TextPiece("Hel")], failure)) as server:
        status, code, _ = error_of(run(server, PROMPT))
        assert (status, code) == (500, 5000)
        piece, error = events_of(run(server, STREAM).text)
        assert (piece["response"], error["success"], error["errors"][0]["code"]) == ("Hel", False, 5000)
        assert [record.wait() for record in server.requests] == ["complete", "failed"]


def test_what_comes_after_the_end_is_not_sent() -> None:
    with LocalServer(Giving([TextPiece("ok"), END, TextPiece("more"), END])) as server:
        assert result_of(run(server, PROMPT))["response"] == "ok"
        assert [event["response"] for event in events_of(run(server, STREAM).text)[:-1]] == ["ok", ""]


def test_an_end_alone_is_an_empty_answer() -> None:
    with LocalServer(Giving([END])) as server:
        assert result_of(run(server, PROMPT))["response"] == ""


def test_an_engine_that_fails_to_count_is_500_in_the_wires_shape(caplog: pytest.LogCaptureFixture) -> None:
    with LocalServer(Uncounted("never")) as server:
        status, code, message = error_of(run(server, PROMPT))
        assert (status, code) == (500, 5000)
        assert "llama.cpp is gone" in message
        assert "llama.cpp is gone" in chat(server, MESSAGES).json()["error"]["message"]
    assert "llama.cpp is gone" in caplog.text
