"""What tests of several packages need: how to point at a server, and one way to drive the sync and the async face."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing, closing
from dataclasses import replace
from typing import Any, Protocol, TypeVar

import pytest
from pydantic import BaseModel

from workersai import AsyncClient, CallOptions, Client, Completion, Delta, Settings, Usage
from workersai.local import LocalServer
from workersai.local.engine import GenerationRequest, RawReply
from workersai.local.faults import Faults
from workersai.local.scripted import Script
from workersai.protocol.json_mode import JSONMode
from workersai.protocol.request import Input, Request, input_body, run_request
from workersai.protocol.tools import Offer

T = TypeVar("T")

PATIENCE = 300.0
"""Seconds that end a test which would hang; a slow machine that is busy with other work comes nowhere near."""

EVERY_DIALECT = pytest.mark.usefixtures("every_dialect")
"""The test runs with each dialect of the local server: what it expects must not depend on the shape of a reply."""

Serve = Callable[[Script], LocalServer]
ServeLengths = Callable[[Faults | None], LocalServer]


def connection(server: LocalServer) -> dict[str, Any]:
    """The arguments that point a client or a model at the server."""
    return {**server.connection}


_LAST_TURN = re.compile(
    r".*<\|end_header_id\|>\n\n(.*)<\|eot_id\|><\|start_header_id\|>assistant<\|end_header_id\|>\n\n", re.DOTALL
)


def asked_text(request: GenerationRequest) -> str:
    """The last text that a request asks, whether it is a message, a prompt, or a prompt in Llama's chat template."""
    text = request.messages[-1].content if request.prompt is None else request.prompt
    turn = _LAST_TURN.fullmatch(text)
    return turn[1] if turn else text


def asked_text_of(body: Mapping[str, Any]) -> str:
    """The same from the body of a single call."""
    text: str = body["prompt"] if "prompt" in body else body["messages"][-1]["content"]
    return text


def request_of(
    settings: Settings,
    model_input: Input,
    options: CallOptions,
    *,
    offer: Offer | None = None,
    json_mode: JSONMode | None = None,
    stream: bool = False,
) -> Request:
    """The request of a call that is not held to a window."""
    body = input_body(model_input, options, offer or Offer()).wire
    return run_request(
        settings, body, options, max_tokens=options.max_tokens, offer=offer, json_mode=json_mode, stream=stream
    )


def outcome_in_time(attempt: Callable[[float], T], came: Callable[[T], bool]) -> T:
    """The outcome of an attempt against a server that stalls, with a timeout that left time for what comes before.

    An attempt lasts as long as its timeout, so the first is short. Longer ones follow only where ``came`` says that
    the timeout was over too soon, before what the server does first had come through: on a machine that is busy.
    """
    for timeout in (0.3, 3.0):
        outcome = attempt(timeout)
        if came(outcome):
            return outcome
    return attempt(30.0)


def token_counts(usage: Usage | None) -> Usage | None:
    """A usage without the neurons, which some shapes of a reply have and others lack."""
    return None if usage is None else replace(usage, neurons=None)


class Node(BaseModel):
    """Refers to itself."""

    value: int
    children: list[Node] = []


def openai_stream(*deltas: list[dict[str, Any]]) -> RawReply:
    """A stream of tool-call pieces in OpenAI's shape. Scripted as bytes: engines give whole calls."""
    events = [{"id": "x", "choices": [{"index": 0, "delta": {"tool_calls": calls}}]} for calls in deltas]
    lines = [f"data: {json.dumps(event)}\n\n".encode() for event in events]
    return RawReply([*lines, b"data: [DONE]\n\n"])


def calling(call: dict[str, Any]) -> Callable[[GenerationRequest], RawReply]:
    """A script whose answers are one call in OpenAI's shape, whole or streamed as asked for; it may be broken."""
    envelope = {"result": {"response": None, "tool_calls": [call]}, "success": True, "errors": []}
    whole = RawReply(json.dumps(envelope).encode(), content_type="application/json")
    return lambda request: openai_stream([call]) if request.stream else whole


class Lengths:
    """Its vectors begin with the length of the text; the second number is 1 for ``cls``."""

    def embed(self, texts: Sequence[str], pooling: str) -> list[list[float]]:
        return [[float(len(text)), float(pooling == "cls")] for text in texts]


class Driver(Protocol):
    """One face of the transport, sync or async, as a test calls it."""

    def run(self, settings: dict[str, Any], model_input: Any, **options: Any) -> Completion:
        """The whole answer."""

    def stream(self, settings: dict[str, Any], model_input: Any, **options: Any) -> list[Delta]:
        """All deltas."""

    def first(self, settings: dict[str, Any], model_input: Any, **options: Any) -> Delta:
        """The first delta; the stream is then closed, and the client used once more."""


class SyncDriver:
    def run(self, settings: dict[str, Any], model_input: Any, **options: Any) -> Completion:
        with Client(**settings) as client:
            return client.run(model_input, **options)

    def stream(self, settings: dict[str, Any], model_input: Any, **options: Any) -> list[Delta]:
        with Client(**settings) as client:
            return list(client.stream(model_input, **options))

    def first(self, settings: dict[str, Any], model_input: Any, **options: Any) -> Delta:
        with Client(**settings) as client:
            with closing(client.stream(model_input, **options)) as deltas:
                first = next(deltas)
            client.run("still there?")
            return first


class AsyncDriver:
    def run(self, settings: dict[str, Any], model_input: Any, **options: Any) -> Completion:
        async def call() -> Completion:
            async with AsyncClient(**settings) as client:
                return await client.run(model_input, **options)

        return asyncio.run(call())

    def stream(self, settings: dict[str, Any], model_input: Any, **options: Any) -> list[Delta]:
        async def call() -> list[Delta]:
            async with AsyncClient(**settings) as client:
                return [delta async for delta in client.stream(model_input, **options)]

        return asyncio.run(call())

    def first(self, settings: dict[str, Any], model_input: Any, **options: Any) -> Delta:
        async def call() -> Delta:
            async with AsyncClient(**settings) as client:
                async with aclosing(client.stream(model_input, **options)) as deltas:
                    first = await anext(deltas)
                await client.run("still there?")
                return first

        return asyncio.run(call())
