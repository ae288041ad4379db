"""How many tokens a text or a prompt has for the Llama 3 models: exact counts, or two bounds and an estimate.

Exact counts need the extra ``workersai[tokens]``: Meta's own tokenizer from the package ``llama-models``. Without it,
:func:`count_tokens` returns an estimate, and the log says so once. Each use takes the number that it needs:

============================================  ======================================================================
what needs a number of tokens                 takes
============================================  ======================================================================
the budget of a CostTracker                   ``most``: no call may cost more than was reserved for it
``on_overflow="trim"``                        ``most``: what is left surely fits
a refusal of a prompt that doesn't fit        ``fewest``: no prompt that fits is refused
``max_tokens``, if the caller sets none       ``estimate``, and never less than the service's own default
the finish reason of a batch's answer         ``fewest`` and ``most``: unknown if the limit lies between them
``count_tokens``, the frameworks, the CLI     ``estimate``; the dry run of a batch job shows ``most`` beside it
============================================  ======================================================================
"""

from __future__ import annotations

import importlib.util
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from workersai.errors import BadRequestError
from workersai.protocol.estimate import estimate_tokens
from workersai.protocol.request import Input, messages_to_wire
from workersai.protocol.template import MARKUP, frame_tokens, tool_text, turn_text, turn_tokens
from workersai.protocol.token_bounds import fewest_tokens, most_tokens
from workersai.protocol.tools import ToolLike, offer_of

logger = logging.getLogger("workersai")

_HINT = (
    "Token counts are estimates, and budgets reserve an upper bound for each prompt. For exact counts: "
    "pip install 'workersai[tokens]'."
)
# Meta's tokenizer splits texts and runs of letters or blanks that are longer than this before it encodes them.
_LONGEST_TEXT, _LONGEST_RUN = 400_000, 25_000
_MOST_REMEMBERED = 50_000
_counted: dict[tuple[int, int], Tokens] = {}


@dataclass(frozen=True)
class Tokens:
    """A number of tokens: two bounds that hold for every text, and an estimate. With the tokenizer, all are the count.

    Args:
        fewest: A lower bound.
        most: An upper bound.
        estimate: A number between them, for display.
    """

    fewest: int
    most: int
    estimate: int

    @classmethod
    def exactly(cls, count: int) -> Tokens:
        """A number that is known."""
        return cls(count, count, count)

    @property
    def exact(self) -> bool:
        """Whether the number is known."""
        return self.fewest == self.most

    def __add__(self, other: Tokens) -> Tokens:
        """Both together."""
        return Tokens(self.fewest + other.fewest, self.most + other.most, self.estimate + other.estimate)

    def __sub__(self, other: Tokens) -> Tokens:
        """One without the other."""
        return Tokens(self.fewest - other.fewest, self.most - other.most, self.estimate - other.estimate)


NO_TOKENS = Tokens.exactly(0)


def count_tokens(text_or_messages: Input, *, tools: Sequence[ToolLike] | None = None) -> int:
    """The tokens of a text, or of the prompt that a conversation becomes.

    A text is counted as it is. Messages are counted with what the Llama 3 chat template puts around them: headers and
    ends of turns, the date lines of the system turn, the definitions of the tools, and the header of the answer.

    Args:
        text_or_messages: A text, or messages as :meth:`workersai.Client.run` takes them; none are no tokens.
        tools: What the model may call, as for :meth:`workersai.Client.run`; counted with messages only.

    Returns:
        The count; without the extra ``tokens``, an estimate. Measured, it is 1 to 1.7 times the exact count for
        English, JSON and code, and up to 4 times for other scripts. It can also be too low: 0.6 of the exact count
        for Swahili, 0.3 for random letters. Budgets and the context window don't rely on it.

    Raises:
        BadRequestError: it is neither; or a message or a tool is not one that the service takes.
    """
    if isinstance(text_or_messages, str):
        return text_tokens(text_or_messages).estimate
    if not isinstance(text_or_messages, list | tuple):
        raise BadRequestError(f"A text or a list of messages is counted, not {type(text_or_messages).__name__}.")
    if not text_or_messages:
        return 0
    return prompt_tokens(messages_to_wire(text_or_messages), offer_of(tools, None).tools).estimate


