"""The token: sent to the one host that it is for, and seen nowhere else."""

import asyncio
import copy
import json
import logging
import pickle
import socket
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.load import dumps
from langchain_core.tracers.run_collector import RunCollectorCallbackHandler
from llama_index.core.instrumentation import get_dispatcher  # type: ignore[attr-defined]  # it is their public way
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index_instrumentation.base import BaseEvent
from pydantic import ValidationError

from langchain_workersai import ChatWorkersAI
from llamaindex_workersai import WorkersAI
from tests.support import Driver
from workersai import AsyncClient, Client, Settings
from workersai.errors import APITimeoutError, BadRequestError, ConfigurationError, WorkersAIError
from workersai.local import LocalServer, RawReply
from workersai.local.faults import Faults

TESTS = str(Path(__file__).parent)
TOKEN = "s3cr3t-token-value"
ACCOUNT: dict[str, Any] = {"account_id": "a", "api_token": TOKEN}
HOLDERS: list[Any] = [Settings, Client, AsyncClient, ChatWorkersAI, WorkersAI]


def connected(server: LocalServer) -> dict[str, Any]:
    return {"base_url": server.base_url, "account_id": server.account_id, "api_token": TOKEN, "max_retries": 0}


def serving(faults: Faults | None = None) -> LocalServer:
    return LocalServer(lambda _: "It is sunny.", api_token=TOKEN, faults=faults)


