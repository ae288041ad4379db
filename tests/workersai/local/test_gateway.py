"""The gateway in front of the local server, over raw HTTP, and its clock."""

import asyncio
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message

from tests.support import Serve
from tests.workersai.local.asking import PATIENCE, VERIFY
from workersai.local import Answer, LocalServer, Refusal
from workersai.local.engine import GenerationRequest
from workersai.local.gateway import GatewayCache
from workersai.local.records import RequestRecord

CACHED = {"cf-aig-gateway-id": "g", "cf-aig-cache-ttl": "60"}
MODEL = "@cf/meta/llama-3.3-70b-instruct-fp8-fast"


def counting() -> Any:
    asked: list[GenerationRequest] = []

    def answer(request: GenerationRequest) -> Answer:
        asked.append(request)
        return Answer(pieces=["It ", "is ", f"{len(asked)}."])

    return answer


@pytest.fixture
def server(serve: Serve) -> LocalServer:
    return serve(counting())


def ask(server: LocalServer, headers: dict[str, str], body: Any = None, *, token: str | None = None) -> httpx.Response:
    return httpx.post(
        f"{server.base_url}/accounts/{server.account_id}/ai/run/{MODEL}",
        headers={"authorization": f"Bearer {token or server.api_token}", **headers},
        json=body or {"prompt": "hi"},
        verify=VERIFY,
        timeout=PATIENCE,
        trust_env=False,
    )


def statuses(*responses: httpx.Response) -> list[str | None]:
    return [response.headers.get("cf-aig-cache-status") for response in responses]


def test_an_equal_request_is_answered_from_the_cache(server: LocalServer) -> None:
    first, again = ask(server, CACHED), ask(server, CACHED)
    assert statuses(first, again) == ["MISS", "HIT"]
    assert first.content == again.content
    for name in ("cf-ray", "cf-aig-log-id"):
        assert first.headers[name] != again.headers[name]
        assert len(again.headers.get_list(name)) == 1
    assert [record.wait() for record in server.requests] == ["complete"] * 2


def test_a_stream_is_replayed_byte_for_byte(server: LocalServer) -> None:
    body = {"prompt": "hi", "stream": True}
    first, again = ask(server, CACHED, body), ask(server, CACHED, body)
    assert statuses(first, again) == ["MISS", "HIT"]
    assert first.content == again.content
    assert first.headers["content-type"] == again.headers["content-type"] == "text/event-stream"


@pytest.mark.parametrize(
    "other",
    [
        {**CACHED, "cf-aig-gateway-id": "other"},
        {**CACHED, "cf-aig-cache-key": "k"},
    ],
)
def test_another_gateway_or_key_has_its_own_replies(server: LocalServer, other: dict[str, str]) -> None:
    assert statuses(ask(server, CACHED), ask(server, other), ask(server, other)) == ["MISS", "MISS", "HIT"]


def test_a_key_is_asked_for_in_place_of_the_body(server: LocalServer) -> None:
    keyed = {"cf-aig-gateway-id": "g", "cf-aig-cache-key": "k"}
    first, again = ask(server, keyed, {"prompt": "a"}), ask(server, keyed, {"prompt": "b"})
    assert statuses(first, again) == ["MISS", "HIT"]
    assert first.content == again.content


@pytest.mark.parametrize(
    "headers", [{"cf-aig-gateway-id": "g"}, {**CACHED, "cf-aig-skip-cache": "true"}, {"cf-aig-cache-ttl": "60"}]
)
def test_without_a_word_of_it_there_is_no_cache(server: LocalServer, headers: dict[str, str]) -> None:
    ask(server, CACHED)
    replies = [ask(server, headers) for _ in range(2)]
    assert statuses(*replies) == [None, None]
    assert [reply.json()["result"]["response"] for reply in replies] == ["It is 2.", "It is 3."]


def test_a_refusal_is_not_kept_and_another_token_gets_nothing(serve: Serve) -> None:
    server = serve([Refusal(3040, "busy", 429), "fine"])
    assert statuses(ask(server, CACHED), ask(server, CACHED), ask(server, CACHED)) == ["MISS", "MISS", "HIT"]
    stranger = ask(server, CACHED, token="wrong")
    assert (stranger.status_code, statuses(stranger)) == (401, [None])


def test_a_stream_that_failed_halfway_is_not_kept(serve: Serve) -> None:
    server = serve([Answer(pieces=["It "], failure=Refusal(3040, "busy", 429)), "fine"])
    body = {"prompt": "hi", "stream": True}
    broken, whole, again = (ask(server, CACHED, body) for _ in range(3))
    assert b"3040" in broken.content
    assert statuses(broken, whole, again) == ["MISS", "MISS", "HIT"]


def test_a_reply_is_kept_for_its_time() -> None:
    clock = [0.0]
    cache = GatewayCache(lambda: clock[0])
    sent: list[Message] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await Response(f"at {clock[0]:g}")(scope, receive, send)
        record.end("complete")

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.request", "body": b"{}"}

    def scope() -> dict[str, Any]:
        headers = [(name.encode(), value.encode()) for name, value in CACHED.items()]
        asked = {"method": "POST", "path": "/run", "query_string": b"", "server": ("s", 80), "client": None}
        return {"type": "http", "headers": headers, **asked}

    told = []
    for clock[0] in (0.0, 59.0, 60.0, 119.0, 120.0):
        record = RequestRecord(Request(scope()), None, 0)
        asyncio.run(cache.answer(app, scope(), receive, send, b"{}", record))
        told.append((dict(sent[-2]["headers"])[b"cf-aig-cache-status"], sent[-1]["body"]))
    assert told == [
        (b"MISS", b"at 0"),
        (b"HIT", b"at 0"),
        (b"MISS", b"at 60"),
        (b"HIT", b"at 60"),
        (b"MISS", b"at 120"),
    ]


def test_the_cache_keeps_so_many_bytes(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workersai.local.gateway._MOST_BYTES", 5_000)
    server = serve(lambda request: f"{request.prompt} " + "a" * 2_000)
    bodies = [{"prompt": text} for text in ("one", "two", "three")]
    replies = [ask(server, CACHED, body) for body in (*bodies, *reversed(bodies))]
    assert statuses(*replies) == ["MISS", "MISS", "MISS", "HIT", "HIT", "MISS"]
