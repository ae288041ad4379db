"""WorkersAI over real sockets, against scripted answers."""

import asyncio
import json
import pickle
from collections.abc import Iterator
from typing import Any

import pytest
from llama_index.core import Settings as LlamaIndexSettings
from llama_index.core.callbacks import CallbackManager, CBEventType, TokenCountingHandler
from llama_index.core.instrumentation import get_dispatcher  # type: ignore[attr-defined]  # it is their public way
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.llms import ChatMessage, MessageRole
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.prompts import PromptTemplate
from llama_index_instrumentation.base import BaseEvent
from pydantic import ValidationError

from llamaindex_workersai import WorkersAI
from tests.llamaindex_workersai.face import Face
from tests.support import EVERY_DIALECT, Serve, connection
from workersai import RateLimit, count_tokens, errors
from workersai.local import LocalServer
from workersai.local.engine import CalledTool, GenerationRequest, Usage
from workersai.local.scripted import Answer, Refusal

MODEL = "@cf/meta/llama-3.3-70b-instruct-fp8-fast"
PIECES = ["It ", "is ", "sunny."]
ROOM = {"max_tokens": 4096}
USAGE = {"prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14, "cached_tokens": 0}
HI = [ChatMessage("hi")]


def sunny(_: GenerationRequest) -> Answer:
    return Answer(pieces=PIECES, usage=Usage(prompt_tokens=11, completion_tokens=3))


def model(server: LocalServer, **fields: Any) -> WorkersAI:
    return WorkersAI(**connection(server), **fields)


def text_of(response: Any) -> str:
    return response.text if hasattr(response, "text") else response.message.content or ""


WAYS = pytest.mark.parametrize(("method", "given"), [("chat", HI), ("complete", "hi")])


@EVERY_DIALECT
@WAYS
def test_an_answer_has_its_text_and_usage(face: Face, serve: Serve, method: str, given: Any) -> None:
    response = face.whole(model(serve(sunny)), method, given)
    assert text_of(response) == "It is sunny."
    assert response.additional_kwargs == USAGE
    assert response.raw["usage"] == USAGE
    assert (response.raw["model"], response.raw["finish_reason"]) == (MODEL, "stop")
    assert response.raw["request_id"].endswith("-LOC")


@EVERY_DIALECT
@WAYS
def test_a_stream_grows_to_the_answer(face: Face, serve: Serve, method: str, given: Any) -> None:
    responses = face.pieces(model(serve(sunny)), method, given)
    assert [response.delta for response in responses] == [*PIECES, ""]
    assert [text_of(response) for response in responses] == ["It ", "It is ", "It is sunny.", "It is sunny."]
    assert responses[-1].additional_kwargs == USAGE
    assert responses[-1].raw["finish_reason"] == "stop"


def test_chat_sends_messages_and_complete_one_message_or_a_prompt(face: Face, serve: Serve) -> None:
    server = serve(sunny)
    llm = model(server)
    face.whole(llm, "chat", [ChatMessage("Be brief.", role="system"), ChatMessage("hi")])
    face.whole(llm, "complete", "hi")
    face.pieces(llm, "complete", "hi")
    face.whole(llm, "complete", "hi", prompt_form="completion")
    face.pieces(model(server, prompt_form="completion"), "complete", "hi")
    hi = {"messages": [{"role": "user", "content": "hi"}], **ROOM}
    assert [record.body for record in server.requests] == [
        {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}], **ROOM},
        hi,
        hi | {"stream": True},
        {"prompt": "hi", **ROOM},
        {"prompt": "hi", "stream": True, **ROOM},
    ]


def test_every_setting_is_a_field_and_a_keyword_of_one_call(face: Face, serve: Serve) -> None:
    server = serve(sunny)
    llm = model(server, temperature=0.1, max_tokens=9)
    face.whole(llm, "complete", "hi", temperature=0.9, seed=3)
    face.pieces(llm, "chat", HI, max_tokens=None, session_affinity="s")
    first, second = server.requests
    hi = {"messages": [{"role": "user", "content": "hi"}]}
    assert first.body == {**hi, "temperature": 0.9, "max_tokens": 9, "seed": 3}
    assert second.body == {**hi, "temperature": 0.1, "stream": True, **ROOM}
    assert second.headers["x-session-affinity"] == "s"


