"""How replies look on the native wire: the envelope, errors, results and stream events.

Written from docs/internals/wire.md alone and independent of the rest of the package, so that the two check each other.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from workersai.local.engine import CalledTool, End, GrammarError, NotInstalledError, PromptRead, TextPiece, Usage

UNEXPECTED = 5000
"""The code of a failure that is the server's own fault."""

DONE = b"data: [DONE]\n\n"

# The service pads events with a beginning of this text, so that their lengths don't give the words away.
_PADDING = "abdefghijklmnopqrstuvwxyz0123456789"
# The code of an envelope's note; Cloudflare's own begin at 1000.
_NOTE_CODE = 1000


class WireError(Exception):
    """A refusal as the wire tells it: an HTTP status, one of the service's codes, and words."""

    def __init__(self, status: int, code: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message


def bad_input(problem: str) -> WireError:
    """The refusal of a request that the service can't accept; ``problem`` begins with the place, ``'/temperature'``."""
    return WireError(400, 5006, f"AiError: Bad input: Error: {problem}")


def too_long(tokens: int, window: int) -> WireError:
    """The refusal of a request that does not fit in the window of its model."""
    return WireError(
        413,
        5021,
        f"AiError: The estimated number of input and maximum output tokens ({tokens}) exceeded this model context "
        f"window limit ({window})",
    )


def wire_error_from(error: BaseException) -> WireError:
    """What a failure in the engine looks like from outside."""
    if isinstance(error, WireError):
        return error
    if isinstance(error, GrammarError):
        return WireError(400, 5024, f"AiError: JSON Mode couldn't be met: {error}")
    if isinstance(error, NotInstalledError):  # a 500 would be tried again
        return WireError(400, 5007, f"AiError: No such model here: {error}")
    return WireError(500, UNEXPECTED, f"AiError: Internal server error: {error}")


@dataclass(frozen=True)
class Answer:
    """All that a whole reply tells."""

    text: str
    tool_calls: tuple[CalledTool, ...]
    end: End
    notes: tuple[str, ...] = ()


class Dialect(Protocol):
    """A way to write an answer: the native one below, one with ``choices``, or the OpenAI-compatible twin's."""

    def error(self, error: WireError) -> dict[str, Any]:
        """The body of a reply that refuses."""

    def whole(self, answer: Answer) -> dict[str, Any]:
        """The body of a reply that is sent at once.

        Raises:
            GrammarError: JSON Mode was asked for, and the text is not JSON.
        """

    def opening(self, prompt: PromptRead) -> list[bytes]:
        """The stream events before the first piece."""

    def piece(self, event: TextPiece | CalledTool) -> bytes:
        """One piece of the answer as stream events.

        Raises:
            WireError: the reply has no place for it.
        """

    def closing(self, end: End) -> list[bytes]:
        """The stream events after the last piece."""

    def failure(self, error: WireError) -> bytes:
        """The stream event that tells of a failure after the first byte."""


class NativeDialect:
    """The shapes of ``/ai/run``.

    Args:
        json_mode: The answer is JSON, and ``response`` is to be the value itself.
        tell_cached: The request named a session, so that ``usage`` tells the cached tokens.
        manner: How results and refusals are told. Default: REST's.
    """

    def __init__(self, *, json_mode: bool = False, tell_cached: bool = False, manner: Manner | None = None) -> None:
        self._json_mode = json_mode
        self._tell_cached = tell_cached
        self._manner = manner or REST

    def error(self, error: WireError) -> dict[str, Any]:
        """The body of a failed call."""
        return self._manner.error(error)

    def whole(self, answer: Answer) -> dict[str, Any]:
        """The result; a text beside tool calls is left out, as the service does."""
        return self._manner.result(
            {
                "response": None if answer.tool_calls else self._response(answer),
                "tool_calls": [call_to_wire(call) for call in answer.tool_calls],
                "usage": usage_to_wire(answer.end.usage, tell_cached=self._tell_cached),
            },
            answer.notes,
        )

    def opening(self, prompt: PromptRead) -> list[bytes]:
        """Nothing: the first event holds text."""
        del prompt
        return []

    def piece(self, event: TextPiece | CalledTool) -> bytes:
        """An event with a piece of text, or with one complete call."""
        if isinstance(event, CalledTool):
            return sse({"response": "", "tool_calls": [call_to_wire(event)], "p": padding()})
        return sse({"response": event.text, "tool_calls": [], "p": padding()})

    def closing(self, end: End) -> list[bytes]:
        """The usage on a last event without text, then the end."""
        usage = usage_to_wire(end.usage, tell_cached=self._tell_cached)
        return [sse({"response": "", "tool_calls": [], "p": padding(), "usage": usage}), DONE]

    def failure(self, error: WireError) -> bytes:
        """The error event; no ``[DONE]`` follows it."""
        return sse({"errors": [error_to_wire(error)], "success": False})

    def _response(self, answer: Answer) -> Any:
        return json_from_answer(answer.text, answer.end) if self._json_mode else answer.text


def envelope(result: Any, notes: Iterable[str] = ()) -> dict[str, Any]:
    """A result that succeeded, as the API wraps it."""
    messages = [{"code": _NOTE_CODE, "message": note} for note in notes]
    return {"result": result, "success": True, "errors": [], "messages": messages}


def error_envelope(error: WireError) -> dict[str, Any]:
    """A failure, as the API wraps it."""
    return {"result": None, "success": False, "errors": [error_to_wire(error)], "messages": []}


@dataclass(frozen=True)
class Manner:
    """How one door of the service tells the same things."""

    result: Callable[[dict[str, Any], Iterable[str]], dict[str, Any]]
    """From a result, and the notes about it, to the body of a reply."""
    error: Callable[[WireError], dict[str, Any]]
    """From a refusal to the body of a reply."""
    bare: bool = False
    """Whether results have no envelope, as over the Worker binding."""


REST = Manner(envelope, error_envelope)


def strict_json(text: str) -> Any:
    """The value of a JSON text; ``NaN`` and ``Infinity``, which Python would take, are none.

    Raises:
        ValueError: it is not JSON, or is nested deeper than Python can follow.
    """
    try:
        return json.loads(text, parse_constant=_no_such_number)
    except RecursionError:
        raise ValueError("nested too deep") from None


def json_from_answer(text: str, end: End) -> Any:
    """The value that an answer in JSON Mode holds.

    Raises:
        GrammarError: it holds none, as when ``max_tokens`` ended it halfway.
    """
    try:
        return strict_json(text)
    except ValueError:
        cut = "it was cut off at max_tokens; a larger one may help." if end.finish_reason == "length" else ""
        raise GrammarError(cut or "the answer is not JSON.") from None


def usage_to_wire(usage: Usage, *, tell_cached: bool) -> dict[str, Any]:
    """The ``usage`` object."""
    told: dict[str, Any] = {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }
    if tell_cached:
        told["prompt_tokens_details"] = {"cached_tokens": usage.cached_tokens}
    return told


def sse(payload: dict[str, Any]) -> bytes:
    """``payload`` as one server-sent event."""
    return b"data: " + to_json(payload) + b"\n\n"


def to_json(payload: Any) -> bytes:
    """``payload`` as compact JSON in UTF-8; half of a surrogate pair, which UTF-8 lacks, becomes ``?``."""
    return json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")


def padding() -> str:
    """The ``p`` of a stream event: up to one turn of the alphabet, of random length."""
    return _PADDING[: 2 + secrets.randbelow(len(_PADDING) - 1)]


def ray() -> str:
    """A new ``cf-ray``, which names a request; ``LOC`` stands where Cloudflare's data centre would."""
    return f"{secrets.token_hex(8)}-LOC"


def note_header(notes: Sequence[str]) -> str:
    """``notes`` as the value of one header: a single line of ASCII."""
    return " ".join(" ".join(notes).split()).encode("ascii", "replace").decode()


def call_to_wire(call: CalledTool) -> dict[str, Any]:
    """A call in the native shape."""
    return {"name": call.name, "arguments": dict(call.arguments)}


def error_to_wire(error: WireError) -> dict[str, Any]:
    """An error as an entry of ``errors``."""
    return {"code": error.code, "message": error.message}


def _no_such_number(constant: str) -> float:
    raise ValueError(f"{constant} is not JSON")
