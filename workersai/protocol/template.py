"""The Llama 3 chat template: a conversation as the text that it becomes, and the template's own tokens in it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

MARKUP = re.compile(
    r"<\|(?:begin_of_text|end_of_text|start_header_id|end_header_id|eot_id|eom_id|python_tag|finetune_right_pad_id"
    r"|image|step_id|reserved_special_token_(?:0|[1-9][0-9]{0,2}))\|>"
)
"""The model's own tokens, as a prompt holds them."""

# Each version of Llama Guard has a template of its own; Llama 4 and the distilled models have others, too.
_READERS = re.compile(r"@(?:cf/meta|hf/meta-llama)/(?:meta-)?llama-3(?!.*guard)", re.ASCII)
_BEGIN = 1  # <|begin_of_text|>
_TURN = 5  # <|start_header_id|>, the role, <|end_header_id|>, a blank line, <|eot_id|>
_HEADER = 4  # the same without the end: the beginning of the answer
_TOOL_TURN = 6  # its role is "ipython", which is two tokens
_DATES = 20  # the system turn begins with the cutting knowledge date and today's
_ENVIRONMENT = 5  # and, with tools, before that with the environment
_TOOLS = 51  # the sentences before the definitions of the tools, in the first user turn


def frame_tokens(first: Mapping[str, Any], *, tools: bool) -> int:
    """The template's own tokens of a prompt, without those around each turn.

    Args:
        first: Its first message, as a request has it.
        tools: Whether it offers any.
    """
    system = _DATES if first["role"] == "system" else _TURN + _DATES  # there is such a turn, asked for or not
    return _BEGIN + _HEADER + system + (_ENVIRONMENT + _TOOLS if tools else 0)


def turn_tokens(message: Mapping[str, Any]) -> int:
    """The template's own tokens around one turn."""
    return _TOOL_TURN if message["role"] == "tool" else _TURN


def reads_template(model: str) -> bool:
    """Whether a model is a Llama 3, by its name: only those read this template's markup."""
    return _READERS.match(model) is not None


def rendered(messages: Sequence[Mapping[str, Any]]) -> str:
    """The prompt that the template makes of a conversation, up to the header of the answer.

    Two parts of the template are left out. ``<|begin_of_text|>`` is what a model server puts before a prompt itself;
    the reply to a prompt has the fields of such a server (sample w24). The dates in the system turn depend on the day,
    and a job that is resumed sends the same text as before.

    Args:
        messages: As a request has them, without tool calls.
    """
    turns = [f"{_header(_role(message))}{turn_text(message)}<|eot_id|>" for message in messages]
    return "".join([*turns, _header("assistant")])


def _header(role: str) -> str:
    return f"<|start_header_id|>{role}<|end_header_id|>\n\n"


def _role(message: Mapping[str, Any]) -> str:
    return "ipython" if message["role"] == "tool" else str(message["role"])


def turn_text(message: Mapping[str, Any]) -> str:
    """What the template writes for one turn."""
    content: str = message["content"]
    # A tool's answer is written as a string of JSON.
    return json.dumps(content, ensure_ascii=False) if message["role"] == "tool" else content.strip()


def tool_text(tool: Mapping[str, Any]) -> str:
    """What the template writes for the definition of one tool, as a request has it."""
    return _indented(json.dumps(tool, ensure_ascii=False))


@lru_cache(maxsize=1_024)
def _indented(tool: str) -> str:
    # Python writes indented JSON slowly, and the tools of an agent are the same at each turn.
    return json.dumps(json.loads(tool), indent=4, ensure_ascii=False) + "\n\n"
