"""How many tokens a text or a prompt is for the Llama 3 models, counted exactly or estimated on the safe side.

Exact counts need the extra ``workersai[tokens]``: Meta's own tokenizer from the package ``llama-models``. Without it,
:func:`count_tokens` gives an estimate that is too high rather than too low, and says so once in the log.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Any

from workersai.protocol.estimate import most_tokens
from workersai.protocol.request import Input, messages_to_wire
from workersai.protocol.template import prompt_parts
from workersai.protocol.tools import ToolLike, offer_of

logger = logging.getLogger("workersai")

_HINT = "Token counts are estimated, on the safe side. For exact ones: pip install 'workersai[tokens]'."
# tiktoken is slow on a run of letters or blanks beyond this; Meta's tokenizer splits such runs.
_LONGEST_AT_ONCE = 20_000


def count_tokens(text_or_messages: Input, *, tools: Sequence[ToolLike] | None = None) -> int:
    """The tokens of a text, or of the prompt that a conversation becomes.

    A text is counted as it is. Messages are counted with what the Llama 3 chat template puts around them: headers and
    ends of turns, the date lines of the system turn, the definitions of the tools, and the header of the answer.

    Args:
        text_or_messages: A text, or messages as :meth:`workersai.Client.run` takes them; none are no tokens.
        tools: What the model may call, as for :meth:`workersai.Client.run`; counted with messages only.

    Returns:
        The count; without the extra ``tokens``, an estimate. Measured against the exact count it is 1 to 1.5 times
        as high for English, JSON and code, and up to 3.5 times for other scripts (``benchmarks/tokens.py``).

    Raises:
        BadRequestError: a message or a tool is not one that the service takes.
    """
    if isinstance(text_or_messages, str):
        return _count(text_or_messages)
    if not text_or_messages:
        return 0
    own, texts = prompt_parts(messages_to_wire(text_or_messages), offer_of(tools, None).tools)
    return own + sum(map(_count, texts))


def token_ids(text: str) -> list[int]:
    """The tokens of a text, as the model knows them.

    Raises:
        ImportError: the extra ``tokens`` is not installed.
    """
    if not counts_exactly():
        raise ImportError("The model's own tokens need its tokenizer: pip install 'workersai[tokens]'.")
    encoding = _tokenizer()
    if len(text) <= _LONGEST_AT_ONCE:
        ids: list[int] = encoding.model.encode_ordinary(text)
    else:
        ids = encoding.encode(text, bos=False, eos=False, disallowed_special=())
    return ids


@cache
def counts_exactly() -> bool:
    """Whether counts are exact: the extra ``tokens`` is installed."""
    return importlib.util.find_spec("llama_models") is not None and importlib.util.find_spec("tiktoken") is not None


@lru_cache(maxsize=4_096)
def _count(text: str) -> int:
    # Cached, so that a long conversation isn't counted from its beginning at each turn.
    if counts_exactly():
        return len(token_ids(text))
    _hint()
    return most_tokens(text)


@cache
def _hint() -> None:
    logger.warning(_HINT)


@cache
def _tokenizer() -> Any:
    # 0.2 s and 30 MB, and only for who counts.
    from llama_models.llama3.tokenizer import Tokenizer  # noqa: PLC0415

    return Tokenizer.get_instance()
