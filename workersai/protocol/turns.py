"""The turns of a conversation, as they may be left out of it: a user's message with all that follows it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from workersai.protocol.values import InvalidToolCall, Message, ToolCall


def turns_of(messages: Sequence[Message]) -> list[list[int]]:
    """The turns, oldest first, as indices into the messages; system messages are in none.

    What stands before the first user message is a turn, too. A call and its result are in one turn, even where a
    user's message stands between the two.
    """
    begins: list[int] = []  # where each turn begins
    made: dict[str, int] = {}  # the message of a call, by its id: its turn is found by it, also when turns were joined
    last: int | None = None  # the message of the last call
    for index, message in enumerate(messages):
        if message.role == "system":
            continue
        if not begins or message.role == "user":
            begins.append(index)
        if message.role == "tool":
            # Where one of the two has no id, it is the last turn that may hold the call.
            call_id = message.tool_call_id or ""
            caller = made.get(call_id, made.get("") if call_id else last)
            if caller is not None:
                del begins[bisect_right(begins, caller) :]  # the turns from the call's on are one now
        calls: list[ToolCall | InvalidToolCall] = [*message.tool_calls, *message.invalid_tool_calls]
        for call in calls:
            made[call.id] = last = index
    ends = [*begins[1:], len(messages)]
    return [
        [index for index in range(begin, end) if messages[index].role != "system"]
        for begin, end in zip(begins, ends, strict=False)
    ]
