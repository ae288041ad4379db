"""WorkersAILLM over real sockets, against scripted answers, and once against the real small model."""

import asyncio
import json
import pickle
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import pytest
from langchain_core import exceptions as langchain
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.load import dumpd, dumps, load
from langchain_core.messages import BaseMessage, HumanMessage, SystemMessage, trim_messages
from langchain_core.output_parsers import StrOutputParser
from langchain_core.outputs import Generation, LLMResult
from langchain_core.prompts import ChatPromptTemplate, PromptTemplate
from langchain_core.runnables import RunnableBinding
from pydantic import SecretStr, ValidationError

from langchain_workersai import ChatWorkersAI, WorkersAILLM
from tests.langchain_workersai.face import Face
from tests.support import EVERY_DIALECT, PATIENCE, Serve, asked_text, asked_text_of, connection
from workersai import DEFAULT_MODEL, CostTracker, RateLimit, count_tokens, errors
from workersai.local import LocalServer
from workersai.local.engine import GenerationRequest, RawReply, Usage
from workersai.local.scripted import Answer, Gate, Refusal, ScriptedAnswer, ScriptedEngine
from workersai.protocol.template import rendered

PIECES = ["It ", "is ", "sunny."]
SUNNY = "It is sunny."
USAGE = {"prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14, "cached_tokens": 0}
MARKUP = (
    "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n{question}<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n"
)
QUICK: dict[str, Any] = {"rate_limit": None, "poll_interval": 0.01}


def sunny(_: GenerationRequest) -> Answer:
    return Answer(pieces=PIECES, usage=Usage(prompt_tokens=11, completion_tokens=3))


def echo(request: GenerationRequest) -> ScriptedAnswer:
    return Refusal(5004, "no", 400) if asked_text(request) == "bad" else f"<{asked_text(request)}>"


def text_model(server: LocalServer, **fields: Any) -> WorkersAILLM:
    return WorkersAILLM(**connection(server), **fields)


class Seen(BaseCallbackHandler):
    """What callbacks are told, in order."""

    def __init__(self) -> None:
        self.started: list[tuple[str, dict[str, Any]]] = []
        self.tokens: list[str] = []
        self.results: list[LLMResult] = []
        self.errors: list[BaseException] = []
        self.retries: list[int] = []

    def on_llm_start(self, serialized: Any, prompts: list[str], **kwargs: Any) -> None:
        self.started += [(prompt, kwargs) for prompt in prompts]

    def on_llm_new_token(self, token: Any, **kwargs: Any) -> None:
        self.tokens.append(token)

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **kwargs: Any) -> None:
        self.results.append(response)

    def on_llm_error(self, error: BaseException, **kwargs: Any) -> None:
        self.errors.append(error)

    def on_retry(self, retry_state: Any, **kwargs: Any) -> None:
        self.retries.append(retry_state.attempt_number)


@pytest.mark.parametrize("form", [None, "chat", "completion"])
def test_a_text_is_answered_with_a_text(face: Face, serve: Serve, form: Any) -> None:
    server = serve(sunny)
    model = text_model(server, prompt_form=form)
    assert face.whole(model, "How is the weather?") == SUNNY
    assert "".join(face.pieces(model, "How is the weather?")) == SUNNY
    message = {"messages": [{"role": "user", "content": "How is the weather?"}]}
    body = (message if form != "completion" else {"prompt": "How is the weather?"}) | {"max_tokens": 4096}
    assert [record.body for record in server.requests] == [body, body | {"stream": True}]


def test_every_setting_is_a_field_and_a_keyword_of_one_call(face: Face, serve: Serve) -> None:
    server = serve(sunny)
    model = text_model(server, temperature=0.1, max_tokens=9, top_k=5, reject_if_busy=True)
    face.whole(model, "hi")
    face.whole(model, "hi", temperature=0.9, seed=3, top_k=None, session_affinity="s")
    face.pieces(model.bind(top_p=0.5, raw=True), "hi")
    face.many(model.bind(top_p=0.5), ["hi"], seed=4)
    whole, changed, streamed, batched = server.requests
    fields = {"max_tokens": 9, "options": {"rejectIfBusy": True}}
    prompt, fields = {"prompt": "hi", **fields}, {"messages": [{"role": "user", "content": "hi"}], **fields}
    top_k = {"top_k": 5}
    assert whole.body == fields | top_k | {"temperature": 0.1}
    assert changed.body == fields | {"temperature": 0.9, "seed": 3}
    assert changed.headers["x-session-affinity"] == "s"
    assert streamed.body == prompt | top_k | {"temperature": 0.1, "top_p": 0.5, "raw": True, "stream": True}
    assert batched.body == fields | top_k | {"temperature": 0.1, "top_p": 0.5, "seed": 4}


