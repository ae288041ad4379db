"""A prompt in Llama 3's own markup -> the messages in it, for a small model that reads another markup.

Batch jobs send conversations in Llama's chat template. Llama reads the markup; SmolLM2 would take it for text, and
continue it. So the turns are given to it as messages, which get its own template.
"""

from __future__ import annotations

import json
import re

from workersai.local.engine import ChatMessage

_TURN = re.compile(
    r"<\|start_header_id\|>(system|user|assistant|ipython)<\|end_header_id\|>\n\n(.*?)(?:<\|eot_id\|>|\Z)", re.DOTALL
)
_BEGIN = "<|begin_of_text|>"


def messages_in(prompt: str) -> tuple[ChatMessage, ...]:
    """The turns of a prompt that is a whole conversation and ends with the header of the answer; else none."""
    rest = prompt.removeprefix(_BEGIN)
    turns = list(_TURN.finditer(rest))
    if len(turns) < 2 or "".join(turn[0] for turn in turns) != rest:  # noqa: PLR2004 - a question and a header
        return ()
    *asked, answer = turns
    if (answer[1], answer[2]) != ("assistant", ""):
        return ()
    return tuple(_message(turn[1], turn[2]) for turn in asked)


def _message(role: str, content: str) -> ChatMessage:
    if role != "ipython":
        return ChatMessage(role, content)
    try:
        result = json.loads(content)  # the template writes a tool's result as a string of JSON
    except ValueError:
        result = content
    return ChatMessage("tool", result if isinstance(result, str) else content)
