"""Recordings of each kind of exchange: how they are made (``make record``), and how they are replayed.

With an account in the environment they are made from the service, else from the local server with SmolLM2; each
cassette says which. Token and account are in none of them.
"""

from __future__ import annotations

import datetime as dt
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import vcr
import yaml

from tests.live import account
from workersai import Client, Message, Settings, ToolCall
from workersai.errors import AuthenticationError, ContextWindowExceededError, ModelNotFoundError, WorkersAIError
from workersai.local import LocalServer

CASSETTES = Path(__file__).parent / "cassettes"
# What stands in a cassette for where it was recorded, and who asked.
REPLAYED: dict[str, Any] = {
    "base_url": "https://api.cloudflare.com/client/v4",
    "account_id": "ACCOUNT",
    "api_token": "TOKEN",
    "max_retries": 0,
}


def recordable() -> dict[str, Any]:
    """The arguments of a client that vcrpy can record and replay: it knows httpx's connections, and not ours."""
    return {**REPLAYED, "http_client": httpx.Client()}


STEADY: dict[str, Any] = {"temperature": 0, "seed": 1, "max_tokens": 40}
_ASKED_HEADERS = ("content-type", "x-session-affinity")
_KEPT_HEADERS = ("content-type", "cf-ray", "retry-after")


def get_weather(city: str) -> str:
    """The weather of a city."""
    return f"{city}: sunny"


PERSON = {
    "title": "Person",
    "type": "object",
    "properties": {"name": {"type": "string", "description": "The name"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
}
CALLED = [
    Message("user", "What is the weather in Paris?"),
    Message("assistant", "", tool_calls=[ToolCall("c1", "get_weather", {"city": "Paris"})]),
    Message("tool", "Paris: sunny", tool_call_id="c1"),
]


def _whole(model_input: Any, **options: Any) -> Callable[[Client], Any]:
    return lambda client: client.run(model_input, **STEADY, **options)


def _streamed(model_input: Any, **options: Any) -> Callable[[Client], Any]:
    return lambda client: list(client.stream(model_input, **STEADY, **options))


def _with_wrong_token(client: Client) -> Any:
    known = Settings(account_id=client.settings.account_id, base_url=client.settings.base_url, api_token="wrong")
    with Client(settings=known, max_retries=0, http_client=httpx.Client()) as stranger:
        return stranger.run("hi", **STEADY)


TOOL: dict[str, Any] = {"tools": [get_weather], "tool_choice": "get_weather"}
QUESTION = [Message("system", "Be brief."), Message("user", "What is the capital of France?")]
EXCHANGES: dict[str, Callable[[Client], Any]] = {
    "prompt": _whole("The capital of France is", prompt_form="completion"),
    "messages": _whole(QUESTION),
    "stream": _streamed(QUESTION),
    "tool-call": _whole("What is the weather in Paris?", **TOOL),
    "tool-call-stream": _streamed("What is the weather in Paris?", **TOOL),
    "tool-result": _whole(CALLED, tools=[get_weather]),
    "json-schema": _whole("Ann is five.", response_format=PERSON),
    "session": _whole(QUESTION, session_affinity="recorded"),
    "no-such-model": lambda client: client.run("hi", model="@cf/none/other", **STEADY),
    "wrong-token": _with_wrong_token,
    "window": lambda client: client.run("a " * 24_100, on_overflow="send", **STEADY),
}
REFUSED: dict[str, type[WorkersAIError]] = {
    "no-such-model": ModelNotFoundError,
    "wrong-token": AuthenticationError,
    "window": ContextWindowExceededError,
}


class _Told:
    """YAML that says, before all else, where it was recorded."""

    def __init__(self, source: str) -> None:
        self._head = {"recorded_from": source, "recorded_on": dt.datetime.now(dt.timezone.utc).date()}

    def serialize(self, cassette: dict[str, Any]) -> str:
        text: str = yaml.safe_dump({**self._head, **cassette}, sort_keys=False, allow_unicode=True, width=110)
        return text

    def deserialize(self, text: str) -> Any:
        return yaml.safe_load(text)


def _scrubbed_request(request: Any) -> Any:
    if "/accounts/" not in request.uri:
        return None  # the local server's own talk with its model
    place = f"{REPLAYED['base_url']}/accounts/{REPLAYED['account_id']}/"
    request.uri = re.sub(r"^.*/accounts/[^/]+/", place, request.uri)
    request.headers = {name: value for name, value in request.headers.items() if name.lower() in _ASKED_HEADERS}
    return request


def _scrubbed_response(response: dict[str, Any], secrets: Mapping[str, str]) -> dict[str, Any]:
    headers = {name: value for name, value in response["headers"].items() if name.lower() in _KEPT_HEADERS}
    body = response["body"]["string"]
    for secret, name in secrets.items():
        body = body.replace(secret.encode(), name.encode()) if isinstance(body, bytes) else body.replace(secret, name)
    return {**response, "headers": headers, "body": {"string": body}}


@contextmanager
def cassette(
    name: str, *, record_from: str | None = None, secrets: Mapping[str, str] | None = None, folder: Path = CASSETTES
) -> Iterator[None]:
    """Replays a cassette, with no network at all; with ``record_from``, records it, and the names of the secrets."""
    machine = vcr.VCR(match_on=["method", "uri", "headers", "body"])
    machine.register_serializer("told", _Told(record_from or ""))
    with machine.use_cassette(
        str(folder / f"{name}.yaml"),
        serializer="told",
        record_mode=vcr.mode.ALL if record_from else vcr.mode.NONE,
        before_record_request=_scrubbed_request,
        before_record_response=lambda response: _scrubbed_response(response, secrets or {}),
        decode_compressed_response=True,
        allow_playback_repeats=True,
    ):
        yield


def record(client: Client, name: str, *, source: str, folder: Path) -> None:
    """Records an exchange.

    Raises:
        SystemExit: it ended in another way than it should, or can't be read.
    """
    account_id, token = client.settings.account_id, client.settings.api_token.get_secret_value()
    ended = "an answer"
    with cassette(name, record_from=source, secrets={token: "TOKEN", account_id: "ACCOUNT"}, folder=folder):
        try:
            EXCHANGES[name](client)
        except WorkersAIError as error:
            ended = type(error).__name__
    wanted = REFUSED[name].__name__ if name in REFUSED else "an answer"
    if ended != wanted:
        sys.exit(f"{name}: {ended}, where there should be {wanted}. No recording was replaced.")
    if "!!binary" in (folder / f"{name}.yaml").read_text():
        sys.exit(f"{name}: the reply is no text. No recording was replaced.")
    print(f"{name}: {ended}")


def main() -> None:
    """Records all exchanges anew, and replaces the recordings once all are there."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        settings, source = account(), "Cloudflare Workers AI"
        if settings is None:
            server, source = stack.enter_context(LocalServer(strict=True)), "the local server, with SmolLM2"
            settings = Settings(base_url=server.base_url, account_id=server.account_id, api_token=server.api_token)
        http = stack.enter_context(httpx.Client())
        client = stack.enter_context(Client(settings=settings, max_retries=0, http_client=http))
        for name in EXCHANGES:
            record(client, name, source=source, folder=folder)
        CASSETTES.mkdir(exist_ok=True)
        for name in EXCHANGES:
            shutil.copyfile(folder / f"{name}.yaml", CASSETTES / f"{name}.yaml")
    print(f"Recorded {len(EXCHANGES)} exchanges from {source}.")


if __name__ == "__main__":
    main()
