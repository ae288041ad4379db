"""What is measured: each way of calling the server, made and called alike.

A subject's module imports are inside of its functions: each runs in a process that imports nothing of the others.
"""

from __future__ import annotations

import importlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

from benchmarks.wire import ACCOUNT, MODEL, TOKEN, Air, Below, Wire

_WINDOW = 20_000  # tokens; a longer answer would be refused before it is asked for
TRANSPORT, LANGCHAIN, LLAMAINDEX = "transport", "LangChain", "LlamaIndex"


@dataclass(frozen=True)
class Subject:
    """Something that calls the server.

    ``make`` takes the server's address and the number of pieces that a stream is to have. The others take what it
    made, and a prompt; each ends when the whole answer was handed over. ``imports`` is what a program would import.
    """

    name: str
    family: str
    imports: tuple[str, ...]
    make: Callable[[str, int], Any]
    call: Callable[[Any, str], Any]
    acall: Callable[[Any, str], Awaitable[Any]]
    stream: Callable[[Any, str], Iterator[Any]]
    astream: Callable[[Any, str], AsyncIterator[Any]]


def _wire(name: str, *, on_aiohttp: bool) -> Subject:
    return Subject(
        name,
        TRANSPORT,
        ("httpx", "pydantic"),
        lambda address, pieces: Wire(address, pieces, on_aiohttp=on_aiohttp),
        lambda wire, prompt: wire.call(prompt),
        lambda wire, prompt: wire.acall(prompt),
        lambda wire, prompt: wire.stream(prompt),
        lambda wire, prompt: wire.astream(prompt),
    )


def _account(address: str, pieces: int) -> dict[str, Any]:
    account = {"account_id": ACCOUNT, "api_token": TOKEN, "base_url": address, "max_tokens": pieces}
    return account if pieces < _WINDOW else {**account, "on_overflow": "send"}


class _Clients:
    """The two clients of workersai."""

    def __init__(self, address: str, pieces: int) -> None:
        package = importlib.import_module("workersai")
        account = _account(address, pieces)
        self.sync_client = package.Client(**account)
        self.async_client = package.AsyncClient(**account)


def _message(prompt: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt}]


_CLIENTS = Subject(
    "workersai",
    TRANSPORT,
    ("workersai",),
    _Clients,
    lambda clients, prompt: clients.sync_client.run(_message(prompt)),
    lambda clients, prompt: clients.async_client.run(_message(prompt)),
    lambda clients, prompt: clients.sync_client.stream(_message(prompt)),
    lambda clients, prompt: clients.async_client.stream(_message(prompt)),
)


def _langchain(name: str, imports: tuple[str, ...], make: Callable[[str, int], Any]) -> Subject:
    return Subject(
        name,
        LANGCHAIN,
        imports,
        make,
        lambda model, prompt: model.invoke(prompt),
        lambda model, prompt: model.ainvoke(prompt),
        lambda model, prompt: model.stream(prompt),
        lambda model, prompt: model.astream(prompt),
    )


def _idle_chat_model(below: Below) -> Any:
    return importlib.import_module("benchmarks.idle_langchain").IdleChatModel(below=below)


def _chat_workersai(address: str, pieces: int) -> Any:
    kind = importlib.import_module("langchain_workersai").ChatWorkersAI
    return kind(**_account(address, pieces))


def _chat_cloudflare(address: str, pieces: int, *, on_aiohttp: bool = False) -> Any:
    kind = importlib.import_module("langchain_cloudflare").ChatCloudflareWorkersAI
    given = {}
    if on_aiohttp:
        of_aiohttp = importlib.import_module("httpx_aiohttp").HttpxAiohttpClient
        limits = importlib.import_module("httpx").Limits(max_connections=1_000)
        headers = {"Authorization": f"Bearer {TOKEN}"}
        given["async_client"] = of_aiohttp(base_url=address, timeout=None, headers=headers, limits=limits)
    return kind(account_id=ACCOUNT, api_token=TOKEN, model=MODEL, base_url=address, max_tokens=pieces, **given)


def _chat_openai(address: str, pieces: int) -> Any:
    kind = importlib.import_module("langchain_openai").ChatOpenAI
    return kind(api_key=TOKEN, model="m", base_url=f"{address}/v1", max_tokens=pieces)


async def _each(made: Awaitable[Any]) -> AsyncIterator[Any]:
    async for piece in await made:
        yield piece


def _messages(prompt: str) -> list[Any]:
    kind: Any = importlib.import_module("llama_index.core.llms").ChatMessage
    return [kind(role="user", content=prompt)]


def _llamaindex(name: str, imports: tuple[str, ...], make: Callable[[str, int], Any]) -> Subject:
    return Subject(
        name,
        LLAMAINDEX,
        imports,
        make,
        lambda llm, prompt: llm.chat(_messages(prompt)),
        lambda llm, prompt: llm.achat(_messages(prompt)),
        lambda llm, prompt: llm.stream_chat(_messages(prompt)),
        lambda llm, prompt: _each(llm.astream_chat(_messages(prompt))),
    )


def _idle_llm(below: Below) -> Any:
    return importlib.import_module("benchmarks.idle_llamaindex").IdleLLM(below=below)


def _llama_workersai(address: str, pieces: int) -> Any:
    kind = importlib.import_module("llamaindex_workersai").WorkersAI
    return kind(**_account(address, pieces))


def _llama_openai(address: str, pieces: int) -> Any:
    kind = importlib.import_module("llama_index.llms.openai").OpenAI
    return kind(api_key=TOKEN, model="gpt-4o", api_base=f"{address}/v1", max_tokens=pieces)


def _over_httpx(idle: Callable[[Below], Any]) -> Callable[[str, int], Any]:
    """The two floors in one process: httpx on aiohttp where async, and the framework's own part."""
    return lambda address, pieces: idle(Wire(address, pieces, on_aiohttp=True))


CORE = {LANGCHAIN: "langchain_core.language_models.chat_models", LLAMAINDEX: "llama_index.core.llms"}
"""What the frameworks' own part of an import is."""

_ALL = (
    _wire("httpx", on_aiohttp=False),
    _wire("httpx on aiohttp", on_aiohttp=True),
    _CLIENTS,
    _langchain("LangChain alone", (CORE[LANGCHAIN],), lambda _, pieces: _idle_chat_model(Air(pieces))),
    _langchain("LangChain over httpx", (CORE[LANGCHAIN],), _over_httpx(_idle_chat_model)),
    _langchain("ChatWorkersAI", ("langchain_workersai",), _chat_workersai),
    _langchain("langchain-cloudflare", ("langchain_cloudflare",), _chat_cloudflare),
    _langchain(
        "langchain-cloudflare on aiohttp",
        ("langchain_cloudflare", "httpx_aiohttp"),
        lambda address, pieces: _chat_cloudflare(address, pieces, on_aiohttp=True),
    ),
    _langchain("langchain-openai", ("langchain_openai",), _chat_openai),
    _llamaindex("LlamaIndex alone", (CORE[LLAMAINDEX],), lambda _, pieces: _idle_llm(Air(pieces))),
    _llamaindex("LlamaIndex over httpx", (CORE[LLAMAINDEX],), _over_httpx(_idle_llm)),
    _llamaindex("WorkersAI", ("llamaindex_workersai",), _llama_workersai),
    _llamaindex("llama-index-llms-openai", ("llama_index.llms.openai",), _llama_openai),
)
SUBJECTS = {subject.name: subject for subject in _ALL}
