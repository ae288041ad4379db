"""ChatWorkersAI over real sockets, against scripted answers."""

import asyncio
import pickle
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from langchain_core import exceptions as langchain
from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler, UsageMetadataCallbackHandler
from langchain_core.language_models import BaseChatModel
from langchain_core.load import dumpd, dumps, load
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, SystemMessage
from langchain_core.rate_limiters import InMemoryRateLimiter
from pydantic import SecretStr, ValidationError

from langchain_workersai import ChatWorkersAI
from tests.langchain_workersai.face import Face
from tests.support import EVERY_DIALECT, Serve, connection
from workersai import RateLimit, errors
from workersai.local import LocalServer
from workersai.local.engine import CalledTool, GenerationRequest, Usage
from workersai.local.scripted import Answer, Refusal

MODEL = "@cf/meta/llama-3.3-70b-instruct-fp8-fast"
PIECES = ["It ", "is ", "sunny."]


def sunny(_: GenerationRequest) -> Answer:
    return Answer(pieces=PIECES, usage=Usage(prompt_tokens=11, completion_tokens=3, cached_tokens=8))


def chat(server: LocalServer, **fields: Any) -> ChatWorkersAI:
    return ChatWorkersAI(**connection(server), **fields)


def merged(chunks: list[AIMessageChunk]) -> AIMessageChunk:
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    return whole


USAGE = {
    "input_tokens": 11,
    "output_tokens": 3,
    "total_tokens": 14,
    "input_token_details": {"cache_read": 8},
}


@EVERY_DIALECT
def test_an_answer_has_its_text_usage_and_metadata(face: Face, serve: Serve) -> None:
    answer = face.whole(chat(serve(sunny), session_affinity="s1"), "How is the weather?")
    assert answer.text == "It is sunny."
    assert answer.usage_metadata == USAGE
    assert answer.response_metadata["model_name"] == MODEL
    assert answer.response_metadata["finish_reason"] == "stop"
    assert answer.response_metadata["request_id"].endswith("-LOC")


@EVERY_DIALECT
def test_a_stream_merges_into_the_answer_with_usage_and_metadata(face: Face, serve: Serve) -> None:
    chunks = face.pieces(chat(serve(sunny), session_affinity="s1"), "How is the weather?")
    assert [chunk.text for chunk in chunks] == [*PIECES, ""]
    assert chunks[-1].chunk_position == "last"
    whole = merged(chunks)
    assert whole.text == "It is sunny."
    assert whole.usage_metadata == USAGE
    assert whole.response_metadata["model_name"] == MODEL
    assert whole.response_metadata["finish_reason"] == "stop"
    assert whole.response_metadata["request_id"].endswith("-LOC")


@EVERY_DIALECT
@pytest.mark.parametrize("at", ["field", "call"])
def test_without_stream_usage_a_stream_has_none(face: Face, serve: Serve, at: str) -> None:
    server = serve(sunny)
    model = chat(server, stream_usage=False) if at == "field" else chat(server)
    chunks = face.pieces(model, "hi", **({} if at == "field" else {"stream_usage": False}))
    assert merged(chunks).usage_metadata is None


def test_a_conversation_is_sent_with_its_roles(face: Face, serve: Serve) -> None:
    server = serve(sunny)
    face.whole(chat(server), [SystemMessage("Be brief."), HumanMessage("Hi"), AIMessage("Yo"), ("human", "Weather?")])
    assert [(message["role"], message["content"]) for message in server.requests[0].body["messages"]] == [
        ("system", "Be brief."),
        ("user", "Hi"),
        ("assistant", "Yo"),
        ("user", "Weather?"),
    ]


def test_every_setting_is_a_field_and_a_keyword_of_one_call(face: Face, serve: Serve) -> None:
    server = serve(sunny)
    model = chat(server, temperature=0.1, top_k=5, max_tokens=9, gateway="g", reject_if_busy=True)
    face.whole(model, "hi")
    face.whole(model, "hi", temperature=0.9, seed=3, session_affinity="s")
    face.pieces(model.bind(top_p=0.5), "hi", max_tokens=None)
    first, second, third = server.requests
    fields = {"temperature": 0.1, "top_k": 5, "max_tokens": 9, "options": {"rejectIfBusy": True}}
    messages = {"messages": [{"role": "user", "content": "hi"}]}
    assert first.body == messages | fields
    assert first.headers["cf-aig-gateway-id"] == "g"
    assert second.body == messages | fields | {"temperature": 0.9, "seed": 3}
    assert second.headers["x-session-affinity"] == "s"
    fields["max_tokens"] = 4096
    assert third.body == messages | fields | {"top_p": 0.5, "stream": True}


