"""One id a conversation, so that all of its calls reach the model instance that has its beginning in the prefix cache.

The ids are digests: nothing of what was said, and of who said it, stands in a header. Each process makes the same.
"""

from __future__ import annotations

import json
from hashlib import sha256
from typing import Any

from workersai.options import AUTO, CallOptions
from workersai.protocol.request import InputBody

_LENGTH = 32  # hexadecimal digits: 128 bits, which two conversations don't share


def affinity_of_thread(thread: object) -> str:
    """The id of a conversation that has a name of its own, as LangGraph's threads have."""
    return _digest(["thread", str(thread)])


def affinity_of_input(given: InputBody) -> str:
    """The id of a conversation by its beginning: all up to its first user's message, which each later turn repeats.

    A text is the message of a user. The tools are left out: a conversation stays the same when it is offered others.
    """
    if "prompt" in given.wire:
        return _digest([["user", given.wire["prompt"]]])
    said = [[message["role"], message["content"]] for message in given.wire["messages"]]
    first = next((index for index, (role, _) in enumerate(said) if role == "user"), 0)
    return _digest(said[: first + 1])


def in_session(options: CallOptions, given: InputBody) -> CallOptions:
    """The options with the id itself in place of ``"auto"``; ``given`` is the input before any of it was left out."""
    if options.session_affinity != AUTO:
        return options
    return options.model_copy(update={"session_affinity": affinity_of_input(given)})


def _digest(said: list[Any]) -> str:
    return sha256(json.dumps(said).encode()).hexdigest()[:_LENGTH]
