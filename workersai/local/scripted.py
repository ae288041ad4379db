"""Canned answers, for tests that need an exact one: texts, tool calls, refusals, and any bytes at all."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any, Final

from workersai.local.engine import (
    CalledTool,
    End,
    Event,
    FinishReason,
    GenerationRequest,
    PromptRead,
    RawReply,
    TextPiece,
    Usage,
)
from workersai.local.wire import DONE, WireError, sse, usage_to_wire

_UNSET: Final[Any] = type("_Unset", (), {"__repr__": lambda _: "<unset>"})()
_WORDS_A_MESSAGE = 4
# Characters of a call's arguments that each event of a stream brings: few, so that even short ones come in several.
_ARGUMENTS_PIECE = 4


class Gate:
    """Holds an answer until a test lets it go on, so that the two keep step without sleeping.

    Both sides may be in different threads. Once open, a gate stays open.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open = False
        self._reached = threading.Event()
        self._waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    def open(self) -> None:
        """Lets every answer through that waits here or will come here."""
        with self._lock:
            self._open = True
            waiting, self._waiting = self._waiting, []
        for loop, event in waiting:
            loop.call_soon_threadsafe(event.set)

    def wait_until_reached(self, timeout: float = 60.0) -> None:
        """Blocks until an answer has come to this gate.

        Raises:
            TimeoutError: none has within ``timeout`` seconds.
        """
        if not self._reached.wait(timeout):
            raise TimeoutError(f"No answer came to the gate within {timeout} seconds.")

    async def passed(self) -> None:
        """Returns once the gate is open; for the server's side."""
        mine = (asyncio.get_running_loop(), asyncio.Event())
        with self._lock:
            if not self._open:
                self._waiting.append(mine)
            else:
                mine[1].set()
        self._reached.set()
        try:
            await mine[1].wait()
        finally:
            # A client that left must not be woken later, on a loop that may be gone by then.
            with self._lock:
                self._waiting = [entry for entry in self._waiting if entry is not mine]


@dataclass(frozen=True)
class Refusal:
    """An error as the wire tells it: its code, its words and the HTTP status."""

    code: int
    message: str
    status: int = 400


@dataclass(frozen=True)
class Answer:
    """One answer of the script.

    Args:
        text: Its text. A stream sends it word by word.
        pieces: The text in the pieces that a stream sends, in place of ``text``. May be endless, if it is streamed.
        object: In JSON Mode, the value of ``response``, in place of ``text``.
        tool_calls: Complete calls, sent after the text.
        usage: Default: the prompt by :meth:`ScriptedEngine.count_tokens`, the answer by its whitespace-separated words.
        finish_reason: Default: ``tool_calls`` if there are any, else ``stop``. The native dialect has none.
        hold: For the index of a piece, the gate that it waits at. The index after the last piece holds the end back.
        failure: The error that follows the pieces, in place of an end.
    """

    text: str = ""
    pieces: Iterable[str] | None = None
    object: Any = _UNSET
    tool_calls: tuple[CalledTool, ...] = ()
    usage: Usage | None = None
    finish_reason: FinishReason | None = None
    hold: Mapping[int, Gate] = field(default_factory=dict)
    failure: Refusal | None = None


ScriptedAnswer = str | Answer | RawReply | Refusal
Script = str | Iterable[ScriptedAnswer] | Callable[[GenerationRequest], ScriptedAnswer]


class ScriptedEngine:
    """An engine that answers from a script.

    Args:
        script: Answers that are given in order, one a request; a callable that answers each request; or one text,
            the answer to every request. In place of an :class:`Answer`, a str is short for one with that text.
        slots: How many requests are answered at once.
    """

    def __init__(self, script: Script, *, slots: int = 16) -> None:
        self._script = _follow(script)
        self._slots = slots

    @property
    def name(self) -> str:
        """What it is."""
        return "scripted answers"

    @property
    def slots(self) -> int:
        """As many as it was made with."""
        return self._slots

    async def start(self) -> None:
        """Nothing to make ready."""

    async def close(self) -> None:
        """Nothing to let go of."""

    async def count_tokens(self, request: GenerationRequest) -> int:
        """The whitespace-separated words, and 4 for each message; a prompt is one message, a raw one is none."""
        if request.prompt is not None:
            return len(request.prompt.split()) + (0 if request.raw else _WORDS_A_MESSAGE)
        return sum(len(message.content.split()) + _WORDS_A_MESSAGE for message in request.messages)

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Event, None]:
        """The next answer of the script.

        Raises:
            WireError: the script refuses, or has no more answers (HTTP 400).
        """
        answer = self._script(request)
        if isinstance(answer, RawReply):
            yield answer
            return
        if isinstance(answer, Refusal):
            raise _wire_error_of(answer)
        answer = Answer(text=answer) if isinstance(answer, str) else answer
        words, usage = 0, answer.usage
        if usage:
            yield PromptRead(usage.prompt_tokens, usage.cached_tokens)
        async with aclosing(_held_pieces(answer, request)) as pieces:
            async for piece in pieces:
                tokens = len(piece.split())
                if usage:  # the pieces have no more tokens than the answer
                    tokens = min(tokens, usage.completion_tokens - words)
                words += tokens
                yield TextPiece(piece, tokens)
        for call in answer.tool_calls:
            yield call
        if answer.failure:
            raise _wire_error_of(answer.failure)
        usage = usage or Usage(await self.count_tokens(request), words)
        yield End(usage, answer.finish_reason or ("tool_calls" if answer.tool_calls else "stop"))