def test_the_model_can_be_changed_for_one_call(face: Face, serve: Serve) -> None:
    server = serve(sunny)
    with pytest.raises(errors.ModelNotFoundError):
        face.whole(chat(server), "hi", model="@cf/other/model")
    assert server.requests[0].path.endswith("/ai/run/@cf/other/model")


@pytest.mark.parametrize("name", ["account_id", "api_token", "base_url"])
def test_the_account_cannot_be_changed_for_one_call(face: Face, serve: Serve, name: str) -> None:
    with pytest.raises(errors.BadRequestError, match=f"{name} can't be changed for one call"):
        face.whole(chat(serve(sunny)), "hi", **{name: "other"})


@EVERY_DIALECT
def test_stop_strings_can_be_bound_or_given_or_be_a_field(face: Face, serve: Serve) -> None:
    server = serve(lambda _: Answer(pieces=["one t", "wo thr", "ee"]))
    assert face.whole(chat(server).bind(stop=["two"]), "hi").text == "one "
    assert face.whole(chat(server), "hi", stop=["three"]).text == "one two "
    assert face.whole(chat(server, stop=["one"]), "hi").text == ""
    assert merged(face.pieces(chat(server).bind(stop=["two"]), "hi")).text == "one "
    assert face.whole(chat(server, stop=[]), "hi").text == "one two three"


def test_a_field_out_of_its_range_names_the_field_and_the_range() -> None:
    settings: dict[str, Any] = {"account_id": "a", "api_token": "very-secret"}
    with pytest.raises(ValidationError, match=r"(?s)temperature.*must be between 0 and 5") as caught:
        ChatWorkersAI(**settings, temperature=5.5)
    assert "very-secret" not in str(caught.value)
    with pytest.raises(ValidationError, match=r"(?s)tempertaure.*not permitted"):
        ChatWorkersAI(**settings, tempertaure=1)  # type: ignore[call-arg]
    with pytest.raises(ValidationError, match=r"(?s)timeout.*above 0"):
        ChatWorkersAI(**settings, timeout=-1)
    with pytest.raises(ValidationError, match=r"(?s)model.*begins with @"):
        ChatWorkersAI(**settings, model="llama")


def test_a_value_out_of_its_range_for_one_call_is_refused_before_a_request(face: Face, serve: Serve) -> None:
    server = serve(sunny)
    with pytest.raises(langchain.ModelInvalidRequestError, match="top_k: must be between 1 and 50") as caught:
        face.whole(chat(server), "hi", top_k=51)
    assert isinstance(caught.value, errors.BadRequestError)
    with pytest.raises(errors.BadRequestError, match="tempertaure is no option of a call"):
        face.pieces(chat(server), "hi", tempertaure=1)
    assert server.requests == []


def test_a_missing_account_is_told_at_construction() -> None:
    with pytest.raises(errors.ConfigurationError, match="CLOUDFLARE_ACCOUNT_ID"):
        ChatWorkersAI(api_token="t")
    with pytest.raises(errors.ConfigurationError, match=r"CLOUDFLARE_API_TOKEN.*api-tokens"):
        ChatWorkersAI(account_id="a")


def test_the_account_cannot_be_changed_later() -> None:
    model = ChatWorkersAI(account_id="a", api_token="t")
    with pytest.raises(errors.ConfigurationError, match="api_token can't be changed: make another"):
        model.api_token = "other"
    model.temperature = 9
    with pytest.raises(errors.BadRequestError, match="temperature: must be between 0 and 5"):
        model.invoke("hi")


def test_a_copy_of_another_address_calls_there(serve: Serve) -> None:
    here, there = serve(sunny), serve(sunny)
    chat(here).model_copy(update={"base_url": there.base_url}).invoke("hi")
    chat(here).model_copy(update={"temperature": 0.5}).invoke("hi")
    assert (len(there.requests), [record.body["temperature"] for record in here.requests]) == (1, [0.5])


def test_an_empty_prompt_is_refused_before_a_request(face: Face, serve: Serve) -> None:
    server = serve(sunny)
    with pytest.raises(langchain.ModelInvalidRequestError, match="messages are empty"):
        face.whole(chat(server), "")
    with pytest.raises(langchain.ModelInvalidRequestError, match="list of messages is empty"):
        face.pieces(chat(server), [])
    assert server.requests == []


def test_the_account_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CF_ACCOUNT_ID", "acc")
    monkeypatch.setenv("CF_AI_API_TOKEN", "tok")
    model = ChatWorkersAI()
    assert (model.account_id, model.api_token) == ("acc", SecretStr("tok"))


