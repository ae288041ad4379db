"""A model's reasoning through the clients, and where it is all that a reply holds."""

import pickle
import socket
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.documents import ELSEWHERE, ROOT, Block, blocks_of
from tests.raw_server import chunked, is_stream, raw_server, reply
from tests.support import Driver, Serve, connection
from tests.thoughts import CALL, ONLY_THOUGHTS, USAGE, bodies, in_turn, thinking
from workersai import Client, Completion, CostTracker, ToolCall
from workersai.batch import BatchRequest
from workersai.batch.results import usage_of_outcome
from workersai.errors import ReasoningOnlyError
from workersai.protocol.batch import outcome_of
from workersai.protocol.json_mode import json_mode_of
from workersai.protocol.reasoning import cut_off_message
from workersai.protocol.reply import Asked, ReplyHead
from workersai.spans import written_of

TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string", "description": "Where."}}},
    },
}
SCHEMA = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
NEEDED: list[dict[str, Any]] = [
    {"response_format": SCHEMA},
    {"response_format": {"type": "json_object"}},
    {"tools": [TOOL], "tool_choice": "required"},
    {"tools": [TOOL], "tool_choice": "get_weather"},
]
FREE: list[dict[str, Any]] = [{}, {"tools": [TOOL]}, {"tools": [TOOL], "tool_choice": "none"}]
BLOCKS = [
    block
    for block in blocks_of(ROOT / "docs" / "guides" / "reasoning.md")
    if any(row.what.search(block.text) for row in ELSEWHERE)
]


@pytest.mark.parametrize("options", NEEDED, ids=repr)
def test_what_must_be_an_object_or_a_call_is_no_reasoning(
    driver: Driver, serve: Serve, options: dict[str, Any]
) -> None:
    settings = connection(serve(ONLY_THOUGHTS))
    for ask in (driver.run, driver.stream):
        with CostTracker() as cost, pytest.raises(ReasoningOnlyError, match=r"Raise max_tokens, or lower") as caught:
            ask(settings, "Hi", **options)
        assert not caught.value.retryable
        assert (cost.calls, cost.completion_tokens) == (1, USAGE["completion_tokens"])
        again = pickle.loads(pickle.dumps(caught.value))  # noqa: S301
        assert again.partial == caught.value.partial
        assert again.partial.reasoning == "Well, let me see"


@pytest.mark.parametrize("options", FREE, ids=repr)
def test_other_replies_may_be_reasoning_alone(driver: Driver, serve: Serve, options: dict[str, Any]) -> None:
    settings = connection(serve(ONLY_THOUGHTS))
    completion = driver.run(settings, "Hi", **options)
    assert (completion.text, completion.finish_reason, completion.reasoning_only) == ("", "length", True)
    deltas = driver.stream(settings, "Hi", **options)
    assert [delta.reasoning for delta in deltas] == ["Well, ", "let me see", ""]
    assert deltas[-1].completion is not None
    assert deltas[-1].completion.reasoning_only


@pytest.mark.parametrize(
    "script",
    [
        thinking("Hm.", text="{", finish="length"),
        thinking("Hm.", call=CALL, finish="length"),
        thinking("Hm.", finish="stop"),
        thinking(finish="length"),
    ],
    ids=["text", "call", "stopped", "no-reasoning"],
)
def test_whatever_else_came_is_the_callers_to_see(driver: Driver, serve: Serve, script: Any) -> None:
    settings = connection(serve(script))
    assert not driver.run(settings, "Hi", tools=[TOOL], tool_choice="required").reasoning_only
    assert driver.stream(settings, "Hi", tools=[TOOL], tool_choice="required")[-1].completion is not None


@given(
    text=st.sampled_from(["", " \n", "x"]),
    reasoning=st.sampled_from(["", "hm"]),
    finish=st.sampled_from([None, "stop", "length", "tool_calls"]),
    called=st.booleans(),
)
def test_reasoning_only_is_reasoning_and_length_and_nothing_else(
    text: str, reasoning: str, finish: str | None, called: bool
) -> None:
    calls = (ToolCall("c1", "f", {}),) if called else ()
    completion = Completion(text, tool_calls=calls, finish_reason=finish, reasoning=reasoning)
    expected = bool(reasoning) and finish == "length" and not called and text != "x"
    assert completion.reasoning_only is expected


def test_a_row_of_a_job_has_the_error_and_its_cost(serve: Serve, tmp_path: Path) -> None:
    server = serve(in_turn(ONLY_THOUGHTS, thinking("Hm.", text='{"name": "Ann"}')))
    journal = tmp_path / "job.journal"
    requests = [BatchRequest("Who?", "one", {"response_format": SCHEMA})]
    with Client(**connection(server)) as client:
        for answered in (0, 1):
            with client.batch(requests, journal=journal, mode="calls", retry_failed=bool(answered)) as job:
                (result,) = list(job)
            assert (job.progress.answered, job.progress.failed) == (answered, 1 - answered)
            assert job.progress.completion_tokens == USAGE["completion_tokens"] * (1 + answered)
            if not answered:
                assert isinstance(result.error, ReasoningOnlyError)
    assert result.text == '{"name": "Ann"}'


def test_an_item_of_a_batch_is_an_error_only_if_it_had_to_be_an_object() -> None:
    message = {"content": "", "reasoning": "Hm."}
    response = {"id": 0, "result": {"choices": [{"message": message, "finish_reason": "length"}], "usage": USAGE}}
    needed, free = Asked("m", 30, json_mode=json_mode_of(SCHEMA)), Asked("m", 30)
    failed, completion = (outcome_of(response, ReplyHead(200, {}), asked) for asked in (needed, free))
    assert isinstance(failed, ReasoningOnlyError)
    assert isinstance(completion, Completion)
    assert completion.reasoning_only
    assert completion.usage is not None
    assert usage_of_outcome(failed) == usage_of_outcome(completion) == completion.usage


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_the_page_reads_it(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], block: Block) -> None:
    whole, stream = bodies("7 times 13 is 91.", text="No.")

    def answer(connected: socket.socket, request: bytes) -> None:
        connected.sendall(chunked(stream) if is_stream(request) else reply(whole))

    with raw_server(answer) as server:  # the local server has no model that reasons
        for name in ("account_id", "api_token", "base_url"):
            monkeypatch.setenv(f"CLOUDFLARE_{name.upper()}", server.account[name])
        exec(block.text, {})  # noqa: S102 - our own page
    assert capsys.readouterr().out.startswith("thoughts: 7 times 13 is 91.\nanswer: No.\n")


def test_a_span_holds_the_reasoning_as_a_part_of_its_own() -> None:
    written = written_of(Completion("Hello", finish_reason="stop", reasoning="Hm."))
    assert '"parts":[{"type":"reasoning","content":"Hm."},{"type":"text","content":"Hello"}]' in str(
        written["gen_ai.output.messages"]
    )


def test_a_cut_answer_is_shown_and_thoughts_are_not() -> None:
    cut = cut_off_message("Person", '{"na', reasoning_only=False)
    assert cut.endswith('before the Person was whole: give a larger one. It began: {"na')
    assert cut_off_message("Person", "", reasoning_only=True).endswith("Person was asked for.")
