"""Recorded exchanges, replayed with no server at all."""

import asyncio
import gzip
import json
import socket
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from vcr.errors import CannotOverwriteExistingCassetteException

from langchain_workersai import ChatWorkersAI
from llamaindex_workersai import WorkersAI
from tests.live import account
from tests.recording import CASSETTES, EXCHANGES, QUESTION, REFUSED, REPLAYED, STEADY, cassette, record, recordable
from workersai import AsyncClient, Client, Completion, Settings
from workersai.local import LocalServer, RawReply

SOURCES = {"Cloudflare Workers AI", "the local server, with SmolLM2"}


@pytest.fixture(autouse=True)
def _without_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("a replay needs no network")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def completion_of(name: str) -> Completion:
    with cassette(name), Client(**recordable()) as client:
        result: Any = EXCHANGES[name](client)
    completion: Completion = result[-1].completion if isinstance(result, list) else result
    return completion


@pytest.mark.parametrize("name", EXCHANGES)
def test_a_cassette_says_where_it_was_recorded_and_holds_no_secret(name: str) -> None:
    text = (CASSETTES / f"{name}.yaml").read_text()
    told = yaml.safe_load(text)
    assert told["recorded_from"] in SOURCES
    assert all("/accounts/ACCOUNT/" in one["request"]["uri"] for one in told["interactions"])
    assert "authorization" not in text.lower()
    assert "bearer" not in text.lower()


@pytest.mark.parametrize("name", [name for name in EXCHANGES if name not in REFUSED])
def test_a_recorded_answer_is_read(name: str) -> None:
    completion = completion_of(name)
    assert completion.text or completion.tool_calls
    assert completion.usage is not None
    assert completion.usage.total_tokens > 0
    assert completion.request_id


@pytest.mark.parametrize("name", REFUSED)
def test_a_recorded_refusal_is_its_error(name: str) -> None:
    with pytest.raises(REFUSED[name]) as caught:
        completion_of(name)
    assert caught.value.request_id


@pytest.mark.parametrize("name", ["tool-call", "tool-call-stream"])
def test_a_recorded_call_is_a_call(name: str) -> None:
    (call,) = completion_of(name).tool_calls
    assert call.name == "get_weather"
    assert set(call.arguments) == {"city"}


def test_a_stream_and_a_whole_answer_are_the_same() -> None:
    assert completion_of("stream").text == completion_of("messages").text


def test_every_face_replays_the_same_exchange() -> None:
    expected = completion_of("messages").text
    chat, llm = ChatWorkersAI(**recordable(), **STEADY), WorkersAI(**recordable(), **STEADY)
    asked = [(message.role, message.content) for message in QUESTION]

    async def run() -> str:
        async with AsyncClient(**REPLAYED, http_client="httpx") as client:
            return (await client.run(QUESTION, **STEADY)).text

    with cassette("messages"):
        assert asyncio.run(run()) == expected
        assert chat.invoke(asked).text == expected
    with cassette("prompt"):
        assert llm.complete("The capital of France is", prompt_form="completion").text == completion_of("prompt").text


def test_a_request_is_only_matched_with_the_headers_that_matter() -> None:
    with cassette("session"), Client(**recordable()) as client, pytest.raises(CannotOverwriteExistingCassetteException):
        client.run(QUESTION, session_affinity="another", **STEADY)


def test_a_recording_of_compressed_bytes_is_read_and_scrubbed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    token, number = "s3cret-token", "0123456789abcdef"
    body = json.dumps({"result": {"response": f"{token} of {number}"}, "success": True}).encode()
    headers = {"content-encoding": "gzip", "x-whose": number}
    script = RawReply(gzip.compress(body), headers=headers)
    with (
        LocalServer(lambda _: script, account_id=number, api_token=token, faults=[None, "3040"]) as server,
        httpx.Client() as http,
        Client(base_url=server.base_url, account_id=number, api_token=token, max_retries=0, http_client=http) as client,
    ):
        record(client, "prompt", source="the local server", folder=tmp_path)
        with pytest.raises(SystemExit, match="messages: RateLimitError, where there should be an answer"):
            record(client, "messages", source="the local server", folder=tmp_path)
    text = (tmp_path / "prompt.yaml").read_text()
    assert token not in text
    assert number not in text
    assert "x-whose" not in text
    with cassette("prompt", folder=tmp_path), Client(**recordable()) as client:
        assert EXCHANGES["prompt"](client).text == "TOKEN of ACCOUNT"


def test_an_account_is_cloudflares_or_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert account() is None
    monkeypatch.setenv("CF_ACCOUNT_ID", "a")
    monkeypatch.setenv("CF_AI_API_TOKEN", "t")
    assert account() == Settings(account_id="a", api_token="t")
    monkeypatch.setenv("CLOUDFLARE_BASE_URL", "http://127.0.0.1:8787/client/v4")
    with pytest.raises(SystemExit, match="unset it"):
        account()