@pytest.mark.parametrize("asked_whole", [True, False], ids=["whole", "stream"])
@pytest.mark.parametrize(
    ("refusal", "theirs", "ours", "retryable"),
    [
        (Refusal(10000, "no", 401), langchain.ModelAuthenticationError, errors.AuthenticationError, False),
        (Refusal(5018, "no", 403), langchain.ModelPermissionDeniedError, errors.PermissionDeniedError, False),
        (Refusal(5006, "no", 400), langchain.ModelInvalidRequestError, errors.BadRequestError, False),
        (Refusal(5007, "no", 400), langchain.ModelNotFoundError, errors.ModelNotFoundError, False),
        (Refusal(3040, "no", 429), langchain.ModelRateLimitError, errors.RateLimitError, True),
        (Refusal(4006, "no", 429), langchain.ModelRateLimitError, errors.QuotaExceededError, False),
        (Refusal(3006, "no", 413), langchain.ModelInvalidRequestError, errors.RequestTooLargeError, False),
        (Refusal(5021, "no", 413), langchain.ContextOverflowError, errors.ContextWindowExceededError, False),
        (Refusal(5024, "no", 400), langchain.ModelInvalidRequestError, errors.JSONModeError, False),
        (Refusal(3007, "no", 408), langchain.ModelTimeoutError, errors.APITimeoutError, True),
        (Refusal(5000, "no", 500), langchain.ModelAPIError, errors.ServerError, True),
    ],
)
def test_an_error_is_ours_and_langchains(
    face: Face,
    serve: Serve,
    asked_whole: bool,
    refusal: Refusal,
    theirs: type[langchain.ModelError],
    ours: type[errors.WorkersAIError],
    retryable: bool,
) -> None:
    model = chat(serve(lambda _: refusal), max_retries=0)
    with pytest.raises(theirs) as caught:
        (face.whole if asked_whole else face.pieces)(model, "hi")
    error = caught.value
    assert isinstance(error, ours)
    assert (error.code, error.status_code, error.is_retryable) == (refusal.code, refusal.status, retryable)
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert isinstance(again, theirs)
    assert again.is_retryable is retryable


def test_a_connection_that_cannot_be_made_is_langchains_error_as_well(face: Face) -> None:
    model = ChatWorkersAI(account_id="a", api_token="t", base_url="http://127.0.0.1:9", max_retries=0)
    with pytest.raises(langchain.ModelConnectionError) as caught:
        face.whole(model, "hi")
    assert isinstance(caught.value, errors.APIConnectionError)


@EVERY_DIALECT
def test_a_failed_stream_keeps_what_came_in_the_error(face: Face, serve: Serve) -> None:
    model = chat(serve([Answer(pieces=["Hel"], failure=Refusal(5000, "no", 500))]))
    with pytest.raises(langchain.ModelAPIError) as caught:
        face.pieces(model, "hi")
    assert isinstance(caught.value, errors.ServerError)
    assert caught.value.partial is not None
    assert caught.value.partial.text == "Hel"


class Tokens(BaseCallbackHandler):
    def __init__(self) -> None:
        self.seen: list[str] = []

    def on_llm_new_token(self, token: Any, **kwargs: Any) -> None:
        self.seen.append(token)


class AsyncTokens(AsyncCallbackHandler):
    def __init__(self) -> None:
        self.seen: list[str] = []

    async def on_llm_new_token(self, token: Any, **kwargs: Any) -> None:
        self.seen.append(token)


@EVERY_DIALECT
@pytest.mark.parametrize("handler", [Tokens, AsyncTokens])
@pytest.mark.parametrize("via", ["stream", "streaming"])
def test_a_callback_sees_each_piece_of_text_once_and_in_order(
    face: Face, serve: Serve, handler: type[Tokens], via: str
) -> None:
    tokens = handler()
    server = serve(sunny)
    if via == "stream":
        face.pieces(chat(server), "hi", config={"callbacks": [tokens]})
    else:
        assert face.whole(chat(server, streaming=True), "hi", config={"callbacks": [tokens]}).text == "It is sunny."
    assert [token for token in tokens.seen if token] == PIECES


def test_the_hooks_own_run_manager_is_told_each_piece_once(serve: Serve) -> None:
    """As a caller of the private hook sees it: LangChain's public ways call back by themselves."""

    class Manager:
        def __init__(self) -> None:
            self.seen: list[str] = []

        def on_llm_new_token(self, token: str, **kwargs: Any) -> None:
            self.seen.append(token)

    manager = Manager()
    list(chat(serve(sunny))._stream([HumanMessage("hi")], run_manager=manager))  # type: ignore[arg-type]
    assert manager.seen == PIECES