@EVERY_DIALECT
def test_a_raw_prompt_is_sent_as_it_is_written(face: Face, serve: Serve) -> None:
    server = serve(sunny)
    chain = PromptTemplate.from_template(MARKUP) | text_model(server, raw=True)
    assert face.whole(chain, {"question": "Hi"}) == SUNNY
    body = server.requests[0].body
    assert (body["prompt"], body["raw"]) == (MARKUP.format(question="Hi"), True)


def test_it_is_a_part_of_a_chain(face: Face, serve: Serve) -> None:
    server = serve(echo)
    chain = PromptTemplate.from_template("Say {word}.") | text_model(server) | StrOutputParser()
    assert face.whole(chain, {"word": "no"}) == "<Say no.>"
    assert "".join(face.pieces(chain, {"word": "no"})) == "<Say no.>"
    assert face.many(chain, [{"word": "a"}, {"word": "b"}]) == ["<Say a.>", "<Say b.>"]
    messages = ChatPromptTemplate.from_messages([("system", "Be brief."), ("human", "{word}")])
    assert face.whole(messages | text_model(server), {"word": "no"}) == "<System: Be brief.\nHuman: no>"


@EVERY_DIALECT
def test_stop_strings_can_be_bound_or_given_or_be_a_field(face: Face, serve: Serve) -> None:
    server = serve(lambda _: Answer(pieces=["one t", "wo thr", "ee"]))
    assert face.whole(text_model(server).bind(stop=["two"]), "hi") == "one "
    assert face.whole(text_model(server), "hi", stop=["three"]) == "one two "
    assert face.whole(text_model(server, stop="one"), "hi") == ""
    assert "".join(face.pieces(text_model(server, stop=["two"]), "hi")) == "one "
    assert face.whole(text_model(server, stop=["one"]), "hi", stop=[]) == "one two three"


class Crowd:
    """A script that holds its answers until so many are wanted at once, and then lets one go after the other."""

    def __init__(self, size: int) -> None:
        self.most = 0
        self._here = 0
        self._size = size
        self._held: list[Gate] = []

    def __call__(self, request: GenerationRequest) -> Answer:
        gate = Gate()
        self._held.append(gate)
        self._here += 1
        grown, self.most = self.most < self._size, max(self.most, self._here)
        if self.most == self._size and grown:
            self._held.pop(0).open()
        elif not grown:
            gate.open()
        usage = Usage(prompt_tokens=5, completion_tokens=2)
        return Answer(pieces=self._pieces(asked_text(request)), hold={0: gate}, usage=usage)

    def _pieces(self, prompt: str) -> Iterator[str]:
        yield f"<{prompt}>"
        self._here -= 1
        if self._held:
            self._held.pop(0).open()


def test_several_prompts_are_asked_at_once_and_answered_in_order(face: Face, serve: Serve) -> None:
    result = face.generated(text_model(serve(Crowd(4)), timeout=PATIENCE, max_retries=0), list("abcd"))
    assert [generation.text for (generation,) in result.generations] == ["<a>", "<b>", "<c>", "<d>"]
    assert result.llm_output["token_usage"] == {
        "prompt_tokens": 20, "completion_tokens": 8, "total_tokens": 28, "cached_tokens": 0,
    }  # fmt: skip
    batched = face.many(text_model(serve(Crowd(4)), timeout=PATIENCE, max_retries=0), list("abcd"))
    assert batched == ["<a>", "<b>", "<c>", "<d>"]


def test_at_most_32_prompts_of_one_generate_are_asked_at_once(face: Face) -> None:
    crowd = Crowd(32)
    with LocalServer(ScriptedEngine(crowd, slots=64)) as server:
        model = text_model(server, timeout=PATIENCE, max_retries=0)
        result = face.generated(model, [str(number) for number in range(40)])
    assert [generation.text for (generation,) in result.generations] == [f"<{number}>" for number in range(40)]
    assert crowd.most == 32


