"""What a model behind the local server must offer, and the values that pass between the two.

The server reads a request off the wire into a :class:`GenerationRequest`; an :class:`Engine` answers it with
:data:`Event` values. An engine knows nothing of HTTP, the server nothing of the model.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

from workersai.catalog import DEFAULT_MODEL, SERVICE_MAX_TOKENS

FinishReason = Literal["stop", "length", "model_length", "tool_calls", "error", "other"]
"""``model_length`` is ``length`` under another name. After ``error``, the answer has failed."""


@dataclass(frozen=True)
class ChatMessage:
    """One message of a conversation, as the wire has it.

    ``tool_calls`` are the calls of an assistant message in whichever shape they were sent.
    """

    role: str
    content: str
    name: str | None = None
    tool_call_id: str | None = None
    tool_calls: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn. None means that the request does not say: the engine's own default holds."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    repetition_penalty: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None


@dataclass(frozen=True)
class GenerationRequest:
    """What is to be answered: ``messages``, or else ``prompt``."""

    messages: tuple[ChatMessage, ...] = ()
    prompt: str | None = None
    model: str = DEFAULT_MODEL
    raw: bool = False
    """No chat template around the prompt: the model continues its text. In each dialect but the native one, it is True
    for all prompts."""
    max_tokens: int = SERVICE_MAX_TOKENS
    sampling: Sampling = field(default_factory=Sampling)
    json_schema: Mapping[str, Any] | None = None
    """In JSON Mode, what the answer must satisfy; ``{"type": "object"}`` for ``json_object``."""
    tools: tuple[Mapping[str, Any], ...] = ()
    """What the model may call, each in whichever of the wire's two shapes it was sent."""
    tool_choice: str | Mapping[str, Any] | None = None
    """``auto`` (which None stands for), ``none``, ``required``, or OpenAI's object that names one of the tools."""
    stream: bool = False
    stop: tuple[str, ...] = ()
    """Texts that end the answer and are not part of it. Only the OpenAI-compatible twin takes any."""
    session_affinity: bool = False
    """The caller named a session: the beginning that its prompts share may come from the model's cache."""


@dataclass(frozen=True)
class Usage:
    """Tokens read and written; ``cached_tokens`` is the part of the prompt that was read before."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0


@dataclass(frozen=True)
class Note:
    """Something that the caller should know of the answer to come. Notes precede every other event."""

    text: str


@dataclass(frozen=True)
class PromptRead:
    """The tokens of the prompt. An engine may send it before the first piece. Default: what ``count_tokens`` says."""

    prompt_tokens: int
    cached_tokens: int = 0


@dataclass(frozen=True)
class TextPiece:
    """The next piece of the answer's text, and the number of its tokens."""

    text: str
    tokens: int = field(default=1, compare=False)


@dataclass(frozen=True)
class CalledTool:
    """A complete tool call."""

    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True)
class End:
    """The answer is complete. It is the last event, and always comes."""

    usage: Usage
    finish_reason: FinishReason = "stop"


@dataclass(frozen=True)
class RawReply:
    """An HTTP response to send byte for byte, whatever the request asked for; the only event of its answer.

    Args:
        body: The whole body, or the chunks that it is written in, one after the other.
        status: The HTTP status.
        content_type: The ``Content-Type`` header.
        headers: More headers.
        cut: Close the connection after the body as a network failure would: the body is then never complete
            for the client, since the terminator of its last chunk is missing.
    """

    body: bytes | list[bytes]
    status: int = 200
    content_type: str = "text/event-stream"
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: bool = False


Event = Note | PromptRead | TextPiece | CalledTool | End | RawReply


class GrammarError(Exception):
    """A JSON Schema can't be turned into a grammar, or the answer does not satisfy it."""


class EngineError(Exception):
    """The engine can't be started, or could not answer. The message says why, and what to do."""


class NotInstalledError(EngineError):
    """What it runs on is not installed, which no further attempt changes."""


@runtime_checkable
class Engine(Protocol):
    """A model behind the server. All its methods run on the server's event loop."""

    @property
    def name(self) -> str:
        """What the engine runs, for people."""

    @property
    def slots(self) -> int:
        """How many answers it can give at once; further requests wait."""

    async def start(self) -> None:
        """Makes the engine ready, once, before any other call.

        Raises:
            EngineError: it can't be.
        """

    async def close(self) -> None:
        """Lets go of everything; nothing is called after it."""

    async def count_tokens(self, request: GenerationRequest) -> int:
        """The tokens of the prompt as the model would read it."""

    def generate(self, request: GenerationRequest) -> AsyncGenerator[Event, None]:
        """Answers ``request``. Closing the generator ends the work at once.

        Raises:
            GrammarError: ``json_schema``, or the parameters of a tool, can't be met.
            EngineError: the model failed.
        """