def test_an_exception_in_a_callback_closes_the_connection(face: Face, serve: Serve) -> None:
    class Failing(BaseCallbackHandler):
        raise_error = True

        def on_llm_new_token(self, token: Any, **kwargs: Any) -> None:
            raise LookupError("mine")

    server = serve(lambda _: Answer(pieces=["word "] * 10**6))
    with pytest.raises(LookupError, match="mine"):
        face.pieces(chat(server), "hi", config={"callbacks": [Failing()]})
    assert server.requests[0].wait() == "disconnected"


def test_leaving_a_stream_early_closes_its_connection(serve: Serve) -> None:
    server = serve(lambda _: Answer(pieces=["word "] * 10**6))
    for chunk in chat(server).stream("hi"):
        assert chunk.text == "word "
        break
    assert server.requests[0].wait() == "disconnected"


async def test_leaving_an_async_stream_early_closes_its_connection(serve: Serve) -> None:
    server = serve(lambda _: Answer(pieces=["word "] * 10**6))
    async for chunk in chat(server).astream("hi"):
        assert chunk.text == "word "
        break
    assert await asyncio.to_thread(server.requests[0].wait) == "disconnected"


async def test_events_show_each_piece(serve: Serve) -> None:
    events = [event async for event in chat(serve(sunny)).astream_events("hi", version="v2")]
    pieces = [event["data"]["chunk"].text for event in events if event["event"] == "on_chat_model_stream"]
    assert [piece for piece in pieces if piece] == PIECES


def test_one_model_serves_several_event_loops(serve: Serve) -> None:
    model = chat(serve(sunny))
    assert [asyncio.run(model.ainvoke("hi")).text for _ in range(3)] == ["It is sunny."] * 3


def test_a_batch_is_answered_in_order(serve: Serve) -> None:
    model = chat(serve(lambda request: f"you said {request.messages[0].content}"))
    asked: list[Any] = [f"{number}" for number in range(12)]
    assert [answer.text for answer in model.batch(asked)] == [f"you said {text}" for text in asked]
    assert [answer.text for answer in asyncio.run(model.abatch(asked))] == [f"you said {text}" for text in asked]


@EVERY_DIALECT
def test_usage_is_summed_up_by_langchains_own_handler(face: Face, serve: Serve) -> None:
    counter = UsageMetadataCallbackHandler()
    model = chat(serve(sunny))
    face.whole(model, "hi", config={"callbacks": [counter]})
    face.pieces(model, "hi", config={"callbacks": [counter]})
    assert counter.usage_metadata[MODEL]["total_tokens"] == 28


@EVERY_DIALECT
def test_calls_of_a_tool_become_langchains(face: Face, serve: Serve) -> None:
    model = chat(serve(lambda _: Answer(tool_calls=(CalledTool("get_weather", {"city": "東京"}),))))
    (call,) = face.whole(model, "hi").tool_calls
    assert (call["name"], call["args"]) == ("get_weather", {"city": "東京"})
    whole = merged(face.pieces(model, "hi"))
    assert (whole.tool_calls[0]["name"], whole.tool_calls[0]["args"]) == ("get_weather", {"city": "東京"})
    assert whole.response_metadata["finish_reason"] == "tool_calls"


@EVERY_DIALECT
@pytest.mark.parametrize("version", ["v0", "v1"])
def test_text_and_calls_of_one_stream_stay_apart(face: Face, serve: Serve, version: str) -> None:
    answer = Answer("Let me look.", tool_calls=(CalledTool("f", {"a": 1}), CalledTool("g", {})))
    whole = merged(face.pieces(chat(serve(lambda _: answer), output_version=version), "hi"))
    assert whole.text == "Let me look."
    assert [(call["name"], call["args"]) for call in whole.tool_calls] == [("f", {"a": 1}), ("g", {})]
    assert [block["type"] for block in whole.content_blocks] == ["text", "tool_call", "tool_call"]


def test_the_profile_comes_from_the_catalog() -> None:
    model = ChatWorkersAI(account_id="a", api_token="t")
    assert model.profile is not None
    assert model.profile["max_input_tokens"] == 24_000
    assert model.profile["image_inputs"] is False
    assert ChatWorkersAI(account_id="a", api_token="t", model="@cf/other/model").profile is None