def test_max_concurrency_bounds_a_batch(face: Face, serve: Serve) -> None:
    crowd = Crowd(2)
    model = text_model(serve(crowd), timeout=PATIENCE, max_retries=0)
    assert face.many(model, list("abcdefghi"), {"max_concurrency": 2}) == [f"<{prompt}>" for prompt in "abcdefghi"]
    assert crowd.most == 2


@pytest.mark.parametrize("config", [None, {"max_concurrency": 2}])
def test_a_failed_prompt_of_a_batch_is_its_own_failure(face: Face, serve: Serve, config: Any) -> None:
    model = text_model(serve(echo))
    first, failed, third = face.many(model, ["a", "bad", "c"], config, return_exceptions=True)
    assert (first, third) == ("<a>", "<c>")
    assert isinstance(failed, errors.BadRequestError)
    assert isinstance(failed, langchain.ModelInvalidRequestError)
    with pytest.raises(langchain.ModelInvalidRequestError):
        face.many(model, ["a", "bad", "c"], config)


def test_a_failed_prompt_of_a_generate_ends_the_others(face: Face, serve: Serve) -> None:
    seen = Seen()
    with pytest.raises(langchain.ModelInvalidRequestError):
        face.generated(text_model(serve(echo)), ["a", "bad"], callbacks=[seen])
    assert [type(error).__name__ for error in seen.errors] == ["BadRequestError"] * 2


async def test_the_other_prompts_of_a_failed_generate_are_hung_up(serve: Serve) -> None:
    asked, never = Gate(), Gate()

    def script(request: GenerationRequest) -> Answer:
        if asked_text(request) == "bad":
            return Answer(pieces=[], hold={0: asked}, failure=Refusal(5004, "no", 400))
        asked.open()
        return Answer("late", hold={0: never})

    server = serve(script)
    with pytest.raises(langchain.ModelInvalidRequestError):
        await text_model(server, timeout=PATIENCE, max_retries=0).agenerate(["long", "bad"])
    (long,) = [record for record in server.requests if asked_text_of(record.body) == "long"]
    assert await asyncio.to_thread(long.wait) == "disconnected"


def test_prompts_are_all_looked_at_before_one_is_sent(face: Face, serve: Serve) -> None:
    server = serve(echo)
    with pytest.raises(langchain.ModelInvalidRequestError, match="prompt is empty"):
        face.generated(text_model(server), ["a", ""])
    with pytest.raises(langchain.ContextOverflowError):
        face.generated(text_model(server), ["a", "word " * 30_000])
    assert server.requests == []
    assert face.generated(text_model(server), []).generations == []


@EVERY_DIALECT
def test_what_is_known_of_an_answer_is_in_its_generation(face: Face, serve: Serve) -> None:
    seen = Seen()
    model = text_model(serve(sunny), callbacks=[seen])
    result = face.generated(model, ["hi"])
    "".join(face.pieces(model, "hi"))
    info = result.generations[0][0].generation_info
    assert (info["finish_reason"], info["token_usage"], info["model_name"]) == ("stop", USAGE, DEFAULT_MODEL)
    assert info["request_id"].endswith("-LOC")
    assert info["cost_usd"] > 0
    assert result.llm_output == {"token_usage": USAGE, "model_name": DEFAULT_MODEL}
    whole, streamed = seen.results
    assert whole.llm_output == result.llm_output
    assert streamed.generations[0][0].text == SUNNY
    told = streamed.generations[0][0].generation_info
    assert told is not None
    assert told | {"request_id": ""} == info | {"request_id": ""}


@EVERY_DIALECT
def test_a_stop_at_max_tokens_is_told(face: Face, serve: Serve) -> None:
    model = text_model(serve(lambda _: Answer("cut", finish_reason="length")), max_tokens=1)
    assert face.generated(model, ["hi"]).generations[0][0].generation_info["finish_reason"] == "length"


