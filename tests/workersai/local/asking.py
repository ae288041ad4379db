"""Plain HTTP against the local server: written from docs/internals/wire.md, without code of the client."""

from __future__ import annotations

import json
import socket
import ssl
from typing import Any

import httpx

from workersai.local import LocalServer

MODEL = "@cf/meta/llama-3.3-70b-instruct-fp8-fast"
PROMPT: dict[str, Any] = {"prompt": "hi"}
MESSAGES: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}]}
# Where workerd believes to be calling.
BINDING_HOST = "workers-binding.ai"

# Seconds. Where other work takes the processors, llama.cpp becomes very slow.
PATIENCE = 300
# Made once: reading the system's certificates takes longer than most requests here.
VERIFY = ssl.create_default_context()


def bearer(server: LocalServer) -> dict[str, str]:
    return {"authorization": f"Bearer {server.api_token}"}


def run_url(server: LocalServer, model: str = MODEL) -> str:
    return f"{server.base_url}/accounts/{server.account_id}/ai/run/{model}"


def twin_url(server: LocalServer) -> str:
    return f"{server.base_url}/accounts/{server.account_id}/ai/v1/chat/completions"


def post(server: LocalServer, url: str, body: Any, **headers: str) -> httpx.Response:
    """``body`` is sent as JSON, or as it stands if it is bytes; in the names of ``headers``, ``_`` stands for ``-``."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.post(url, content=content, headers={**bearer(server), **named}, verify=VERIFY, timeout=PATIENCE)


def run(server: LocalServer, body: Any, **headers: str) -> httpx.Response:
    return post(server, run_url(server), body, **headers)


def chat(server: LocalServer, body: dict[str, Any], **headers: str) -> httpx.Response:
    """A request to the OpenAI-compatible twin; the model is filled in."""
    return post(server, twin_url(server), {"model": MODEL, **body}, **headers)


def result_of(response: httpx.Response) -> dict[str, Any]:
    assert response.status_code == 200, response.text
    body = response.json()
    assert (body["success"], body["errors"]) == (True, [])
    result: dict[str, Any] = body["result"]
    return result


def error_of(response: httpx.Response) -> tuple[int, int, str]:
    """The status, the code and the words of a refusal in the API's envelope."""
    body = response.json()
    (error,) = body["errors"]
    assert body == {"result": None, "success": False, "errors": [error], "messages": []}
    assert response.headers["content-type"] == "application/json"
    assert response.headers["cf-ray"]
    return response.status_code, error["code"], error["message"]


def origin_of(server: LocalServer) -> str:
    return server.base_url.removesuffix("/client/v4")


def bound(
    server: LocalServer,
    inputs: Any = PROMPT,
    options: Any = None,
    *,
    model: str | None = MODEL,
    path: str = "/run?version=3",
    **headers: str,
) -> httpx.Response:
    """What workerd would send for ``env.AI.run``; in the names of ``headers``, ``_`` stands for ``-``."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    asked = {} if model is None else {"cf-consn-model-id": model}
    return httpx.post(
        origin_of(server) + path,
        json={"inputs": inputs, "options": options or {}},
        headers={"host": BINDING_HOST, **asked, **named},
        verify=VERIFY,
        timeout=PATIENCE,
    )


def refusal_of(response: httpx.Response) -> tuple[int, str]:
    """What a Worker would catch: the status, and the error as text, made as workerd makes it."""
    body = response.json()
    assert response.headers["content-type"] == "application/json"
    if code := body.get("internalCode"):
        assert body.keys() == {"internalCode", "message", "name", "description"}
        assert body["message"] == f"{body['name']}: {body['description']}"
        return response.status_code, f"{body['name']}: {code}: {body['description']}"
    (error,) = body["errors"]
    return response.status_code, f"InferenceUpstreamError: {error['code']}: {error['message']}"


def events_of(stream: str) -> list[Any]:
    """The events of a whole stream, parsed; the end marker is the text ``[DONE]``."""
    *blocks, rest = stream.split("\n\n")
    assert rest == ""
    return [event_of(block) for block in blocks]


def event_of(block: str) -> Any:
    assert block.startswith("data: "), block
    content = block.removeprefix("data: ").rstrip("\n")
    return content if content == "[DONE]" else json.loads(content)


def address_of(server: LocalServer) -> tuple[str, int]:
    url = httpx.URL(server.base_url)
    assert url.port
    return url.host, url.port


def spoken(server: LocalServer, content: bytes, *, half_close: bool = False) -> bytes:
    """All that the server answers to exact bytes, until it closes the connection."""
    with socket.create_connection(address_of(server), timeout=PATIENCE) as connection:
        connection.sendall(content)
        if half_close:
            connection.shutdown(socket.SHUT_WR)
        answer = bytearray()
        while piece := connection.recv(65_536):
            answer += piece
        return bytes(answer)


def request_bytes(
    server: LocalServer, body: bytes, *, method: str = "POST", path: str = "", headers: str = ""
) -> bytes:
    """A request after which the connection is to be closed; the path is that of a run unless another is given."""
    path = path or httpx.URL(run_url(server)).path
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        f"Authorization: Bearer {server.api_token}\r\n{headers or f'Content-Length: {len(body)}{chr(13)}{chr(10)}'}\r\n"
    )
    return head.encode("latin-1") + body
