"""The Async Batch form (wire.md#batch): what fits it, the item that a request becomes, and the replies.

The published item has a prompt and sampling settings, and neither messages nor tools. Here the body of a single call
becomes an item of a batch, so that both ask the same.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from workersai.checks import shown
from workersai.errors import BadRequestError, ServerError, WorkersAIError
from workersai.gateway import gateway_of
from workersai.options import CallOptions, RequestOptions
from workersai.protocol.reasoning import require_answer
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
from workersai.protocol.template import MARKUP, frame_tokens, reads_template, rendered, turn_tokens
from workersai.protocol.values import Completion, Usage
from workersai.settings import Settings

MOST_BYTES = 10_000_000
"""The body of a batch is under this many bytes."""

BatchInput = Literal["template", "prompt", "messages"]
"""How a conversation stands in an item of a batch; see :class:`workersai.batch.BatchOptions`."""

FIRST_BATCH_INPUT: BatchInput = "prompt"
"""The form of jobs whose journal names none: they are older than the option."""

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
_ENVELOPE_OF_ITEM = ("id", "external_reference", "success", "result", "errors", "error", "messages")
_LABELS = {"user": "User", "assistant": "Assistant"}
# The service may put its template around a prompt that holds the template already: a frame, and one user's turn.
_SECOND_TEMPLATE = frame_tokens({"role": "user"}, tools=False) + turn_tokens({"role": "user"})
_ENDED = ("completed", "complete", "done", "succeeded", "finished")
_FAILED = ("failed", "error", "errored", "cancelled", "canceled", "expired")


def checked_batch_input(given: Any, model: str) -> BatchInput:
    """The form of a job's conversations; by default the template for Llama 3 models, and messages for all others.

    Whether the service applies a chat template to the prompt of an item is not known (wire.md#batch). With
    the template in the prompt, a Llama 3 model answers in either case, and the item has published fields only.

    Raises:
        BadRequestError: there is no such form, or the model has another template.
    """
    if given is None:
        return "template" if reads_template(model) else "messages"
    if given not in get_args(BatchInput):
        raise BadRequestError(f"batch_input must be 'template', 'prompt' or 'messages', not {shown(given)}.")
    if given == "template" and not reads_template(model):
        raise BadRequestError(
            f"batch_input='template' writes the markup of Llama 3, which {model} doesn't read. Use "
            "batch_input='messages' or 'prompt'."
        )
    form: BatchInput = given
    return form


def unfit_for_batch(body: Mapping[str, Any], form: BatchInput) -> str | None:
    """Why the body of a single call can't be an item of a batch, or None if it can."""
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
        # It would pass for the template's own, and a text could speak for the system, or for the model.
        if form == "template" and (found := MARKUP.search(message["content"])):
            return f"messages: {found[0]} in a text can't be told from the template's own; batch_input='messages' can"
    return None


def item_of(body: Mapping[str, Any], reference: str, form: BatchInput) -> str:
    """The item of a batch that asks the same as the body of a single call, as JSON text.

    A text in the Prompt form is the item's prompt in any case, since it is meant to be continued.
    """
    settings = {name: body[name] for name in _IN_ITEM if name in body}
    return json_text({**_input_of_item(body, form), **settings, "external_reference": reference})


def _input_of_item(body: Mapping[str, Any], form: BatchInput) -> dict[str, Any]:
    if "prompt" in body:
        return {"prompt": body["prompt"]}
    if form == "messages":
        return {"messages": body["messages"]}
    return {"prompt": rendered(body["messages"]) if form == "template" else prompt_of(body["messages"])}


def most_added_tokens(form: BatchInput) -> int:
    """An upper bound of the prompt tokens that messages have in an item beyond those in a single call."""
    return _SECOND_TEMPLATE if form == "template" else 0


def prompt_of(messages: Sequence[Mapping[str, Any]]) -> str:
    """The prompt that a conversation becomes with ``batch_input="prompt"``.

    A user's message alone is the prompt, unchanged. System messages come before it, separated by blank lines. In a
    longer conversation, each turn follows under its label, and the last line is the label of the answer::

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
    """The content of a reply about a batch: its id, its status, or its ``responses``."""

    request_id: str | None
    status: str
    responses: Sequence[Mapping[str, Any]] | None = None
    usage: Usage | None = None

    @property
    def failed(self) -> bool:
        """Whether the batch as a whole came to nothing."""
        return self.status.lower() in _FAILED

    @property
    def lacks_responses(self) -> bool:
        """Whether the batch has ended by its status, but has no responses."""
        return self.responses is None and self.status.lower() in _ENDED


def batch_reply_of(body: bytes, head: ReplyHead, model: str) -> BatchReply:
    """The content of the reply to a submission, or to a poll.

    Clients of the service also read ``results`` for ``responses`` (sample b01).

    Raises:
        WorkersAIError: the failure that it reports; :class:`ServerError` for a reply that can't be read.
    """
    result = result_of(body, head)
    status = result.get("status")
    found = [result[name] for name in ("responses", "results") if result.get(name) is not None]
    responses = next(filter(None, found), found[0] if found else None)
    if responses == [] and isinstance(status, str) and status.lower() not in _ENDED:
        responses = None  # there are none yet
    if responses is not None:
        if not isinstance(responses, list) or not all(isinstance(response, dict) for response in responses):
            raise unreadable("has responses that are no list of objects", head)
        return BatchReply(None, "done", responses, usage_of(result.get("usage"), model))
    request_id = result.get("request_id")
    if not isinstance(status, str):
        raise unreadable("has neither a status nor responses", head)
    return BatchReply(request_id if isinstance(request_id, str) and request_id else None, status)


def placed(responses: Sequence[Mapping[str, Any]], references: Sequence[str]) -> list[Mapping[str, Any] | None]:
    """The response of each item, by its place in the batch; None where there is none.

    ``id`` is the place, and the reference need not be unique (the schema): a response goes to the place that its id
    names, if the reference agrees, and else to the first free one of its reference. A reference that no item has says
    nothing: then the id counts alone.
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
    known = set(references) if strays else set()
    unknown: list[Mapping[str, Any]] = []
    for response in strays:
        reference = response.get("external_reference")
        places = free.get(reference) if isinstance(reference, str) else None
        if places:
            by_place[places.popleft()] = response
        elif not (isinstance(reference, str) and reference in known):
            unknown.append(response)
    for response in unknown:
        named = _index(response, len(references))
        if named is not None and by_place[named] is None:
            by_place[named] = response
    return by_place


def _index(response: Mapping[str, Any], count: int) -> int | None:
    """The place that the id of a response names, if there is such a place."""
    named = response.get("id")
    if isinstance(named, str) and named.isascii() and named.isdigit():
        named = int(named[:9])
    if isinstance(named, bool) or not isinstance(named, int) or not 0 <= named < count:
        return None
    return named


def _place(response: Mapping[str, Any], references: Sequence[str]) -> int | None:
    named = _index(response, len(references))
    return None if named is None or response.get("external_reference") not in (None, references[named]) else named


def outcome_of(response: Mapping[str, Any] | None, head: ReplyHead, asked: Asked) -> Completion | WorkersAIError:
    """The answer of an item, in any shape that a whole reply has, or why there is none."""
    if response is None:
        return ServerError("The reply of the batch left this row out. Ask for it again.", request_id=head.request_id)
    error = error_of(response, head)
    if error is not None:
        return error
    result = response.get("result")
    if result is None:  # as the replies of the Worker binding, an item may have no envelope
        result = {name: value for name, value in response.items() if name not in _ENVELOPE_OF_ITEM}
        if not result:
            return unreadable("has an item with neither a result nor an error", head)
    error = error_of(result, head)
    if error is not None:
        return error
    try:
        completion = completion_of(result if isinstance(result, dict) else {"response": result}, head, asked)
        require_answer(completion, asked)
    except WorkersAIError as failure:
        return failure
    return completion