@EVERY_DIALECT
@pytest.mark.parametrize("via", ["stream", "field", "keyword"])
def test_callbacks_are_told_of_the_start_each_piece_and_the_end(face: Face, serve: Serve, via: str) -> None:
    seen = Seen()
    model = text_model(serve(sunny), streaming=via == "field", temperature=0.5)
    config = {"callbacks": [seen], "tags": ["t"]}
    if via == "stream":
        assert "".join(face.pieces(model, "hi", config)) == SUNNY
    else:
        keyword = {"streaming": True} if via == "keyword" else {}
        assert face.whole(model, "hi", config, **keyword) == SUNNY
    ((prompt, told),) = seen.started
    assert (prompt, told["tags"]) == ("hi", ["t"])
    assert told["invocation_params"]["temperature"] == 0.5
    assert (told["metadata"]["ls_provider"], told["metadata"]["ls_model_type"]) == ("cloudflare", "llm")
    assert seen.tokens == PIECES
    (result,) = seen.results
    generation = result.generations[0][0]
    assert generation.text == SUNNY
    assert generation.generation_info is not None
    assert generation.generation_info["token_usage"] == USAGE
    if via != "stream":
        assert result.llm_output == {"token_usage": USAGE, "model_name": DEFAULT_MODEL}


def test_callbacks_know_a_call_by_its_keywords_as_well(face: Face, serve: Serve) -> None:
    seen = Seen()
    face.whole(text_model(serve(sunny)).bind(temperature=0.7), "hi", {"callbacks": [seen]}, stop=["x"])
    ((_, told),) = seen.started
    assert (told["invocation_params"]["temperature"], told["invocation_params"]["stop"]) == (0.7, ["x"])


def test_callbacks_are_told_of_retries(face: Face, serve: Serve) -> None:
    said = json.dumps({"result": None, "success": False, "errors": [{"code": 3040, "message": "busy"}]})
    busy = RawReply(said.encode(), 429, headers={"Retry-After": "0"})
    seen = Seen()
    model = text_model(serve([busy, busy, "done", busy, "done"]))
    assert face.whole(model, "hi", {"callbacks": [seen]}) == "done"
    assert "".join(face.pieces(model, "hi", {"callbacks": [seen]})) == "done"
    assert seen.retries == [1, 2, 1]


async def test_events_show_each_piece(serve: Serve) -> None:
    events = [event async for event in text_model(serve(sunny)).astream_events("hi", version="v2")]
    pieces = [event["data"]["chunk"] for event in events if event["event"] == "on_llm_stream"]
    assert [piece for piece in pieces if piece] == PIECES


def test_leaving_a_stream_early_closes_its_connection(serve: Serve) -> None:
    server = serve(lambda _: Answer(pieces=iter(lambda: "word ", None)))
    for text in text_model(server).stream("hi"):
        assert text == "word "
        break
    assert server.requests[0].wait() == "disconnected"


async def test_leaving_an_async_stream_early_closes_its_connection(serve: Serve) -> None:
    server = serve(lambda _: Answer(pieces=iter(lambda: "word ", None)))
    async for text in text_model(server).astream("hi"):
        assert text == "word "
        break
    assert await asyncio.to_thread(server.requests[0].wait) == "disconnected"


def test_the_cost_of_several_prompts_is_tracked(face: Face, serve: Serve) -> None:
    with CostTracker() as costs:
        face.generated(text_model(serve(sunny)), ["a", "b"])
    assert costs.prompt_tokens == 22


# The cache


def test_a_cached_answer_is_not_asked_for_again(face: Face, serve: Serve) -> None:
    server = serve(sunny)
    model = text_model(server, cache=InMemoryCache())
    first = face.generated(model, ["a", "b"])
    again = face.generated(model, ["b", "c", "a"])
    assert len(server.requests) == 3
    assert again.generations[0] == first.generations[1]
    assert face.whole(model, "a") == SUNNY
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    "other",
    [
        lambda model: model.bind(temperature=0.9),
        lambda model: model.bind(raw=True),
        lambda model: model.bind(stop=["."]),
        lambda model: model.model_copy(update={"stop": ["."]}),
    ],
    ids=["keyword", "raw", "stop keyword", "stop field"],
)
def test_an_answer_to_other_settings_is_not_taken_from_the_cache(
    face: Face, serve: Serve, other: Callable[[WorkersAILLM], Any]
) -> None:
    server = serve(sunny)
    model = text_model(server, cache=InMemoryCache())
    for _ in range(2):
        face.whole(model, "a")
        face.whole(other(model), "a")
    assert len(server.requests) == 2