@EVERY_DIALECT
@WAYS
def test_stop_strings_end_the_text(face: Face, serve: Serve, method: str, given: Any) -> None:
    llm = model(serve(lambda _: Answer(pieces=["one t", "wo thr", "ee"])), stop=["three"])
    assert text_of(face.whole(llm, method, given)) == "one two "
    assert text_of(face.pieces(llm, method, given, stop="two")[-1]) == "one "


def test_metadata_comes_from_the_catalog_and_the_fields() -> None:
    metadata = WorkersAI(account_id="a", api_token="t").metadata
    assert (metadata.context_window, metadata.num_output, metadata.model_name) == (24_000, 4_096, MODEL)
    assert metadata.is_chat_model
    assert WorkersAI(account_id="a", api_token="t", default_max_tokens=500).metadata.num_output == 500
    metadata = WorkersAI(account_id="a", api_token="t", max_tokens=1000).metadata
    assert metadata.num_output == 1000
    assert 23_900 < metadata.context_window < 24_000, "room for the chat template"
    assert WorkersAI(account_id="a", api_token="t", model="@cf/other/model").metadata.context_window > 0


@WAYS
def test_bad_input_is_refused_before_a_request(face: Face, serve: Serve, method: str, given: Any) -> None:
    server = serve(sunny)
    for asked, kwargs, says in (
        (given, {"temperature": 9}, "temperature: must be between 0 and 5"),
        (given, {"nonsense": 1}, "nonsense is no option"),
        (given, {"api_token": "x"}, "api_token can't be changed for one call"),
        ([] if method == "chat" else "", {}, "is empty"),
    ):
        with pytest.raises(errors.BadRequestError, match=says):
            face.whole(model(server), method, asked, **kwargs)
        with pytest.raises(errors.BadRequestError, match=says):
            face.pieces(model(server), method, asked, **kwargs)
    assert server.requests == []


def test_a_field_out_of_its_range_names_the_field_and_the_range() -> None:
    with pytest.raises(ValidationError, match=r"(?s)top_p.*must be between 0.001 and 1") as caught:
        WorkersAI(account_id="a", api_token="very-secret", top_p=2)
    assert "very-secret" not in str(caught.value)
    with pytest.raises(errors.ConfigurationError, match="CLOUDFLARE_API_TOKEN"):
        WorkersAI(account_id="a")


@WAYS
def test_a_failure_is_an_error_of_ours(face: Face, serve: Serve, method: str, given: Any) -> None:
    llm = model(serve(lambda _: Refusal(4006, "used up", 429)))
    with pytest.raises(errors.QuotaExceededError):
        face.whole(llm, method, given)
    with pytest.raises(errors.QuotaExceededError):
        face.pieces(llm, method, given)


@EVERY_DIALECT
def test_a_call_of_a_tool_is_a_block_of_the_message(face: Face, serve: Serve) -> None:
    llm = model(serve(lambda _: Answer(tool_calls=(CalledTool("f", {"a": 1}),))))
    for response in (face.whole(llm, "chat", HI), face.pieces(llm, "chat", HI)[-1]):
        (block,) = [block for block in response.message.blocks if block.block_type == "tool_call"]
        assert (block.tool_name, block.tool_kwargs) == ("f", {"a": 1})
        assert block.tool_call_id


@WAYS
def test_leaving_a_stream_early_closes_its_connection(serve: Serve, method: str, given: Any) -> None:
    server = serve(lambda _: Answer(pieces=["word "] * 10**6))
    for response in getattr(model(server), f"stream_{method}")(given):
        assert response.delta == "word "
        break
    assert server.requests[0].wait() == "disconnected"


async def test_leaving_an_async_stream_early_closes_its_connection(serve: Serve) -> None:
    server = serve(lambda _: Answer(pieces=["word "] * 10**6))
    async for response in await model(server).astream_chat(HI):
        assert response.delta == "word "
        break
    assert await asyncio.to_thread(server.requests[0].wait) == "disconnected"


class Recorder(BaseEventHandler):
    seen: list[str]

    def handle(self, event: BaseEvent, **_: Any) -> None:
        self.seen.append(event.class_name())


@pytest.fixture
def events() -> Iterator[list[str]]:
    recorder = Recorder(seen=[])
    root = get_dispatcher()
    root.add_event_handler(recorder)
    yield recorder.seen
    root.event_handlers.remove(recorder)


