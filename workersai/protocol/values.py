"""The values that travel: what is asked, and what comes back, in the field's terms and free of any framework."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from workersai.catalog import DEFAULT_MODEL, priced_card

Role = Literal["system", "user", "assistant", "tool"]
ROLES: tuple[Role, ...] = ("system", "user", "assistant", "tool")
"""The roles that the service knows (wire page, "Requests")."""


@dataclass(frozen=True)
class ToolCall:
    """A call that the model asks for: ``arguments`` are parsed, ``id`` is the service's or made here."""

    id: str
    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True)
class InvalidToolCall:
    """A call that can't be carried out: its arguments are no JSON object, or it has no name. ``error`` says which."""

    id: str
    name: str
    arguments: str
    error: str


@dataclass(frozen=True)
class Message:
    """One turn of a conversation; the text of a turn is a string, never null and never a list.

    An assistant's turn may hold calls, and a tool's turn answers the one of ``tool_call_id``. Calls whose arguments
    were no JSON can't be sent as calls: the model sees them in the text, as it wrote them.
    """

    role: Role
    content: str
    tool_calls: Sequence[ToolCall] = ()
    tool_call_id: str | None = None
    name: str | None = None
    invalid_tool_calls: Sequence[InvalidToolCall] = ()


@dataclass(frozen=True)
class Tool:
    """A function that the model may call; ``parameters`` is the JSON Schema of its arguments.

    ``strict`` tells the model that there are no other properties than those listed. It enforces nothing: the service
    has no strict function calling.
    """

    name: str
    description: str
    parameters: Mapping[str, Any]
    strict: bool = False


@dataclass(frozen=True)
class Usage:
    """Tokens of one call, as the service counted them; ``cached_tokens`` are those of the prompt served from cache."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    model: str = DEFAULT_MODEL

    @property
    def total_tokens(self) -> int:
        """Prompt and completion together."""
        return self.prompt_tokens + self.completion_tokens

    @property
    def cost_usd(self) -> float | None:
        """The price in US dollars by the catalog; None for a model that it doesn't list.

        Cached tokens are priced as the others: no lower price is published (the schema).
        """
        card = priced_card(self.model)
        return None if card is None else card.cost_usd(self.prompt_tokens, self.completion_tokens)


@dataclass(frozen=True)
class Trimmed:
    """What ``on_overflow="trim"`` left out of a conversation: the messages, by their index in it, and their tokens."""

    messages: tuple[int, ...]
    tokens: int


@dataclass(frozen=True)
class Completion:
    """A whole answer.

    ``text`` is what the model wrote; in JSON Mode it is the object as JSON text. ``finish_reason`` is one of
    ``"stop"``, ``"length"`` and ``"tool_calls"``, or another word that the service sent. ``request_id`` is the
    ``cf-ray`` of the reply. ``usage`` is None where the service sent none. ``dropped_tool_calls`` are those after the
    first, where the call was made with ``parallel_tool_calls=False``. ``trimmed`` tells which messages were left out of
    the prompt so that it fitted the window; None where all of them were sent.
    """

    text: str
    tool_calls: tuple[ToolCall, ...] = ()
    invalid_tool_calls: tuple[InvalidToolCall, ...] = ()
    usage: Usage | None = None
    finish_reason: str | None = None
    model: str | None = None
    request_id: str | None = None
    dropped_tool_calls: tuple[ToolCall | InvalidToolCall, ...] = ()
    trimmed: Trimmed | None = None


@dataclass(frozen=True)
class ToolCallDelta:
    """A piece of a streamed call. Pieces of one ``index`` belong together; ``id`` and ``name`` come once, first."""

    index: int
    id: str | None
    name: str | None
    arguments: str


@dataclass(frozen=True)
class Delta:
    """A piece of a streamed answer: text, or a piece of a call.

    The last one alone has a ``finish_reason``, the ``usage`` where the service told it, and the whole ``completion``.
    """

    text: str = ""
    tool_call: ToolCallDelta | None = None
    usage: Usage | None = None
    finish_reason: str | None = None
    completion: Completion | None = None

    @classmethod
    def of_text(cls, text: str) -> Delta:
        """A piece of text. What is not set is the class's default; a stream has thousands, which all pay."""
        delta = object.__new__(cls)
        object.__setattr__(delta, "text", text)
        return delta