def test_an_answer_of_another_model_or_address_is_not_taken_from_the_cache(face: Face, serve: Serve) -> None:
    here, there = serve("here"), serve("there")
    model = text_model(here, cache=InMemoryCache())
    assert face.whole(model, "a") == "here"
    assert face.whole(model.model_copy(update={"base_url": there.base_url}), "a") == "there"
    with pytest.raises(langchain.ModelNotFoundError):  # the local server has one model
        face.whole(model.bind(model="@cf/other/model"), "a")


@pytest.mark.parametrize("kind", [ChatWorkersAI, WorkersAILLM])
def test_a_changed_setting_is_no_longer_answered_from_the_cache(serve: Serve, kind: Callable[..., Any]) -> None:
    server = serve(sunny)
    model = kind(**connection(server), cache=InMemoryCache(), temperature=0.1)
    model.invoke("a")
    copy = model.model_copy(update={"temperature": 0.2})
    model.temperature = 0.3
    for each in (copy, model, copy, model):
        each.invoke("a")
    assert [record.body["temperature"] for record in server.requests] == [0.1, 0.2, 0.3]


# Errors


@pytest.mark.parametrize("asked_whole", [True, False], ids=["whole", "stream"])
@pytest.mark.parametrize(
    ("refusal", "theirs", "ours"),
    [
        (Refusal(10000, "no", 401), langchain.ModelAuthenticationError, errors.AuthenticationError),
        (Refusal(3040, "no", 429), langchain.ModelRateLimitError, errors.RateLimitError),
        (Refusal(5005, "no", 405), langchain.ModelInvalidRequestError, errors.BadRequestError),
        (Refusal(5021, "no", 413), langchain.ContextOverflowError, errors.ContextWindowExceededError),
        (Refusal(5000, "no", 500), langchain.ModelAPIError, errors.ServerError),
    ],
)
def test_an_error_is_ours_and_langchains(
    face: Face,
    serve: Serve,
    asked_whole: bool,
    refusal: Refusal,
    theirs: type[langchain.ModelError],
    ours: type[errors.WorkersAIError],
) -> None:
    seen = Seen()
    model = text_model(serve(lambda _: refusal), max_retries=0, callbacks=[seen])
    with pytest.raises(theirs) as caught:
        (face.whole if asked_whole else face.pieces)(model, "hi")
    assert isinstance(caught.value, ours)
    assert seen.errors == [caught.value]


@EVERY_DIALECT
def test_a_failed_stream_keeps_what_came_in_the_error(face: Face, serve: Serve) -> None:
    model = text_model(serve([Answer(pieces=["Hel"], failure=Refusal(5000, "no", 500))]))
    with pytest.raises(langchain.ModelAPIError) as caught:
        face.pieces(model, "hi")
    assert isinstance(caught.value, errors.ServerError)
    assert caught.value.partial is not None
    assert caught.value.partial.text == "Hel"


def test_what_a_call_cannot_ask_for_is_refused_before_a_request(face: Face, serve: Serve) -> None:
    server = serve(sunny)
    with pytest.raises(langchain.ModelInvalidRequestError, match="top_k: must be between 1 and 50"):
        face.whole(text_model(server), "hi", top_k=51)
    with pytest.raises(langchain.ModelInvalidRequestError, match=r"tempertaure is no option.*Did you mean temperature"):
        face.pieces(text_model(server), "hi", tempertaure=1)
    for name, value in (("tools", [{"name": "f"}]), ("response_format", {"type": "json_object"})):
        for way in (face.whole, face.pieces):
            with pytest.raises(langchain.ModelInvalidRequestError, match=f"{name} is no option.*use ChatWorkersAI"):
                way(text_model(server), "hi", **{name: value})
        with pytest.raises(langchain.ModelInvalidRequestError, match=f"{name} is no option.*use ChatWorkersAI"):
            face.in_bulk(text_model(server), ["hi"], **{name: value})
    with pytest.raises(errors.BadRequestError, match="account_id can't be changed for one call"):
        face.whole(text_model(server), "hi", account_id="other")
    with pytest.raises(langchain.ModelInvalidRequestError, match="prompt is empty"):
        face.whole(text_model(server), "")
    assert server.requests == []