@pytest.mark.parametrize(("method", "given", "name"), [("chat", HI, "LLMChat"), ("complete", "hi", "LLMCompletion")])
def test_instrumentation_sees_what_it_sees_of_llamaindexs_own(
    face: Face, serve: Serve, events: list[str], method: str, given: Any, name: str
) -> None:
    llm = model(serve(sunny))
    face.whole(llm, method, given)
    assert events == [f"{name}StartEvent", f"{name}EndEvent"]
    events.clear()
    face.pieces(llm, method, given)
    assert events == [f"{name}StartEvent", *[f"{name}InProgressEvent"] * 4, f"{name}EndEvent"]


def test_instrumentation_is_told_the_settings_and_neither_account_nor_token() -> None:
    llm = WorkersAI(account_id="acc", api_token="very-secret", temperature=0.2, rate_limit=RateLimit(5))
    assert llm.to_payload() == {
        "class_name": "WorkersAI",
        **llm.metadata.model_dump(),
        "model": llm.model,
        "temperature": 0.2,
        "rate_limit": {"calls": 5, "seconds": 60.0, "name": None},
    }


@EVERY_DIALECT
@WAYS
def test_the_token_counter_of_llamaindex_counts(face: Face, serve: Serve, method: str, given: Any) -> None:
    counter = TokenCountingHandler(tokenizer=str.split)
    llm = model(serve(sunny), callback_manager=CallbackManager([counter]))
    face.whole(llm, method, given)
    assert (counter.prompt_llm_token_count, counter.completion_llm_token_count) == (11, 3)
    face.pieces(llm, method, given)
    assert (counter.prompt_llm_token_count, counter.completion_llm_token_count) == (22, 6)
    assert all(event.event_id for event in counter.llm_token_counts)
    assert CBEventType.LLM.value == "llm"


def test_predict_and_stream_go_through_chat(serve: Serve) -> None:
    server = serve(sunny)
    llm = model(server, system_prompt="Be brief.")
    assert llm.predict(PromptTemplate("Weather in {city}?"), city="Rome") == "It is sunny."
    assert "".join(llm.stream(PromptTemplate("Weather in {city}?"), city="Rome")) == "It is sunny."
    assert server.requests[0].body["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Weather in Rome?"},
    ]


def test_a_prompt_is_formatted_by_the_models_own_function_unless_it_is(serve: Serve) -> None:
    server = serve(sunny)
    llm = model(server, completion_to_prompt=lambda prompt: f"<<{prompt}>>")
    llm.complete("hi")
    llm.complete("hi", formatted=True)
    assert [record.body["messages"][0]["content"] for record in server.requests] == ["<<hi>>", "hi"]


def test_it_can_be_the_llm_of_all_of_llamaindex(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LlamaIndexSettings, "_llm", None)
    LlamaIndexSettings.llm = model(serve(sunny))
    assert LlamaIndexSettings.llm.metadata.context_window == 24_000


def test_it_goes_to_a_dict_and_back_without_its_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOUDFLARE_API_TOKEN", "from-environment")
    llm = WorkersAI(account_id="a", api_token="very-secret", temperature=0.5)
    assert "very-secret" not in llm.to_json() + repr(llm) + json.dumps(llm.to_payload())
    again = WorkersAI.from_dict(llm.to_dict())
    assert (again.temperature, again.account_id) == (0.5, "a")
    assert again.class_name() == "WorkersAI"


def test_a_pickled_model_answers(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOUDFLARE_API_TOKEN", "local-token")
    llm = model(serve(sunny))
    llm.complete("hi")
    assert pickle.loads(pickle.dumps(llm)).complete("hi").text == "It is sunny."  # noqa: S301 - our own bytes


def test_llamaindex_counts_with_the_models_own_tokenizer(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    llm = model(serve("never"))
    monkeypatch.setattr(LlamaIndexSettings, "tokenizer", llm.tokenize)
    assert LlamaIndexSettings.tokenizer("Hello, world!") == [9906, 11, 1917, 0]
    splitter = SentenceSplitter(chunk_size=50, chunk_overlap=0)
    parts = splitter.split_text("This is a sentence of a text. " * 40)
    assert all(count_tokens(part) <= 50 for part in parts)
    assert len(parts) > 4


def test_one_model_serves_several_event_loops(serve: Serve) -> None:
    llm = model(serve(sunny))
    assert [asyncio.run(llm.acomplete("hi")).text for _ in range(3)] == ["It is sunny."] * 3
    assert MessageRole.USER.value == "user"
