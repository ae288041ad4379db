"""Replies that hold reasoning and nothing else, because the model ran out of tokens before it wrote an answer.

Reasoning models think by default, and their thoughts count against ``max_tokens`` (wire.md#whole-replies). Such a
reply holds neither an object nor a tool call, if one was asked for. The errors that say so, and those about an answer
that was cut off later, get their words here.
"""

from __future__ import annotations

from workersai.errors import ReasoningOnlyError
from workersai.protocol.reply import Asked
from workersai.protocol.values import Completion

OUT_OF_TOKENS = (
    "The model ran out of tokens while thinking: all of them went into reasoning, and it wrote no answer. Raise "
    "max_tokens, or lower the reasoning effort."
)
"""What happened, and what to do about it."""


def require_answer(completion: Completion, asked: Asked) -> None:
    """Checks a reply that must hold an object or a tool call.

    A request for text passes: its completion has ``reasoning_only`` set, and the caller decides.

    Raises:
        ReasoningOnlyError: the model ran out of tokens while thinking; ``partial`` is the completion.
    """
    if not completion.reasoning_only:
        return
    if asked.json_mode is not None:
        wanted = "The answer must be JSON (response_format)."
    elif asked.offer.choice not in (None, "auto", "none"):
        wanted = "The answer must be a tool call (tool_choice)."
    else:
        return
    raise ReasoningOnlyError(f"{OUT_OF_TOKENS} {wanted}", request_id=completion.request_id, partial=completion)


def cut_off_message(wanted: str, text: str, *, reasoning_only: bool) -> str:
    """The message of an error about an answer that reached ``max_tokens`` before it was whole.

    Args:
        wanted: The name of the object or the tool that was asked for.
        text: What the model wrote of the answer.
        reasoning_only: Whether it was still thinking.
    """
    if reasoning_only:
        return f"{OUT_OF_TOKENS} {wanted} was asked for."
    return f"The answer was cut off at max_tokens, before the {wanted} was whole: give a larger one. It began: {text}"