def test_tracing_is_told_the_provider_the_model_and_the_settings() -> None:
    model = ChatWorkersAI(account_id="a", api_token="t", temperature=0.5, max_tokens=7, stop=["x"])
    assert model._get_ls_params() == {
        "ls_provider": "cloudflare",
        "ls_model_type": "chat",
        "ls_model_name": MODEL,
        "ls_temperature": 0.5,
        "ls_max_tokens": 7,
        "ls_stop": ["x"],
    }
    override = model._get_ls_params(stop=["y"], model="@cf/a/b", temperature=1.0)
    assert (override["ls_model_name"], override["ls_temperature"], override["ls_stop"]) == ("@cf/a/b", 1.0, ["y"])


def test_what_identifies_a_model_is_its_settings_and_not_its_account() -> None:
    model = ChatWorkersAI(account_id="acc", api_token="very-secret", temperature=0.5)
    assert model._identifying_params == {"model": MODEL, "temperature": 0.5}
    assert model._llm_type == "workersai-chat"
    assert "very-secret" not in repr(model) + str(model)


@pytest.mark.filterwarnings("ignore:The function `load` is in beta")
def test_it_serialises_without_its_token_and_reads_it_from_the_environment_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = ChatWorkersAI(
        account_id="acc", api_token="very-secret", temperature=0.5, stop=["x"], rate_limit=RateLimit(5)
    )
    assert "very-secret" not in dumps(model)
    assert dumpd(model)["kwargs"]["api_token"] == {"lc": 1, "type": "secret", "id": ["CLOUDFLARE_API_TOKEN"]}
    monkeypatch.setenv("CLOUDFLARE_API_TOKEN", "from-environment")
    again = load(
        dumpd(model), valid_namespaces=["langchain_workersai"], allowed_objects=[ChatWorkersAI], secrets_from_env=True
    )
    assert isinstance(again, ChatWorkersAI)
    assert (again.temperature, again.stop, again.account_id) == (0.5, ["x"], "acc")
    assert again.rate_limit == RateLimit(5)
    assert again.api_token == SecretStr("from-environment")


def test_a_pickled_model_answers(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOUDFLARE_API_TOKEN", "local-token")
    model = chat(serve(sunny), temperature=0.5)
    assert model.invoke("hi").text == "It is sunny."  # its pool is open, and stays behind
    again = pickle.loads(pickle.dumps(model))  # noqa: S301 - our own bytes
    assert again.invoke("hi").text == "It is sunny."


def test_langchains_rate_limiter_is_asked_before_each_call(face: Face, serve: Serve) -> None:
    class Counting(InMemoryRateLimiter):
        acquired = 0

        def acquire(self, *, blocking: bool = True) -> bool:
            self.acquired += 1
            return True

        async def aacquire(self, *, blocking: bool = True) -> bool:
            return self.acquire()

    limiter = Counting()
    model = chat(serve(sunny), rate_limiter=limiter)
    for number, method in enumerate(("whole", "pieces"), 1):
        getattr(face, method)(model, "hi")
        assert limiter.acquired == number


def test_langchains_rate_limiter_is_waited_for(serve: Serve) -> None:
    model = chat(serve(sunny), rate_limiter=InMemoryRateLimiter(requests_per_second=20, check_every_n_seconds=0.001))
    began = time.monotonic()
    assert [model.invoke("hi").text for _ in range(2)] == ["It is sunny."] * 2
    assert asyncio.run(model.ainvoke("hi")).text == "It is sunny."
    assert time.monotonic() - began >= 0.1, "a twentieth of a second each, but for the first"


def test_threads_share_one_model(serve: Serve) -> None:
    model: BaseChatModel = chat(serve(sunny))
    texts: list[str] = []
    threads = [threading.Thread(target=lambda: texts.append(model.invoke("hi").text)) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert texts == ["It is sunny."] * 10


def test_the_hooks_are_generators_that_close(serve: Serve) -> None:
    server = serve(lambda _: Answer(pieces=["word "] * 10**6))
    chunks: Iterator[Any] = chat(server)._stream([HumanMessage("hi")])
    next(chunks)
    chunks.close()  # type: ignore[attr-defined]
    assert server.requests[0].wait() == "disconnected"


async def test_the_async_hooks_are_generators_that_close(serve: Serve) -> None:
    server = serve(lambda _: Answer(pieces=["word "] * 10**6))
    chunks: AsyncIterator[Any] = chat(server)._astream([HumanMessage("hi")])
    await anext(chunks)
    await chunks.aclose()  # type: ignore[attr-defined]
    assert await asyncio.to_thread(server.requests[0].wait) == "disconnected"
