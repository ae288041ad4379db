"""Each sample of the service's replies has the outcome that tests/wire names, in both frameworks and in each way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk
from llama_index.core.base.llms.types import ChatMessage, ThinkingBlock
from llama_index.core.tools import FunctionTool, ToolMetadata

from langchain_workersai import ChatWorkersAI, WorkersAILLM
from llamaindex_workersai import WorkersAI
from tests.samples import Outcome, Sample, of_kinds, sent
from workersai import DEFAULT_MODEL, AsyncClient, Client, CostTracker, errors
from workersai.protocol.reply import Asked, ReplyHead
from workersai.protocol.stream import StreamReader
from workersai.protocol.tools import offer_of
from workersai.protocol.values import Completion

WHOLE, STREAMS, ERRORS = of_kinds("whole"), of_kinds("stream"), of_kinds("error")
Way = Callable[[Sample, dict[str, Any]], Outcome]


def name_of(value: object) -> str | None:
    return value.name if isinstance(value, Sample) else None


def of_completion(completion: Completion) -> Outcome:
    usage = completion.usage
    return Outcome(
        text=completion.text,
        calls=[{"name": call.name, "args": dict(call.arguments)} for call in completion.tool_calls],
        reasoning=completion.reasoning,
        usage=None if usage is None else [usage.prompt_tokens, usage.completion_tokens],
        finish=completion.finish_reason,
        ids=[call.id for call in completion.tool_calls],
    )


def options_of(sample: Sample) -> dict[str, Any]:
    # An error's model may be one for embeddings, or of a gateway: what matters is how the error is read.
    model = DEFAULT_MODEL if sample.kind == "error" else sample.model
    return {"model": model, "max_tokens": sample.max_tokens, "stop": sample.stop or None}


def asked_of(sample: Sample) -> dict[str, Any]:
    return {"tools": sample.offered or None, "tool_choice": sample.forced}


def client_run(sample: Sample, account: dict[str, Any]) -> Outcome:
    with Client(**account, **options_of(sample)) as client:
        return of_completion(client.run("hi", **asked_of(sample)))


def client_stream(sample: Sample, account: dict[str, Any]) -> Outcome:
    with Client(**account, **options_of(sample)) as client:
        deltas = list(client.stream("hi", **asked_of(sample)))
    completion = deltas[-1].completion
    assert completion is not None
    assert "".join(delta.text for delta in deltas) == completion.text
    assert "".join(delta.reasoning for delta in deltas) == completion.reasoning
    return of_completion(completion)


def async_client_run(sample: Sample, account: dict[str, Any]) -> Outcome:
    async def main() -> Completion:
        async with AsyncClient(**account, **options_of(sample)) as client:
            return await client.run("hi", **asked_of(sample))

    return of_completion(asyncio.run(main()))


def async_client_stream(sample: Sample, account: dict[str, Any]) -> Outcome:
    async def main() -> Completion | None:
        async with AsyncClient(**account, **options_of(sample)) as client:
            return [delta async for delta in client.stream("hi", **asked_of(sample))][-1].completion

    completion = asyncio.run(main())
    assert completion is not None
    return of_completion(completion)


def of_message(message: AIMessage) -> Outcome:
    usage = message.usage_metadata
    return Outcome(
        text=message.text,
        calls=[{"name": call["name"], "args": call["args"]} for call in message.tool_calls],
        reasoning="".join(
            str(block.get("reasoning", "")) for block in message.content_blocks if block["type"] == "reasoning"
        ),
        usage=None if usage is None else [usage["input_tokens"], usage["output_tokens"]],
        finish=message.response_metadata.get("finish_reason"),
        ids=[str(call["id"]) for call in message.tool_calls],
    )


def chat_of(sample: Sample, account: dict[str, Any]) -> Any:
    chat = ChatWorkersAI(**account, **options_of(sample))
    if not sample.tools:
        return chat
    tools = [
        {"type": "function", "function": {"name": tool.name, "description": tool.description, **parameters_of(tool)}}
        for tool in sample.offered
    ]
    return chat.bind_tools(tools, tool_choice=sample.forced)


def parameters_of(tool: Any) -> dict[str, Any]:
    return {"parameters": tool.parameters}


def merged(chunks: list[AIMessageChunk]) -> AIMessageChunk:
    whole = chunks[0]
    for piece in chunks[1:]:
        whole += piece
    return whole


def langchain_invoke(sample: Sample, account: dict[str, Any]) -> Outcome:
    return of_message(chat_of(sample, account).invoke("hi"))


def langchain_stream(sample: Sample, account: dict[str, Any]) -> Outcome:
    return of_message(merged(list(chat_of(sample, account).stream("hi"))))


def langchain_ainvoke(sample: Sample, account: dict[str, Any]) -> Outcome:
    return of_message(asyncio.run(chat_of(sample, account).ainvoke("hi")))


def langchain_astream(sample: Sample, account: dict[str, Any]) -> Outcome:
    async def main() -> list[AIMessageChunk]:
        return [chunk async for chunk in chat_of(sample, account).astream("hi")]

    return of_message(merged(asyncio.run(main())))


class LlamaIndexCall:
    """One chat of LlamaIndex's model, with the tools of the sample."""

    def __init__(self, sample: Sample, account: dict[str, Any]) -> None:
        given = {name: value for name, value in options_of(sample).items() if value is not None}
        self.llm = WorkersAI(**account, **given)
        self.messages = [ChatMessage(role="user", content="hi")]
        self.tools = [self._tool(tool) for tool in sample.offered]
        self.asked: dict[str, Any] = {"tools": self.tools, "chat_history": self.messages}
        if sample.forced:
            self.asked["tool_choice"] = sample.forced

    @staticmethod
    def _tool(tool: Any) -> FunctionTool:
        from pydantic import create_model  # noqa: PLC0415

        fields: dict[str, Any] = dict.fromkeys(tool.parameters["properties"], (str, ...))
        schema = create_model(tool.name, **fields)
        return FunctionTool.from_defaults(
            fn=lambda **_: "",
            tool_metadata=ToolMetadata(name=tool.name, description=tool.description, fn_schema=schema),
        )

    def outcome(self, response: Any) -> Outcome:
        calls = self.llm.get_tool_calls_from_response(response, error_on_no_tool_call=False)
        usage = response.additional_kwargs
        return Outcome(
            text=response.message.content or "",
            calls=[{"name": call.tool_name, "args": call.tool_kwargs} for call in calls],
            reasoning="".join(
                block.content or "" for block in response.message.blocks if isinstance(block, ThinkingBlock)
            ),
            usage=[usage["prompt_tokens"], usage["completion_tokens"]] if "prompt_tokens" in usage else None,
            finish=response.raw.get("finish_reason"),
            ids=[call.tool_id for call in calls],
        )


