"""What the Llama 3 chat template puts around a conversation, in tokens: facts of the template, counted once."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

_BEGIN = 1  # <|begin_of_text|>
_TURN = 5  # <|start_header_id|>, the role, <|end_header_id|>, a blank line, <|eot_id|>
_HEADER = 4  # the same without the end: the beginning of the answer
_TOOL_TURN = 6  # its role is "ipython", which is two tokens
_DATES = 20  # the system turn begins with the cutting knowledge date and today's
_ENVIRONMENT = 5  # and, with tools, before that with the environment
_TOOLS = 51  # the sentences before the definitions of the tools, in the first user turn


def prompt_parts(messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]) -> tuple[int, list[str]]:
    """The template's own tokens, and the texts that it puts between them.

    Args:
        messages: As a request has them.
        tools: As a request has them.
    """
    texts = [_text(message) for message in messages]
    own = _BEGIN + _HEADER + sum(_TOOL_TURN if message["role"] == "tool" else _TURN for message in messages)
    own += _DATES if messages[0]["role"] == "system" else _TURN + _DATES  # there is a system turn, asked for or not
    if tools:
        own += _ENVIRONMENT + _TOOLS
        texts += [json.dumps(tool, indent=4, ensure_ascii=False) + "\n\n" for tool in tools]
    return own, texts


def _text(message: Mapping[str, Any]) -> str:
    content: str = message["content"]
    # A tool's answer is written as a string of JSON.
    return json.dumps(content, ensure_ascii=False) if message["role"] == "tool" else content.strip()