def test_a_field_out_of_its_range_is_told_without_the_token() -> None:
    with pytest.raises(ValidationError, match=r"(?s)temperature.*must be between 0 and 5") as caught:
        WorkersAILLM(account_id="a", api_token="very-secret", temperature=5.5)
    assert "very-secret" not in str(caught.value)
    with pytest.raises(ValidationError, match=r"(?s)tempertaure.*not permitted"):
        WorkersAILLM(account_id="a", api_token="t", tempertaure=1)  # type: ignore[call-arg]
    with pytest.raises(errors.ConfigurationError, match="CLOUDFLARE_ACCOUNT_ID"):
        WorkersAILLM(api_token="t")


# Identity, storage


def test_tracing_is_told_the_provider_the_model_and_the_settings() -> None:
    model = WorkersAILLM(account_id="acc", api_token="very-secret", temperature=0.5, max_tokens=7, stop=["x"])
    assert model._get_ls_params() == {
        "ls_provider": "cloudflare",
        "ls_model_type": "llm",
        "ls_model_name": DEFAULT_MODEL,
        "ls_temperature": 0.5,
        "ls_max_tokens": 7,
        "ls_stop": ["x"],
    }
    assert model._llm_type == "workersai"
    settings = {"model": DEFAULT_MODEL, "temperature": 0.5, "max_tokens": 7, "stop": ["x"]}
    assert model._identifying_params == settings
    assert model.asdict() == settings | {"_type": "workersai", "base_url": "https://api.cloudflare.com/client/v4"}
    assert "very-secret" not in repr(model) + str(model)