def llamaindex_chat(sample: Sample, account: dict[str, Any]) -> Outcome:
    call = LlamaIndexCall(sample, account)
    return call.outcome(call.llm.chat_with_tools(**call.asked) if call.tools else call.llm.chat(call.messages))


def llamaindex_stream(sample: Sample, account: dict[str, Any]) -> Outcome:
    call = LlamaIndexCall(sample, account)
    pieces = call.llm.stream_chat_with_tools(**call.asked) if call.tools else call.llm.stream_chat(call.messages)
    return call.outcome(list(pieces)[-1])


def llamaindex_achat(sample: Sample, account: dict[str, Any]) -> Outcome:
    call = LlamaIndexCall(sample, account)

    async def main() -> Any:
        return await (call.llm.achat_with_tools(**call.asked) if call.tools else call.llm.achat(call.messages))

    return call.outcome(asyncio.run(main()))


def llamaindex_astream(sample: Sample, account: dict[str, Any]) -> Outcome:
    call = LlamaIndexCall(sample, account)

    async def main() -> Any:
        if call.tools:
            pieces = await call.llm.astream_chat_with_tools(**call.asked)
        else:
            pieces = await call.llm.astream_chat(call.messages)
        return [piece async for piece in pieces][-1]

    return call.outcome(asyncio.run(main()))


