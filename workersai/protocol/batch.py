"""The Async Batch form (wire.md#batch): what fits it, the prompt that a conversation becomes, and the replies.

A batch takes prompts and sampling settings, and neither messages nor tools. Here the body of a single call becomes an
item of a batch, so that both are asked the same.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from workersai.errors import ServerError, WorkersAIError
from workersai.gateway import gateway_of
from workersai.options import CallOptions, RequestOptions
from workersai.protocol.reply import (
    Asked,
    ReplyHead,
    completion_of,
    error_of,
    result_of,
    unreadable,
    usage_of,
)
from workersai.protocol.request import Request, json_text, request_to
from workersai.protocol.values import Completion, Usage
from workersai.settings import Settings

MOST_BYTES = 10_000_000
"""The body of a batch is under this many bytes."""

_AROUND = len('{"requests":[]}')
# The fields of an item (the schema's Async Batch form), beside the prompt and the reference.
_IN_ITEM = (
    "max_tokens",
    "temperature",
    "top_p",
    "seed",
    "repetition_penalty",
    "frequency_penalty",
    "presence_penalty",
    "response_format",
)
_NOT_NEGATIVE = ("frequency_penalty", "presence_penalty")  # in an item; a single call takes them from -2
_LABELS = {"user": "User", "assistant": "Assistant"}
_FAILED = ("failed", "error", "errored", "cancelled", "canceled", "expired")


def unfit_for_batch(body: Mapping[str, Any]) -> str | None:
    """Why the body of a single call can't be an item of a batch, or None where it can."""
    for name, value in body.items():
        if name not in (*_IN_ITEM, "prompt", "messages") and value is not False:
            option = "reject_if_busy" if name == "options" else name
            return f"{option}: a batch takes none"
    for name in _NOT_NEGATIVE:
        if body.get(name, 0) < 0:
            return f"{name}: a batch takes none below 0"
    for message in body.get("messages", ()):
        if message["role"] not in (*_LABELS, "system") or "tool_calls" in message:
            return "messages: a batch takes no tool calls, and no results of them"
    return None


def item_of(body: Mapping[str, Any], reference: str) -> str:
    """The item of a batch that asks what the body of a single call asks, as JSON text."""
    prompt = body["prompt"] if "prompt" in body else prompt_of(body["messages"])
    settings = {name: body[name] for name in _IN_ITEM if name in body}
    return json_text({"prompt": prompt, **settings, "external_reference": reference})


def prompt_of(messages: Sequence[Mapping[str, Any]]) -> str:
    """The prompt that a conversation becomes, since a batch takes no messages; the service makes it a user's turn.

    A user's message alone is the prompt, as it stands. System messages come before it, a blank line between each two.
    Of a longer conversation, each further turn follows under its label, and the last line asks for the next one::

        You are terse.

        User: Hi!

        Assistant: Hello.

        User: What is a rainbow?

        Assistant:
    """
    system = [message["content"] for message in messages if message["role"] == "system"]
    turns = [message for message in messages if message["role"] != "system"]
    if len(turns) == 1 and turns[0]["role"] == "user":
        return "\n\n".join([*system, turns[0]["content"]])
    told = [f"{_LABELS[turn['role']]}: {turn['content']}" for turn in turns]
    return "\n\n".join([*system, *told, "Assistant:"])


def bytes_of(item: str) -> int:
    """What an item adds to the body, with the comma before it."""
    return len(item.encode()) + 1


def submit_request(settings: Settings, options: CallOptions, items: Sequence[str]) -> Request:
    """The request that submits a batch of items."""
    content = f'{{"requests":[{",".join(items)}]}}'.encode()
    return queue_request(settings, options, content)


def poll_request(settings: Settings, options: CallOptions, request_id: str) -> Request:
    """The request that asks how far a batch is."""
    content = json_text({"request_id": request_id}).encode()
    return queue_request(settings, options, content)


def queue_request(settings: Settings, options: RequestOptions, content: bytes) -> Request:
    """A request to the Batch API."""
    if options.gateway is not None:
        # All polls of a batch are equal: from a cache, each would be told what the first one was.
        options = options.model_copy(update={"gateway": gateway_of(options.gateway).past_its_cache()})
    return request_to(settings, options, content, query="?queueRequest=true")


def room(most_bytes: int = MOST_BYTES) -> int:
    """What the items of one body may take together."""
    return most_bytes - 1 - _AROUND


@dataclass(frozen=True)
class BatchReply:
    """What a reply tells of a batch: its id, how far it is, or its ``responses``."""

    request_id: str | None
    status: str
    responses: Sequence[Mapping[str, Any]] | None = None
    usage: Usage | None = None

    @property
    def failed(self) -> bool:
        """Whether the batch as a whole came to nothing."""
        return self.status.lower() in _FAILED


def batch_reply_of(body: bytes, head: ReplyHead, model: str) -> BatchReply:
    """What a reply to a submission, or to a poll, tells.

    Raises:
        WorkersAIError: the failure that it tells of; :class:`ServerError` for one that can't be read.
    """
    result = result_of(body, head)
    responses, status = result.get("responses"), result.get("status")
    if responses is not None:
        if not isinstance(responses, list) or not all(isinstance(response, dict) for response in responses):
            raise unreadable("has responses that are no list of objects", head)
        return BatchReply(None, "done", responses, usage_of(result.get("usage"), model))
    request_id = result.get("request_id")
    if not isinstance(status, str):
        raise unreadable("tells neither a status nor responses", head)
    return BatchReply(request_id if isinstance(request_id, str) and request_id else None, status)


def placed(responses: Sequence[Mapping[str, Any]], references: Sequence[str]) -> list[Mapping[str, Any] | None]:
    """The response of each item, by its place in the batch; None where there is none.

    ``id`` is the place, and the reference need not be unique (the schema): a response goes to the place that its id
    names, if the reference agrees, and else to the first free one of its reference.
    """
    by_place: list[Mapping[str, Any] | None] = [None] * len(references)
    strays: list[Mapping[str, Any]] = []
    for response in responses:
        place = _place(response, references)
        if place is None or by_place[place] is not None:
            strays.append(response)
        else:
            by_place[place] = response
    free: dict[object, deque[int]] = {}
    for place, response_here in enumerate(by_place if strays else ()):
        if response_here is None:
            free.setdefault(references[place], deque()).append(place)
    for response in strays:
        reference = response.get("external_reference")
        places = free.get(reference) if isinstance(reference, str) else None
        if places:
            by_place[places.popleft()] = response
    return by_place


def _place(response: Mapping[str, Any], references: Sequence[str]) -> int | None:
    named = response.get("id")
    if isinstance(named, str) and named.isascii() and named.isdigit():
        named = int(named[:9])
    if isinstance(named, bool) or not isinstance(named, int) or not 0 <= named < len(references):
        return None
    reference = response.get("external_reference")
    return named if reference in (None, references[named]) else None


def outcome_of(response: Mapping[str, Any] | None, head: ReplyHead, asked: Asked) -> Completion | WorkersAIError:
    """The answer of an item, or why there is none."""
    if response is None:
        return ServerError("The reply of the batch left this row out. Ask for it again.", request_id=head.request_id)
    error = error_of(response, head)
    if error is not None:
        return error
    result = response.get("result")
    if result is None:
        return unreadable("has an item with neither a result nor an error", head)
    try:
        return completion_of(result if isinstance(result, dict) else {"response": result}, head, asked)
    except WorkersAIError as failure:
        return failure