@pytest.mark.parametrize("holder", HOLDERS)
def test_no_repr_no_str_and_no_pickle_holds_it(holder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    held = holder(**ACCOUNT)
    pickled = pickle.dumps(held)
    assert TOKEN not in repr(held) + str(held) + repr(pickled)
    with pytest.raises(ConfigurationError, match=r"A pickle holds no token\. .* CLOUDFLARE_API_TOKEN"):
        pickle.loads(pickled)  # noqa: S301 - our own bytes
    monkeypatch.setenv("CLOUDFLARE_API_TOKEN", "another")
    again = pickle.loads(pickled)  # noqa: S301 - our own bytes
    assert settings_of(again).api_token.get_secret_value() == "another"
    for same in (copy.copy(held), copy.deepcopy(held)):
        assert settings_of(same).api_token.get_secret_value() == TOKEN, "a copy in memory is no pickle"


def settings_of(holder: Any) -> Settings:
    settings: Settings = holder if isinstance(holder, Settings) else getattr(holder, "_client", holder).settings
    return settings


def shown(error: BaseException) -> str:
    """A traceback as the tools print it that show every local variable."""
    told: traceback.TracebackException | None = traceback.TracebackException.from_exception(error, capture_locals=True)
    text = ""
    while told is not None:
        # The tests' own frames hold the token, as any program's do that passes it on.
        told.stack[:] = [frame for frame in told.stack if not frame.filename.startswith(TESTS)]
        text += "".join(told.format(chain=False))
        told = told.__cause__ or told.__context__
    assert "self = " in text
    return text


FAILURES = ["3040", "10000", "html", "cut", "cut:10", "garbage", "stall", "event:3040", "empty"]


@pytest.mark.parametrize("fault", FAILURES)
def test_no_error_shows_it_with_all_its_local_variables(
    driver: Driver, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG), serving(fault) as server:
        for call in (driver.run, driver.stream):
            with pytest.raises(WorkersAIError) as caught:
                call(connected(server), "hi", timeout=0.2)
            assert TOKEN not in shown(caught.value) + repr(caught.value) + repr(caught.value.facts())
    assert caplog.text
    assert TOKEN not in caplog.text


def test_nor_does_a_connection_that_is_refused(driver: Driver) -> None:
    with pytest.raises(WorkersAIError) as caught:
        driver.run({**ACCOUNT, "base_url": "http://127.0.0.1:9", "max_retries": 0}, "hi")
    assert TOKEN not in shown(caught.value)


def test_nor_does_a_connection_that_takes_no_more(driver: Driver) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:  # which reads nothing
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        with pytest.raises(APITimeoutError, match="WriteTimeout") as caught:
            driver.run(
                {**ACCOUNT, "base_url": address, "max_retries": 0}, "x" * 9_000_000, model="@cf/a/long", timeout=0.2
            )
    assert TOKEN not in shown(caught.value)


@pytest.mark.parametrize("holder", [Settings, Client, AsyncClient])
@pytest.mark.parametrize("wrong", [{"account_id": "a b"}, {"api_token": f"{TOKEN}\r\nX: y"}, {"base_url": "ftp://x"}])
def test_nor_does_an_account_that_cannot_be_right(holder: Any, wrong: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        holder(**{**ACCOUNT, **wrong})
    assert TOKEN not in shown(caught.value)


@pytest.mark.parametrize("holder", [ChatWorkersAI, WorkersAI])
@pytest.mark.parametrize("wrong", [{"temperature": 9}, {"nonsense": 1}, {"http_client": 5}])
def test_pydantics_own_errors_do_not_hold_it(holder: Any, wrong: dict[str, Any]) -> None:
    for token in ({"api_token": TOKEN}, {"api_key": TOKEN}):
        with pytest.raises(ValidationError) as caught:
            holder(account_id="a", **token, **wrong)
        assert TOKEN not in str(caught.value) + repr(caught.value.errors()) + caught.value.json()


@pytest.mark.parametrize("holder", [ChatWorkersAI, WorkersAI])
def test_nor_those_of_a_name_that_is_almost_the_tokens(holder: Any) -> None:
    for wrong in ("cloudflare_api_token", "apitoken", "CF_API_KEY".lower()):
        with pytest.raises(ValidationError) as caught:
            holder(**ACCOUNT, **{wrong: TOKEN})
        assert TOKEN not in str(caught.value) + repr(caught.value.errors()) + caught.value.json()
    with pytest.raises(ConfigurationError, match="api_token must be a string, not list") as refused:
        holder(account_id="a", api_token=[TOKEN])
    assert TOKEN not in repr(refused.value)


@pytest.mark.parametrize("holder", [ChatWorkersAI, WorkersAI])
def test_an_assignment_is_refused_without_showing_it(holder: Any) -> None:
    model = holder(account_id="a", api_token="another")
    for name in ("api_token", "api_key"):
        with pytest.raises(ConfigurationError, match=f"{name} can't be changed") as caught:
            setattr(model, name, TOKEN)
        assert TOKEN not in str(caught.value)
        copied = model.model_copy(update={name: TOKEN})
        assert settings_of(copied).api_token.get_secret_value() == TOKEN
        assert TOKEN not in repr(pickle.dumps(copied)) + repr(copied) + repr(vars(copied))


def test_a_service_that_quotes_it_is_not_quoted(driver: Driver, caplog: pytest.LogCaptureFixture) -> None:
    body = {"errors": [{"code": 3040, "message": f"busy: Authorization: Bearer {TOKEN}"}], "success": False}
    script = RawReply(json.dumps(body).encode(), 429, headers={"Retry-After": "0"})
    with (
        LocalServer(lambda _: script, api_token=TOKEN) as server,
        caplog.at_level(logging.INFO, logger="workersai"),
        pytest.raises(WorkersAIError, match=r"busy: Authorization: Bearer \*\*\*\.") as caught,
    ):
        driver.run({**connected(server), "max_retries": 1}, "hi")
    assert "Trying again" in caplog.text
    assert TOKEN not in caplog.text + repr(caught.value) + repr(pickle.dumps(caught.value))


def test_the_request_of_an_errors_cause_does_not_hold_it(driver: Driver) -> None:
    with serving("cut") as server, pytest.raises(WorkersAIError) as caught:
        driver.run(connected(server), "hi")
    assert isinstance(caught.value.__cause__, httpx.HTTPError)
    assert caught.value.__cause__.request.headers["authorization"] == "***"


class Everything(BaseCallbackHandler):
    """Keeps all that LangChain tells its callbacks."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("on_"):
            return lambda *args, **kwargs: self.told.append((name, args, kwargs))
        return super().__getattribute__(name)


def test_langchains_callbacks_traces_and_stores_do_not_hold_it() -> None:
    everything, runs = Everything(), RunCollectorCallbackHandler()
    with serving() as server:
        llm = ChatWorkersAI(**connected(server))
        llm.invoke("hi", {"callbacks": [everything, runs]})
        list(llm.stream("hi", {"callbacks": [everything, runs]}))
    assert len(runs.traced_runs) == 2
    traced = "".join(run.model_dump_json(exclude={"child_runs"}) for run in runs.traced_runs)
    assert TOKEN not in traced + repr(everything.told)
    stored: list[Callable[[], str]] = [
        lambda: dumps(llm),
        lambda: repr(llm.model_dump()),
        llm.model_dump_json,
        lambda: repr(llm._identifying_params),
        llm._get_llm_string,
        lambda: json.dumps(llm.bind(temperature=1).to_json(), default=repr),
    ]
    assert not [told for told in (store() for store in stored) if TOKEN in told]


def test_llamaindexs_events_and_stores_do_not_hold_it() -> None:
    events: list[BaseEvent] = []

    class Handler(BaseEventHandler):
        def handle(self, event: BaseEvent, **kwargs: Any) -> None:
            events.append(event)

    dispatcher, handler = get_dispatcher(), Handler()
    dispatcher.add_event_handler(handler)
    try:
        with serving() as server:
            llm = WorkersAI(**connected(server))
            llm.complete("hi")
    finally:
        dispatcher.event_handlers.remove(handler)
    assert events
    told = "".join(repr(event) + event.model_dump_json(fallback=repr) for event in events)
    assert TOKEN not in told + llm.to_json() + repr(llm.to_dict()) + repr(llm.model_dump()) + llm.model_dump_json()


# Where it goes


@pytest.mark.parametrize("streamed", [False, True])
def test_a_redirect_does_not_take_it_elsewhere(streamed: bool) -> None:
    seen: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.url.host)
        return httpx.Response(307, headers={"location": "https://elsewhere.example.com/"})

    following = httpx.Client(transport=httpx.MockTransport(answer), follow_redirects=True)
    client = Client(**ACCOUNT, http_client=following)
    with following, pytest.raises(BadRequestError, match="redirect is not followed"):
        list(client.stream("hi")) if streamed else client.run("hi")
    assert seen == ["api.cloudflare.com"]

    async def main() -> None:
        transport = httpx.MockTransport(answer)
        async with httpx.AsyncClient(transport=transport, follow_redirects=True) as http:
            await AsyncClient(**ACCOUNT, http_client=http).run("hi")

    with pytest.raises(BadRequestError, match="redirect is not followed"):
        asyncio.run(main())
    assert seen == ["api.cloudflare.com"] * 2


@pytest.mark.parametrize("bad", ["a\r\nx-evil: 1", "a\nb", "a\x00b", "é", " a", ""])
@pytest.mark.parametrize("option", ["gateway", "session_affinity"])
def test_header_values_cannot_end_the_header(driver: Driver, option: str, bad: str) -> None:
    with pytest.raises(BadRequestError, match=f"{option}: must be printable ASCII"):
        driver.run(ACCOUNT, "hi", **{option: bad})


@pytest.mark.parametrize("bad", ["a\r\nx-evil: 1", "a b", "a\x00b", "tokén"])
def test_a_token_or_an_account_with_control_characters_is_refused(bad: str) -> None:
    with pytest.raises(ConfigurationError, match="api_token holds"):
        Settings(account_id="a", api_token=bad)
    with pytest.raises(ConfigurationError, match="account_id may hold only"):
        Settings(account_id=bad, api_token=TOKEN)


@pytest.mark.parametrize("holder", HOLDERS)
@pytest.mark.parametrize("word", ["verify", "verify_ssl", "insecure"])
def test_no_word_turns_tls_off(holder: Any, word: str) -> None:
    with pytest.raises((TypeError, ValidationError, BadRequestError)):
        holder(**ACCOUNT, **{word: False})