ANSWERED_WHOLE: list[Way] = [
    client_run,
    async_client_run,
    langchain_invoke,
    langchain_ainvoke,
    llamaindex_chat,
    llamaindex_achat,
]
STREAMED: list[Way] = [
    client_stream,
    async_client_stream,
    langchain_stream,
    langchain_astream,
    llamaindex_stream,
    llamaindex_astream,
]
RAISES = {"StreamInterruptedError": errors.StreamInterruptedError, "retryable": errors.WorkersAIError}


@pytest.mark.parametrize("way", [*ANSWERED_WHOLE, *STREAMED])
@pytest.mark.parametrize("sample", WHOLE, ids=name_of)
def test_a_whole_reply_is_read_also_in_place_of_a_stream(sample: Sample, way: Way) -> None:
    with sent(sample) as server:
        way(sample, server.account).check(sample.expect)


@pytest.mark.parametrize("in_bytes", [False, True], ids=["at once", "byte by byte"])
@pytest.mark.parametrize("way", STREAMED)
@pytest.mark.parametrize("sample", STREAMS, ids=name_of)
def test_a_stream_is_read(sample: Sample, way: Way, in_bytes: bool) -> None:
    raised = sample.expect.get("raises")
    with sent(sample, in_bytes=in_bytes) as server:
        if raised is None:
            way(sample, server.account).check(sample.expect)
            return
        with pytest.raises(RAISES[raised]) as caught:
            way(sample, server.account)
    error = caught.value
    assert isinstance(error, errors.WorkersAIError)
    assert error.retryable
    if "partial_usage" in sample.expect:
        assert error.partial is not None
        assert of_completion(error.partial).usage == sample.expect["partial_usage"]


@pytest.mark.parametrize("sample", [sample for sample in STREAMS if "raises" not in sample.expect], ids=name_of)
def test_where_a_stream_is_cut_into_two_makes_no_difference(sample: Sample) -> None:
    offer = offer_of(sample.offered, sample.forced)
    asked = Asked(sample.model, sample.max_tokens, offer=offer)
    head = ReplyHead(sample.status, {"content-type": "text/event-stream"})
    for cut in range(len(sample.body)):
        reader = StreamReader(head, asked)
        deltas = [*reader.feed(sample.body[:cut]), *reader.feed(sample.body[cut:]), *reader.close()]
        completion = deltas[-1].completion
        assert completion is not None
        of_completion(completion).check(sample.expect)
        assert "".join(delta.text for delta in deltas) == completion.text


@pytest.mark.parametrize("way", [*ANSWERED_WHOLE, *STREAMED])
@pytest.mark.parametrize("sample", ERRORS, ids=name_of)
def test_an_error_has_its_class(sample: Sample, way: Way) -> None:
    kind = sample.expect["class"]
    with sent(sample) as server, pytest.raises(getattr(errors, kind)) as caught:
        way(sample, server.account)
    assert isinstance(caught.value, errors.WorkersAIError)
    assert caught.value.retryable == sample.expect["retryable"]


@pytest.mark.parametrize("sample", [sample for sample in WHOLE if sample.form == "prompt"], ids=name_of)
def test_an_answer_to_a_prompt_is_read_by_the_models_for_texts(sample: Sample) -> None:
    with sent(sample) as server:
        llm = WorkersAILLM(**server.account, model=sample.model)
        assert llm.invoke("hi") == sample.expect["text"]
        assert "".join(llm.stream("hi")) == sample.expect["text"]
        index = WorkersAI(**server.account, model=sample.model)
        assert index.complete("hi").text == sample.expect["text"]
        assert list(index.stream_complete("hi"))[-1].text == sample.expect["text"]


def test_a_stream_that_is_cut_off_or_left_early_costs_what_was_reported() -> None:
    """The increments that were received are counted, and not only the last one."""
    cut, whole = (next(sample for sample in STREAMS if sample.name == name) for name in ("s08", "s02"))
    with sent(cut) as server, Client(**server.account) as client, CostTracker() as cost:
        with pytest.raises(errors.StreamInterruptedError):
            list(client.stream("hi"))
        assert (cost.prompt_tokens, cost.completion_tokens) == (39, 2)
    with sent(whole) as server, Client(**server.account) as client, CostTracker() as cost:
        stream = client.stream("hi")
        assert next(stream).text == "there are "
        stream.close()
        assert cost.prompt_tokens == 39
        assert 3 <= cost.completion_tokens <= 7
