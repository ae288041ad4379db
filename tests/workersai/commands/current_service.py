"""A service that replies as Workers AI does for Llama 3.3: hybrid replies, and text completions for prompts."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from typing import Any

from tests.raw_server import RawServer, chunked, reply
from workersai.catalog import DEFAULT_EMBEDDING_MODEL, DEFAULT_MODEL, DEFAULT_RERANKER

ACCOUNT, TOKEN = "0123456789abcdef0123456789abcdef", "cf-token-4f6d2a9be1"
RAY = "8f0c1d2e3a4b5c6d-AMS"
CALL_ID = "chatcmpl-tool-9d3f7a61c2"
BATCH_ID = "3f0e6a52-77c1-4b8e-9a55-6d2c1f0b7e43"
PRIVATE = (ACCOUNT, TOKEN, RAY, CALL_ID, BATCH_ID)

Override = Callable[[str, dict[str, Any]], bytes | None]
"""Replies to a path and a body in its own way; None lets the service reply."""


def usage(prompt: int, completion: int, cached: int = 0) -> dict[str, Any]:
    total = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    return {**total, "prompt_tokens_details": {"cached_tokens": cached}}


def enveloped(result: Any) -> bytes:
    body = {"result": result, "success": True, "errors": [], "messages": []}
    return reply(json.dumps(body).encode(), f"cf-ray: {RAY}")


def failing(status: str, code: int, message: str) -> bytes:
    body = {"result": None, "success": False, "errors": [{"code": code, "message": message}], "messages": []}
    return reply(json.dumps(body).encode(), f"cf-ray: {RAY}", status=status)


def hybrid(text: Any, calls: list[dict[str, Any]], cached: int) -> dict[str, Any]:
    content = text if isinstance(text, str | None) else json.dumps(text)
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content}}
    named = {"id": "chatcmpl-0", "object": "chat.completion", "model": "@cf/meta/llama-3.3-70b-instruct-sd"}
    return {**named, "choices": [choice], "response": text, "tool_calls": calls, "usage": usage(47, 2, cached)}


def hybrid_stream(words: list[str]) -> bytes:
    def event(text: str, counts: dict[str, Any]) -> dict[str, Any]:
        choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
        return {"choices": [choice], "response": text, "tool_calls": [], "p": "abdefh", "usage": counts}

    events = [event("", usage(47, 0)), *(event(word, usage(0, 1)) for word in words)]
    events.append({"response": "", "usage": usage(47, len(words))})
    lines = [b"data: " + json.dumps(each).encode() + b"\n\n" for each in events]
    return chunked(*lines, b"data: [DONE]\n\n")


class CurrentService:
    """The handler of a :class:`RawServer`.

    Args:
        answer: The text of each answer.
        override: Replies to some requests in its own way.
    """

    def __init__(self, answer: str = "Paris", override: Override = lambda path, body: None) -> None:
        self.paths: list[str] = []
        self._answer, self._override = answer, override
        self._sessions: set[str] = set()
        self._batches: list[dict[str, Any]] = []

    def __call__(self, connected: socket.socket, request: bytes) -> None:
        head, _, content = request.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines[1:])
        path = lines[0].split(" ")[1]
        self.paths.append(path)
        body = json.loads(content) if content else {}
        made = self._override(path, body)
        connected.sendall(self._reply(path, body, headers) if made is None else made)

    def _reply(self, path: str, body: dict[str, Any], headers: dict[str, str]) -> bytes:
        if "/ai/models/search" in path:
            return enveloped([{"id": BATCH_ID, "name": name} for name in (DEFAULT_MODEL, DEFAULT_EMBEDDING_MODEL)])
        if path.endswith(DEFAULT_EMBEDDING_MODEL):
            return enveloped({"shape": [2, 768], "data": [[0.5] * 768] * 2, "usage": usage(9, 0)})
        if path.endswith(DEFAULT_RERANKER):
            return enveloped({"response": [{"id": 0, "score": 0.1}, {"id": 1, "score": 0.9}]})
        if path.endswith("queueRequest=true"):
            return enveloped(self._batch(body))
        if body.get("stream"):
            return hybrid_stream([self._answer, ", ", "two"])
        return enveloped(self._result(body, headers.get("x-session-affinity", "")))

    def _result(self, body: dict[str, Any], session: str = "") -> dict[str, Any]:
        if "prompt" in body and "<|eot_id|>" not in body["prompt"]:
            choice = {"index": 0, "text": f" {self._answer} is what follows.", "finish_reason": "length"}
            return {"choices": [choice], "usage": usage(12, 24)}
        if "prompt" in body:
            return {"choices": [{"index": 0, "text": self._answer, "finish_reason": "stop"}], "usage": usage(20, 1)}
        if "tools" in body:
            call = {"id": CALL_ID, "name": "get_weather", "arguments": {"city": self._answer}}
            return hybrid(None, [call], 0)
        if "response_format" in body:
            return hybrid({"city": self._answer, "country": self._answer}, [], 0)
        cached = 32 if session in self._sessions else 0
        self._sessions |= {session} - {""}
        return hybrid(self._answer, [], cached)

    def _batch(self, body: dict[str, Any]) -> dict[str, Any]:
        if "requests" in body:
            self._batches += body["requests"]
            return {
                "status": "queued",
                "request_id": f"{BATCH_ID[:-1]}{len(self._batches) - 1}",
                "model": DEFAULT_MODEL,
            }
        item = self._batches[int(body["request_id"][-1])]
        result = self._result(item)
        entry = {"id": 0, "success": True, "external_reference": item["external_reference"]}
        return {"responses": [{**entry, "result": result}], "usage": result["usage"]}


def environment(server: RawServer) -> dict[str, str]:
    """The variables that point a command at the service."""
    base = f"http://127.0.0.1:{server.port}"
    return {"CLOUDFLARE_BASE_URL": base, "CLOUDFLARE_ACCOUNT_ID": ACCOUNT, "CLOUDFLARE_API_TOKEN": TOKEN}
