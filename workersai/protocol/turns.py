"""The turns of a conversation, as they may be left out of it: a user's message with all that follows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def turns_of(messages: Sequence[Mapping[str, Any]]) -> list[list[int]]:
    """The turns, oldest first, as indices into the messages; system messages are in none.

    What stands before the first user message is a turn, too. A call and its result are in one turn, even where a
    user's message stands between the two.

    Args:
        messages: As a request has them.
    """
    turns: list[list[int]] = []
    asked: dict[str, int] = {}  # the turn of a call, by its id
    for index, message in enumerate(messages):
        role = message["role"]
        if role == "system":
            continue
        if not turns or role == "user":
            turns.append([])
        if role == "tool":
            asking = _asking(message.get("tool_call_id") or "", asked, len(turns) - 1)
            if asking < len(turns) - 1:
                turns[asking:] = [[index for turn in turns[asking:] for index in turn]]
                asked = {call: min(turn, asking) for call, turn in asked.items()}
        turns[-1].append(index)
        for call in message.get("tool_calls", ()):
            asked[call["id"]] = len(turns) - 1
    return turns


def _asking(call: str, asked: Mapping[str, int], this: int) -> int:
    """The turn that holds the call of a result; where one of the two has no id, the last turn that holds any."""
    if call in asked:
        return asked[call]
    return max(asked.values(), default=this) if not call or "" in asked else this
