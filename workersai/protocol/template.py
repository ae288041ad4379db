"""What the Llama 3 chat template puts around a conversation, in tokens: facts of the template, counted once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

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
