"""The tool's turns of a conversation: each answers a call that stands before it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from workersai.errors import BadRequestError
from workersai.protocol.values import Message


def checked_history(messages: Sequence[Message]) -> Iterator[Message]:
    """The messages, with the name of its tool in each tool's turn (wire.md#history).

    Raises:
        BadRequestError: a tool's turn answers no call that stands before it.
    """
    names: dict[str, str] = {}  # by the id of the call
    for index, message in enumerate(messages):
        if message.role == "tool":
            if not names:
                raise BadRequestError(
                    f"messages[{index}] is a tool's answer, but no call of a tool stands before it: keep the "
                    "assistant's message that holds the call."
                )
            # A call without an id is any call.
            if message.tool_call_id and message.tool_call_id not in names and "" not in names:
                raise BadRequestError(
                    f"messages[{index}] answers the call {message.tool_call_id!r}, which no message before it holds; "
                    f"there are {', '.join(map(repr, names))}."
                )
            yield message if message.name else replace(message, name=names.get(message.tool_call_id or ""))
            continue
        names |= {call.id: call.name for call in message.tool_calls}
        names |= {call.id: call.name for call in message.invalid_tool_calls}
        yield message