def streamed_calls(*calls: CalledTool, text: str = "", usage: Usage | None = None) -> RawReply:
    """A native stream whose calls come in OpenAI's pieces, as some routes send them (wire.md#streams).

    The events lie in ``choices[0].delta``: all starts, then the arguments a few characters at a time, the calls in
    turn, then all finalisers, whose id, type and name are null. The finish reason, the usage and the end follow.

    Args:
        calls: What is called. The ids are ``chatcmpl-tool-0`` and so on.
        text: Told before the calls, in one event.
        usage: Default: 10 tokens of prompt and 5 of answer.
    """
    starts: list[dict[str, Any]] = [
        {"id": f"chatcmpl-tool-{index}", "type": "function", "index": index, "function": {"name": call.name}}
        for index, call in enumerate(calls)
    ]
    pieces: list[dict[str, Any]] = [
        {"index": index, "function": {"arguments": piece}}
        for turn in zip_longest(*map(_arguments_pieces, calls))
        for index, piece in enumerate(turn)
        if piece is not None
    ]
    ends: list[dict[str, Any]] = [
        {"id": None, "type": None, "index": index, "function": {"name": None, "arguments": ""}}
        for index, _ in enumerate(calls)
    ]
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": text}]
    deltas += [{"tool_calls": [part]} for part in (*starts, *pieces, *ends)]
    choices: list[dict[str, Any]] = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
    choices.append({"index": 0, "delta": {}, "finish_reason": "tool_calls"})
    chunk: dict[str, Any] = {"id": "chatcmpl-0", "object": "chat.completion.chunk"}
    told = usage_to_wire(usage or Usage(10, 5), tell_cached=False)
    events = [*({**chunk, "choices": [choice]} for choice in choices), {**chunk, "choices": [], "usage": told}]
    return RawReply([*map(sse, events), DONE])


def _arguments_pieces(call: CalledTool) -> list[str]:
    text = json.dumps(dict(call.arguments), ensure_ascii=False)
    return [text[start : start + _ARGUMENTS_PIECE] for start in range(0, len(text), _ARGUMENTS_PIECE)]


def _follow(script: Script) -> Callable[[GenerationRequest], ScriptedAnswer]:
    if callable(script):
        return script
    if isinstance(script, str):
        return lambda _: script
    answers = iter(script)
    return lambda _: next(answers, Refusal(5006, "The script has no more answers.", 400))


async def _held_pieces(answer: Answer, request: GenerationRequest) -> AsyncGenerator[str, None]:
    """The pieces, each behind its gate."""
    count = 0
    for index, piece in enumerate(_pieces(answer, request)):
        await _pass(answer.hold.get(index))
        # An endless answer must leave the loop time to notice that the client has gone.
        await asyncio.sleep(0)
        yield piece
        count = index + 1
    await _pass(answer.hold.get(count))


async def _pass(gate: Gate | None) -> None:
    if gate:
        await gate.passed()


def _pieces(answer: Answer, request: GenerationRequest) -> Iterator[str]:
    pieces = answer.pieces if answer.pieces is not None else _words(_text(answer))
    return _until_stop(pieces, request.stop) if request.stop else iter(pieces)


def _text(answer: Answer) -> str:
    return answer.text if answer.object is _UNSET else json.dumps(answer.object, ensure_ascii=False)


def _words(text: str) -> list[str]:
    """``text`` cut before each word, white space with the word that it precedes; joined they are ``text`` again."""
    return re.findall(r"\s*\S+|\s+$", text)


def _until_stop(pieces: Iterable[str], stops: tuple[str, ...]) -> Iterator[str]:
    """The text up to the first stop string, which may lie across several pieces; they may be endless."""
    longest = max(map(len, stops))
    held = ""
    for piece in pieces:
        held += piece
        found = [held.find(stop) for stop in stops if stop in held]
        ready = min(found, default=max(0, len(held) - longest + 1))
        if ready:
            yield held[:ready]
        if found:
            return
        held = held[ready:]
    if held:
        yield held


def _wire_error_of(refusal: Refusal) -> WireError:
    return WireError(refusal.status, refusal.code, refusal.message)
