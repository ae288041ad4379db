"""What fits the context window: whether a prompt does, which turns are left out so that it does, and the answer's room.

Prompt and answer share the window (wire.md#limits). Only models of the catalog are held to theirs.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from workersai.catalog import DEFAULT_MAX_TOKENS, SERVICE_MAX_TOKENS, model_card
from workersai.errors import BadRequestError, ContextWindowExceededError
from workersai.options import CallOptions
from workersai.protocol.json_mode import JSONMode
from workersai.protocol.request import InputBody
from workersai.protocol.template import frame_tokens, tool_text, turn_text, turn_tokens
from workersai.protocol.turns import turns_of
from workersai.protocol.values import Trimmed
from workersai.tokens import NO_TOKENS, Tokens, message_tokens, raw_tokens, tool_tokens

logger = logging.getLogger("workersai")

Body = Mapping[str, Any]
Tools = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Fitted:
    """A body that fits: its ``prompt`` or its ``messages``, and what was found out on the way.

    ``max_tokens`` is what to ask for; None leaves it to the service. ``most_tokens`` is an upper bound of the prompt's
    tokens, which holds for every text. It is the count itself if ``counted`` is set and the tokenizer is installed.
    """

    body: Body
    max_tokens: int | None
    most_tokens: int
    trimmed: Trimmed | None = None


def fitted(given: InputBody, tools: Tools, options: CallOptions, *, counted: bool = False) -> Fitted:
    """The body, held to the window of its model as ``on_overflow`` says.

    Args:
        given: The ``prompt`` or the ``messages`` of a request.
        tools: As the request has them.
        options: Those of the call.
        counted: Whether to count in any case; else only a prompt that is near the window's end is.

    Raises:
        ContextWindowExceededError: it does not fit.
        BadRequestError: it is to be trimmed, and the model's window is not known.
    """
    body, card = given.wire, model_card(options.model)
    if card is None:
        if options.on_overflow == "trim":
            raise BadRequestError(
                f"on_overflow: the window of {options.model} is not known, so nothing can be trimmed."
            )
        return Fitted(body, options.max_tokens or options.default_max_tokens, 0)
    default = options.default_max_tokens or DEFAULT_MAX_TOKENS
    wanted = options.max_tokens or default
    most = most_by_bytes(body, tools)
    if most + wanted <= card.context_window and not counted:
        return Fitted(body, wanted, most)
    prompt = _Prompt(given, tools)
    if options.on_overflow == "trim":
        # More than half of it would be no room for a history any more.
        room = options.max_tokens or min(default, card.context_window // 2)
        prompt.trim(card.context_window - room)
    if options.on_overflow != "send" and prompt.tokens.fewest + (options.max_tokens or 1) > card.context_window:
        raise _overflow(prompt, options, card.context_window)
    max_tokens = options.max_tokens or _room(prompt.tokens, card.context_window, default)
    return Fitted(prompt.body, max_tokens, prompt.tokens.most, prompt.trimmed)


def most_by_bytes(body: Body, tools: Tools) -> int:
    """A quick upper bound of the prompt's tokens, which holds for every text: each token has at least one byte."""
    if "prompt" in body:
        return 1 + _bytes(body["prompt"])  # the service may put one token first
    messages = body["messages"]
    texts = [*map(turn_text, messages), *map(tool_text, tools)]
    own = frame_tokens(messages[0], tools=bool(tools)) + sum(map(turn_tokens, messages))
    return own + sum(map(_bytes, texts))


def most_schema_tokens(json_mode: JSONMode | None, *, counted: bool) -> int:
    """An upper bound of what JSON Mode adds to a prompt.

    Whether the service writes the ``response_format`` into the prompt is not published, so a budget allows for it.
    """
    if json_mode is None:
        return 0
    return tool_tokens(json_mode.wire).most if counted else _bytes(tool_text(json_mode.wire))


def _bytes(text: str) -> int:
    # Half of a surrogate pair becomes U+FFFD, which has three bytes as well.
    return len(text) if text.isascii() else len(text.encode(errors="surrogatepass"))


