"""The values that travel: what is asked, and what comes back, in the field's terms and free of any framework."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from workersai.catalog import DEFAULT_MODEL, ModelCard, priced_card

Role = Literal["system", "user", "assistant", "tool"]
ROLES: tuple[Role, ...] = ("system", "user", "assistant", "tool")
"""The roles that the service knows (wire.md#requests)."""


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
    """Tokens of one call, as the service counted them; ``cached_tokens`` are those of the prompt served from cache.

    There are two caches. ``cached_tokens`` and ``cached_share`` are how much of the prompt was in the model's prefix
    cache, which saves time. It also saves money for models with a published price for cached input. An AI Gateway's
    cache saves the whole call, which isn't billed: the ``unbilled`` tokens are those of the reply that it kept, and
    ``saved_usd`` is what they would have cost.
    """

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    model: str = DEFAULT_MODEL
    unbilled_prompt_tokens: int = 0
    unbilled_completion_tokens: int = 0
    neurons: float | None = None
    """Cloudflare's unit of billing, if the service reported it; $0.011 for 1,000 (the pricing page)."""
    unbilled_cached_tokens: int = 0
    """The ``cached_tokens`` among the unbilled ones. Default: all of them if no token of the prompt is billed."""

    def __post_init__(self) -> None:
        if 0 < self.prompt_tokens <= self.unbilled_prompt_tokens:
            object.__setattr__(self, "unbilled_cached_tokens", self.cached_tokens)

    def __add__(self, other: Usage) -> Usage:
        """The tokens of two calls of the same model. Neurons are kept only if both calls reported them."""
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.cached_tokens + other.cached_tokens,
            self.model,
            self.unbilled_prompt_tokens + other.unbilled_prompt_tokens,
            self.unbilled_completion_tokens + other.unbilled_completion_tokens,
            None if self.neurons is None or other.neurons is None else self.neurons + other.neurons,
            self.unbilled_cached_tokens + other.unbilled_cached_tokens,
        )

    @property
    def total_tokens(self) -> int:
        """Prompt and completion together."""
        return self.prompt_tokens + self.completion_tokens

    @property
    def cost_usd(self) -> float | None:
        """The price in US dollars of what is billed, from the catalog; None for a model that it doesn't list.

        Cached tokens have the model's price for cached input if one is published, else the normal one. Unbilled tokens
        cost nothing.
        """
        return _price(
            self.model,
            self.prompt_tokens - self.unbilled_prompt_tokens,
            self.completion_tokens - self.unbilled_completion_tokens,
            self.cached_tokens - self.unbilled_cached_tokens,
        )

    @property
    def saved_usd(self) -> float | None:
        """What an AI Gateway's cache saved, in US dollars; None for a model that the catalog doesn't list."""
        return _price(
            self.model, self.unbilled_prompt_tokens, self.unbilled_completion_tokens, self.unbilled_cached_tokens
        )

    @property
    def cached_share(self) -> float:
        """The share of the prompt that was in the prefix cache, 0 to 1."""
        return self.cached_tokens / self.prompt_tokens if self.prompt_tokens else 0.0


def _price(model: str, prompt_tokens: int, completion_tokens: int, cached_tokens: int) -> float | None:
    """US dollars; nothing costs nothing, whatever the model's price."""
    if not prompt_tokens and not completion_tokens:
        return 0.0
    card = priced_card(model)
    if isinstance(card, ModelCard):
        return card.cost_usd(prompt_tokens, completion_tokens, cached_tokens)
    return None if card is None else card.cost_usd(prompt_tokens, completion_tokens)


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
    the prompt so that it fitted the window; None where all of them were sent. ``cache_status`` is ``"HIT"`` where an AI
    Gateway's cache answered, ``"MISS"`` where it kept the answer for the next time, and None where no gateway says;
    ``gateway_log_id`` names the entry of its log. ``reasoning`` is what a reasoning model thought before it answered,
    or empty.
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
    cache_status: str | None = None
    gateway_log_id: str | None = None
    reasoning: str = ""

    @property
    def reasoning_only(self) -> bool:
        """Whether the model ran out of tokens while it was still thinking, so that there is no answer."""
        written = self.text.strip() or self.tool_calls or self.invalid_tool_calls
        return bool(self.finish_reason == "length" and self.reasoning and not written)


@dataclass(frozen=True)
class ToolCallDelta:
    """A piece of a streamed call. Pieces of one ``index`` belong together; ``id`` and ``name`` come once, first."""

    index: int
    id: str | None
    name: str | None
    arguments: str


@dataclass(frozen=True)
class Delta:
    """A piece of a streamed answer: text, a piece of a call, or a piece of a model's reasoning.

    The last one alone has a ``finish_reason``, the ``usage`` where the service told it, and the whole ``completion``.
    """

    text: str = ""
    tool_call: ToolCallDelta | None = None
    usage: Usage | None = None
    finish_reason: str | None = None
    completion: Completion | None = None
    reasoning: str = ""

    @classmethod
    def of_text(cls, text: str) -> Delta:
        """A piece of text. What is not set is the class's default; a stream has thousands, which all pay."""
        delta = object.__new__(cls)
        object.__setattr__(delta, "text", text)
        return delta