def prompt_tokens(messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]) -> Tokens:
    """The tokens of the prompt that messages and tools become, both as a request has them."""
    own = Tokens.exactly(frame_tokens(messages[0], tools=bool(tools)))
    return sum([*map(message_tokens, messages), *map(tool_tokens, tools)], own)


def message_tokens(message: Mapping[str, Any]) -> Tokens:
    """The tokens of one turn of a conversation, as a request has it, with the template's around it."""
    return text_tokens(turn_text(message)) + Tokens.exactly(turn_tokens(message))


def tool_tokens(tool: Mapping[str, Any]) -> Tokens:
    """The tokens of the definition of one tool, as a request has it."""
    return text_tokens(tool_text(tool))


def raw_tokens(prompt: str) -> Tokens:
    """The tokens of a prompt in the model's own markup.

    The service may put one more in front (``<|begin_of_text|>``): the upper bound and the estimate allow for it.
    """
    if counts_exactly():
        own = Tokens.exactly(len(raw_token_ids(prompt)))
    else:
        markup = Tokens.exactly(len(MARKUP.findall(prompt)))
        own = sum(map(text_tokens, MARKUP.split(prompt)), markup)
    return own + Tokens(0, 1, 1)


def text_tokens(text: str) -> Tokens:
    """The tokens of a text, remembered, so that a long conversation isn't counted from its beginning at each turn."""
    # By its hash: the texts themselves would be kept from being freed.
    key = hash(text), len(text)
    known = _counted.get(key)
    if known is None:
        if len(_counted) >= _MOST_REMEMBERED:
            _counted.clear()
        known = _counted[key] = _count(text)
    return known


def _count(text: str) -> Tokens:
    if counts_exactly():
        return Tokens.exactly(len(token_ids(text)))
    _hint()
    bounds = fewest_tokens(text), most_tokens(text)
    return Tokens(*bounds, estimate_tokens(text, bounds))


def token_ids(text: str) -> list[int]:
    """The tokens of a text, as the model knows them.

    Raises:
        ImportError: the extra ``tokens`` is not installed.
    """
    _need_tokenizer()
    encoding = _tokenizer()
    if len(text) <= _LONGEST_TEXT and not _has_long_run(text):
        ids: list[int] = encoding.model.encode_ordinary(text)
    else:
        ids = encoding.encode(text, bos=False, eos=False, disallowed_special=())
    return ids


def raw_token_ids(prompt: str) -> list[int]:
    """The tokens of a prompt in the model's own markup, without the one that the service may put first.

    Raises:
        ImportError: the extra ``tokens`` is not installed.
    """
    _need_tokenizer()
    ids: list[int] = _tokenizer().encode(prompt, bos=False, eos=False, allowed_special="all", disallowed_special=())
    return ids


def _need_tokenizer() -> None:
    if not counts_exactly():
        raise ImportError("The model's own tokens need its tokenizer: pip install 'workersai[tokens]'.")


def _has_long_run(text: str) -> bool:
    # Meta's own search for them, character by character, takes several times as long as the encoding.
    if len(text) <= _LONGEST_RUN:
        return False
    letters = max(map(len, text.split()), default=0)
    return max(letters, *map(len, re.findall(r"\s{1000,}", text)), 0) > _LONGEST_RUN


@cache
def counts_exactly() -> bool:
    """Whether counts are exact: the extra ``tokens`` is installed."""
    return importlib.util.find_spec("llama_models") is not None and importlib.util.find_spec("tiktoken") is not None


@cache
def _hint() -> None:
    logger.warning(_HINT)


@cache
def _tokenizer() -> Any:
    # 0.2 s and 30 MB, and only for who counts.
    from llama_models.llama3.tokenizer import Tokenizer  # noqa: PLC0415

    return Tokenizer.get_instance()
