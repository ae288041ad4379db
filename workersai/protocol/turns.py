"""The turns of a conversation, as they may be left out of it: a user's message with all that follows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from workersai.protocol.values import InvalidToolCall, Message, ToolCall


def turns_of(messages: Sequence[Message]) -> list[list[int]]:
    """The turns, oldest first, as indices into the messages; system messages are in none.

    What stands before the first user message is a turn, too. A call and its result are in one turn, even where a
    user's message stands between the two.
    """
    begins: list[int] = []  # where each turn begins
    asked: dict[str, int] = {}  # the turn of a call, by its id
    for index, message in enumerate(messages):
        if message.role == "system":
            continue
        if not begins or message.role == "user":
            begins.append(index)
        if message.role == "tool":
            asking = _asking(message.tool_call_id or "", asked, len(begins) - 1)
            if asking < len(begins) - 1:  # the turns from the call's on are one now
                del begins[asking + 1 :]
                asked = {call: min(turn, asking) for call, turn in asked.items()}
        calls: list[ToolCall | InvalidToolCall] = [*message.tool_calls, *message.invalid_tool_calls]
        asked |= {call.id: len(begins) - 1 for call in calls}
    ends = [*begins[1:], len(messages)]
    return [
        [index for index in range(begin, end) if messages[index].role != "system"]
        for begin, end in zip(begins, ends, strict=False)
    ]


def _asking(call: str, asked: Mapping[str, int], this: int) -> int:
    """The turn that holds the call of a result; where one of the two has no id, the last turn that may hold it."""
    if call in asked:
        return asked[call]
    return asked.get("", this) if call else max(asked.values(), default=this)
