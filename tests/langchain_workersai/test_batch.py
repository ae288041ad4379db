"""Bulk work through LangChain."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from langchain_core.callbacks import BaseCallbackHandler, UsageMetadataCallbackHandler
from langchain_core.exceptions import ModelError
from langchain_core.load import dumpd, load
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.runnables import RunnableBinding

from langchain_workersai import ChatWorkersAI
from tests.support import EVERY_DIALECT, Serve, asked_text, connection
from workersai import errors
from workersai.local import LocalServer
from workersai.local.engine import CalledTool, GenerationRequest
from workersai.local.scripted import Answer, Refusal, ScriptedAnswer

QUICK: dict[str, Any] = {"rate_limit": None, "poll_interval": 0.01}
FACES = pytest.mark.parametrize("face", ["sync", "async"])


def script(request: GenerationRequest) -> ScriptedAnswer:
    asked = asked_text(request)
    if request.tools:
        return Answer(tool_calls=(CalledTool("get_weather", {"city": asked}),))
    return Refusal(5004, "no") if asked == "bad" else f"<{asked}>"


def model(server: LocalServer, **fields: Any) -> ChatWorkersAI:
    return ChatWorkersAI(**connection(server), **fields)


def batch_api(llm: Any, face: str, *arguments: Any, **options: Any) -> list[Any]:
    options = {**QUICK, **options}
    if face == "sync":
        result: list[Any] = llm.batch_api(*arguments, **options)
    else:
        result = asyncio.run(llm.abatch_api(*arguments, **options))
    return result


def as_completed(llm: Any, face: str, *arguments: Any, **options: Any) -> list[Any]:
    async def collected() -> list[Any]:
        return [outcome async for outcome in llm.abatch_api_as_completed(*arguments, **QUICK, **options)]

    if face == "async":
        return asyncio.run(collected())
    return list(llm.batch_api_as_completed(*arguments, **QUICK, **options))


def get_weather(city: str) -> str:
    """The weather in a city."""
    return city


@EVERY_DIALECT
@FACES
def test_answers_are_messages_in_the_order_of_the_inputs(serve: Serve, face: str) -> None:
    server = serve(script)
    inputs = ["a", [SystemMessage("S"), HumanMessage("b")], [("human", "c")]]
    answers = batch_api(model(server, max_tokens=7), face, inputs, mode="batch", temperature=0.5)
    assert [answer.text for answer in answers] == ["<a>", "<b>", "<c>"]
    assert all(isinstance(answer, AIMessage) for answer in answers)
    (body,) = [record.body for record in server.requests if "requests" in record.body]
    assert [(item["max_tokens"], item["temperature"]) for item in body["requests"]] == [(7, 0.5)] * 3


@FACES
def test_a_failed_input_is_langchains_error_where_it_is_asked_for(serve: Serve, face: str) -> None:
    llm = model(serve(script))
    with pytest.raises(errors.BadRequestError) as caught:
        batch_api(llm, face, ["a", "bad", "c"])
    assert isinstance(caught.value, ModelError)
    first, second, third = batch_api(llm, face, ["a", "bad", "c"], return_exceptions=True)
    assert (first.text, third.text) == ("<a>", "<c>")
    assert isinstance(second, errors.BadRequestError)
    assert isinstance(second, ModelError)
    found = dict(as_completed(llm, face, ["a", "bad"]))
    assert found[0].text == "<a>"
    assert isinstance(found[1], ModelError)


@EVERY_DIALECT
@FACES
def test_bound_tools_and_options_go_into_bulk_work(serve: Serve, face: str) -> None:
    server = serve(script)
    llm = model(server).bind_tools([get_weather]).bind(seed=3).with_config(tags=["t"])
    (answer,) = batch_api(llm, face, ["Paris"])
    assert answer.tool_calls[0]["args"] == {"city": "Paris"}
    assert server.requests[-1].body["seed"] == 3
    ((_, answer),) = as_completed(llm, face, ["Rome"])
    assert answer.tool_calls[0]["args"] == {"city": "Rome"}


def test_a_bound_model_is_langchains_binding_to_everything_else(serve: Serve) -> None:
    bound = model(serve(script)).bind(seed=3)
    assert isinstance(bound, RunnableBinding)
    assert bound.invoke("a").text == "<a>"
    stored = dumpd(bound)
    assert stored["id"] == ["langchain", "schema", "runnable", "RunnableBinding"]


@FACES
def test_a_configuration_before_the_binding_keeps_what_is_bound(serve: Serve, face: str) -> None:
    server, seen = serve(script), Seen()
    for llm in (
        model(server).with_config(tags=["mine"]).bind(max_tokens=5),
        model(server).bind(max_tokens=5).with_config({"tags": ["mine"]}),
    ):
        (answer,) = batch_api(llm, face, ["a"], {"callbacks": [seen]})
        assert answer.text == "<a>"
    assert [record.body["max_tokens"] for record in server.requests] == [5, 5]
    assert [tags for kind, _, tags in (each for each in seen.seen if each[0] == "start")] == [["mine"]] * 2


@FACES
def test_a_job_goes_on_from_its_journal(serve: Serve, tmp_path: Path, face: str) -> None:
    server = serve(script)
    llm = model(server)
    for inputs in (["a", "b"], ["a", "b"], None):
        answers = batch_api(llm, face, inputs, journal=tmp_path / "job")
        assert [answer.text for answer in answers] == ["<a>", "<b>"]
    assert len(server.requests) == 2


@FACES
def test_an_input_that_cannot_be_sent_is_told_with_its_row(serve: Serve, face: str) -> None:
    server = serve(script)
    with pytest.raises(errors.BadRequestError, match="Row 2") as caught:
        batch_api(model(server), face, ["a", ""])
    assert isinstance(caught.value, ModelError)
    with pytest.raises(errors.BadRequestError, match="temprature"):
        batch_api(model(server), face, ["a"], temprature=1)
    assert server.requests == []


class Seen(BaseCallbackHandler):
    def __init__(self) -> None:
        self.seen: list[Any] = []
        self.told: list[dict[str, Any]] = []

    def on_chat_model_start(self, serialized: Any, messages: Any, *, run_id: UUID, **kwargs: Any) -> None:
        self.told.append(kwargs)
        self.seen.append(("start", messages[0][0].content, kwargs["tags"]))

    def on_llm_end(self, response: Any, *, run_id: UUID, **kwargs: Any) -> None:
        self.seen.append(("end", response.generations[0][0].text))

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        self.seen.append(("error", type(error).__name__))


@FACES
def test_callbacks_see_each_input(serve: Serve, face: str) -> None:
    seen, usage = Seen(), UsageMetadataCallbackHandler()
    llm = model(serve(script), callbacks=[usage])
    config = {"callbacks": [seen], "tags": ["bulk"]}
    batch_api(llm, face, ["a", "bad"], config, return_exceptions=True)
    assert seen.seen[:2] == [("start", "a", ["bulk"]), ("start", "bad", ["bulk"])]
    assert sorted(seen.seen[2:]) == [("end", "<a>"), ("error", "BadRequestError")]
    (told,) = usage.usage_metadata.values()
    assert told["total_tokens"] == 6


@FACES
def test_callbacks_see_the_error_that_a_job_breaks_off_with(serve: Serve, face: str) -> None:
    seen = Seen()
    llm = model(serve(lambda _: Refusal(10000, "Authentication error")))
    with pytest.raises(errors.AuthenticationError):
        batch_api(llm, face, ["a", "b"], {"callbacks": [seen]})
    assert seen.seen[2:] == [("error", "AuthenticationError")] * 2


@FACES
def test_a_tracer_is_told_the_same_of_an_input_and_of_a_call(serve: Serve, face: str) -> None:
    seen = Seen()
    llm = model(serve(script), temperature=0.2, stop=["A"])
    batch_api(llm, face, ["a"], {"callbacks": [seen]})
    llm.invoke("a", {"callbacks": [seen]})
    batched, single = seen.told
    assert batched["metadata"] == single["metadata"]
    assert batched["invocation_params"] == {**batched["invocation_params"], **single["invocation_params"]}
    assert single["invocation_params"]["stop"] == ["A"]


def test_langchains_own_batch_stays_concurrent_calls(serve: Serve) -> None:
    server = serve(script)
    assert [answer.text for answer in model(server).batch(["a", "b"])] == ["<a>", "<b>"]
    assert all("messages" in record.body for record in server.requests)


@pytest.mark.filterwarnings("ignore:The function `load` is in beta")
def test_a_stored_binding_can_be_loaded(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    server = serve(script)
    monkeypatch.setenv("CLOUDFLARE_API_TOKEN", server.api_token)
    stored = dumpd(model(server).bind(seed=3))
    again = load(
        stored,
        valid_namespaces=["langchain_workersai"],
        additional_import_mappings={},
        secrets_from_env=True,
        allowed_objects=[ChatWorkersAI, RunnableBinding],
    )
    assert again.invoke("a").text == "<a>"