class _Prompt:
    """A prompt that may be too long, with what has been left out of it."""

    def __init__(self, given: InputBody, tools: Tools) -> None:
        self.body: Body = given.wire
        self.given = given
        self.tools = tools
        self.messages: Sequence[Mapping[str, Any]] = given.wire.get("messages", ())
        self.sizes = dict(enumerate(map(message_tokens, self.messages)))  # of those that are kept, by their index
        self.trimmed: Trimmed | None = None
        self._first = 0  # of those that are kept; the first key of a dict takes ever longer as its keys go
        self._text = raw_tokens(given.wire["prompt"]) if "prompt" in given.wire else None
        self._tools = sum(map(tool_tokens, tools), NO_TOKENS)
        self._turns = sum(self.sizes.values(), NO_TOKENS)

    @property
    def tokens(self) -> Tokens:
        """Of all that is kept."""
        if self._text is not None:
            return self._text
        while self._first not in self.sizes:
            self._first += 1
        own = frame_tokens(self.messages[self._first], tools=bool(self.tools))
        return self._turns + self._tools + Tokens.exactly(own)

    def trim(self, limit: int) -> None:
        """Leaves out the oldest turns, until surely no more than so many tokens remain, or none can go."""
        left_out = NO_TOKENS
        for turn in turns_of(self.given.messages)[:-1]:
            if self.tokens.most <= limit:
                break
            gone = sum(map(self.sizes.pop, turn), NO_TOKENS)
            left_out += gone
            self._turns -= gone
        if len(self.sizes) == len(self.messages):
            return
        self.body = {**self.body, "messages": [self.messages[index] for index in self.sizes]}
        indices = tuple(index for index in range(len(self.messages)) if index not in self.sizes)
        self.trimmed = Trimmed(indices, left_out.estimate)
        logger.info("Left out %d messages (%d tokens) to fit the context window.", len(indices), left_out.estimate)


def _room(prompt: Tokens, window: int, most: int) -> int | None:
    """The ``max_tokens`` of a call whose caller set none: what is left of the window.

    It goes by the estimate: by the upper bound, answers to prompts of half the window would be cut short. If the
    estimate is too low, the service refuses the call, and nothing is billed. If the prompt may fill the window, it is
    what the service would take by itself.
    """
    likely, hardly = window - prompt.estimate, window - prompt.fewest
    return min(most, max(likely, min(SERVICE_MAX_TOKENS, hardly))) if hardly > 0 else None


def _overflow(prompt: _Prompt, options: CallOptions, window: int) -> ContextWindowExceededError:
    tokens, room = prompt.tokens.fewest, options.max_tokens
    what = f"Without {len(prompt.trimmed.messages):,} older messages, the prompt" if prompt.trimmed else "The prompt"
    count = f"{'' if prompt.tokens.exact else 'at least '}{tokens:,} tokens"
    answer = f"and the answer may take {room:,} (max_tokens): together more than" if room else "and leaves no room in"
    advice = "Ask for fewer" if room and room >= window else "Shorten it"
    if room and room < window:
        advice += ", or ask for fewer tokens with max_tokens"
    if options.on_overflow != "trim" and len(turns_of(prompt.given.messages)) > 1:
        advice += ", or let the oldest turns be left out with on_overflow='trim'"
    return ContextWindowExceededError(
        f"{what} is {count}, {answer} the context window of {options.model}, which is {window:,}. {_largest(prompt)}"
        f"{advice}.",
        prompt_tokens=tokens,
        max_tokens=room,
        context_window=window,
    )


def _largest(prompt: _Prompt) -> str:
    """Where the tokens are: what to look at first."""
    offered = sum(tool_tokens(tool).fewest for tool in prompt.tools)
    tools = f"The definitions of the tools are {offered:,} of them. " if offered else ""
    if len(prompt.messages) <= 1:  # which is the prompt
        return tools
    index = max(prompt.sizes, key=lambda index: prompt.sizes[index].fewest)
    role, size = prompt.messages[index]["role"], prompt.sizes[index].fewest
    return f"{tools}The largest message is messages[{index}] ({role}), with {size:,} tokens. "