@pytest.mark.filterwarnings("ignore:The function `load` is in beta")
def test_it_serialises_without_its_token_and_reads_it_from_the_environment_again(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(sunny)
    model = text_model(server, temperature=0.5, stop=["x"], raw=True, rate_limit=RateLimit(5))
    assert server.api_token not in dumps(model)
    assert dumpd(model)["kwargs"]["api_token"] == {"lc": 1, "type": "secret", "id": ["CLOUDFLARE_API_TOKEN"]}
    monkeypatch.setenv("CLOUDFLARE_API_TOKEN", server.api_token)
    kinds = [WorkersAILLM, RunnableBinding]
    options: dict[str, Any] = {"valid_namespaces": ["langchain_workersai"], "allowed_objects": kinds}
    again = load(dumpd(model), secrets_from_env=True, **options)
    assert isinstance(again, WorkersAILLM)
    assert (again.temperature, again.stop, again.raw, again.rate_limit) == (0.5, ["x"], True, RateLimit(5))
    assert again.api_token == SecretStr(server.api_token)
    bound = load(dumpd(text_model(server).bind(seed=3)), secrets_from_env=True, **options)
    assert bound.invoke("hi") == SUNNY
    assert server.requests[-1].body["seed"] == 3


def test_a_pickled_model_answers(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    server = serve(sunny)
    monkeypatch.setenv("CLOUDFLARE_API_TOKEN", server.api_token)
    model = text_model(server, temperature=0.5)
    assert model.invoke("hi") == SUNNY
    stored = pickle.dumps(model)
    assert server.api_token.encode() not in stored
    assert pickle.loads(stored).invoke("hi") == SUNNY  # noqa: S301 - our own bytes


# Counts


def test_texts_are_counted_as_the_transport_counts_them() -> None:
    model = WorkersAILLM(account_id="a", api_token="t")
    assert model.get_num_tokens("Hello, world!") == 4
    assert model.get_token_ids("Hello, world!") == [9906, 11, 1917, 0]
    asked = [SystemMessage("Be brief."), HumanMessage("Hello?")]
    whole = count_tokens([{"role": "user", "content": "System: Be brief.\nHuman: Hello?"}])
    assert model.get_num_tokens_from_messages(asked) == whole
    assert (
        trim_messages(
            asked,
            token_counter=model,
            max_tokens=whole - 1,
            strategy="last",
        )
        == asked[1:]
    )
    with pytest.raises(langchain.ModelInvalidRequestError, match="tools can't be given"):
        model.get_num_tokens_from_messages(asked, tools=[{"name": "f"}])


def test_a_raw_prompt_is_counted_without_a_template_and_its_markup_as_the_models_tokens() -> None:
    model = WorkersAILLM(account_id="a", api_token="t", raw=True)
    prompt = MARKUP.format(question="Hello, world!")
    ids = model.get_token_ids(prompt)
    assert ids == [128000, 128006, 882, 128007, 271, 9906, 11, 1917, 0, 128009, 128006, 78191, 128007, 271]
    assert model.get_num_tokens(prompt) == 1 + len(ids)
    assert model.get_num_tokens_from_messages([HumanMessage("Hello?")]) == model.get_num_tokens("Human: Hello?")
    completing = WorkersAILLM(account_id="a", api_token="t", prompt_form="completion")
    assert completing.get_token_ids(prompt) == ids
    assert completing.get_num_tokens(prompt) == 1 + len(ids)
    asked: list[BaseMessage] = [HumanMessage("Hello?")]
    assert completing.get_num_tokens_from_messages(asked) == model.get_num_tokens_from_messages(asked)


def test_raw_contradicts_the_chat_form() -> None:
    with pytest.raises(ValidationError, match="can't be 'chat' with raw=True"):
        WorkersAILLM(account_id="a", api_token="t", raw=True, prompt_form="chat")


@pytest.mark.parametrize("kind", [ChatWorkersAI, WorkersAILLM])
def test_a_tokenizer_of_ones_own_counts(kind: Callable[..., Any]) -> None:
    model = kind(account_id="a", api_token="t", raw=True, custom_get_token_ids=lambda text: list(text.encode()))
    assert (model.get_num_tokens("abc"), model.get_token_ids("abc")) == (3, [97, 98, 99])


# Bulk work


def test_bulk_work_goes_by_the_batch_api_with_texts_in_and_texts_out(face: Face, serve: Serve) -> None:
    server = serve(echo)
    seen = Seen()
    model = text_model(server, max_tokens=7).bind(seed=3)
    config = {"callbacks": [seen], "tags": ["bulk"]}
    answers = face.in_bulk(model, ["a", [("human", "b")], "bad"], config, return_exceptions=True, mode="batch", **QUICK)
    assert answers[:2] == ["<a>", "<Human: b>"]
    assert isinstance(answers[2], langchain.ModelInvalidRequestError)
    (body,) = [record.body for record in server.requests if "requests" in record.body]
    turns = [rendered([{"role": "user", "content": text}]) for text in ("a", "Human: b", "bad")]
    assert [(item["prompt"], item["seed"]) for item in body["requests"]] == [(turn, 3) for turn in turns]
    assert [prompt for prompt, _ in seen.started] == ["a", "Human: b", "bad"]
    assert {kwargs["invocation_params"]["seed"] for _, kwargs in seen.started} == {3}
    assert sorted(result.generations[0][0].text for result in seen.results) == ["<Human: b>", "<a>"]
    assert all(isinstance(result.generations[0][0], Generation) for result in seen.results)
    assert seen.errors == [answers[2]]


def test_raw_prompts_go_as_single_calls_of_a_bulk_job(face: Face, serve: Serve) -> None:
    server = serve(echo)
    assert face.in_bulk_as_completed(text_model(server, raw=True), ["a", "b"], **QUICK) == {0: "<a>", 1: "<b>"}
    assert [record.body["raw"] for record in server.requests] == [True, True]


def test_a_finetune_is_sent_by_its_name(face: Face, serve: Serve) -> None:
    server = serve(sunny)
    model = text_model(server, lora="my-finetune")
    with pytest.raises(langchain.ModelInvalidRequestError, match="my-finetune"):  # the local server has none
        face.whole(model, "hi", raw=True)
    with pytest.raises(langchain.ModelInvalidRequestError):
        face.pieces(model, "hi", lora="other")
    assert face.whole(model, "hi", lora=None) == SUNNY
    assert [record.body.get("lora") for record in server.requests] == ["my-finetune", "other", None]


# The real small model


@pytest.mark.model
def test_the_real_model_answers_whole_streamed_and_raw(face: Face, smollm: LocalServer) -> None:
    model = text_model(smollm, temperature=0, max_tokens=12, seed=1)
    whole = face.whole(model, "Name a colour.")
    assert whole.strip()
    assert "".join(face.pieces(model, "Name a colour.")) == whole
    markup = "<|im_start|>user\nName a colour.<|im_end|>\n<|im_start|>assistant\n"  # its own, not Llama's
    raw = face.generated(model, [markup], raw=True).generations[0][0]
    assert raw.text.strip()
    assert raw.generation_info["token_usage"]["completion_tokens"] <= 12
