"""A reply, in every shape it comes in -> a Completion, or the error that it tells of.

The shapes of a result are read in :mod:`~workersai.protocol.shapes` and the usage in :mod:`~workersai.protocol.usage`,
for whole replies and for the events of a stream alike, so that each quirk has one home.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from workersai.catalog import SERVICE_MAX_TOKENS
from workersai.errors import ServerError, WorkersAIError
from workersai.protocol.json_mode import JSONMode
from workersai.protocol.leaks import LeakFilter
from workersai.protocol.reply_errors import ReplyHead, error_from_body, error_of, result_of, unreadable
from workersai.protocol.shapes import AnswerParts, ShapeError, parts_of_result
from workersai.protocol.stop import before_stop
from workersai.protocol.surrogates import whole_value_of
from workersai.protocol.tool_calls import ToolCallAssembler
from workersai.protocol.tools import Offer
from workersai.protocol.usage import usage_of
from workersai.protocol.values import Completion, Trimmed, Usage

__all__ = [
    "Asked",
    "ReplyHead",
    "completion_from_body",
    "completion_of",
    "error_from_body",
    "error_of",
    "result_of",
    "unreadable",
    "usage_of",
]

# The service's own words for reasons that have a name here (wire.md#whole-replies).
_FINISH_REASONS = {"model_length": "length"}
_FAILED = "error"


@dataclass(frozen=True)
class Asked:
    """What the reader of a reply must know of its request."""

    model: str
    max_tokens: int | None
    stop: tuple[str, ...] = ()
    offer: Offer = field(default_factory=Offer)
    parallel_tool_calls: bool = True
    json_mode: JSONMode | None = None
    trimmed: Trimmed | None = None
    used_call_ids: frozenset[str] = frozenset()
    """The ids of the conversation's earlier tool calls: a new call gets another one."""

    def assembler(self) -> ToolCallAssembler:
        """What collects the calls of the reply."""
        return ToolCallAssembler(self.offer.nullable, parallel=self.parallel_tool_calls, used_ids=self.used_call_ids)

    def leaks(self) -> LeakFilter:
        """What finds the calls in its text."""
        return LeakFilter(self.offer.callable_names, self.offer.parameter_names)


def completion_from_body(body: bytes, head: ReplyHead, asked: Asked) -> Completion:
    """The answer in a whole reply.

    Raises:
        WorkersAIError: the failure that the reply reports; :class:`ServerError` for one that can't be read.
    """
    result = result_of(body, head)
    if not result and is_empty_answer(body):
        raise ServerError(
            "The service answered with an empty result. Try again, or another model.",
            status_code=head.status,
            request_id=head.request_id,
            retryable=True,
        )
    return completion_of(result, head, asked)


def completion_of(result: Mapping[str, Any], head: ReplyHead, asked: Asked) -> Completion:
    """The answer in the result of a reply.

    Raises:
        ServerError: it has none that can be read, or its finish reason says that the model failed; ``partial`` then
            has what there is of the answer.
    """
    try:
        parts = parts_of_result(dict(result))
    except ShapeError as problem:
        raise unreadable(str(problem), head) from None
    completion = _completion(parts, head, asked)
    if parts.finish == _FAILED:
        raise failed_by_finish_reason(ServerError, head, completion)
    return completion


def _completion(parts: AnswerParts, head: ReplyHead, asked: Asked) -> Completion:
    text, stopped = before_stop(parts.text, asked.stop)
    calls = asked.assembler()
    calls.add(calls_of(parts.calls, head), place="choice")
    calls.add(calls_of(parts.calls_beside, head), place="beside")
    leaks = asked.leaks()
    text = leaks.feed(text) + leaks.flush()
    leaked_text, leaked_calls = leaks.take(as_text=calls.any)
    text += leaked_text
    calls.add(leaked_calls, place="text")
    usage = usage_of(parts.usage, asked.model, billed=not head.from_cache, neurons=head.neurons)
    given = "stop" if stopped else parts.finish
    finish = finish_reason_of(given, called=calls.any, usage=usage, asked=asked)
    tool_calls, invalid = calls.calls(cut_off=finish == "length")
    return Completion(
        text=text if asked.json_mode is None else asked.json_mode.answer(text),
        tool_calls=tool_calls,
        invalid_tool_calls=invalid,
        usage=usage,
        finish_reason=finish,
        model=asked.model,
        request_id=head.request_id,
        dropped_tool_calls=calls.dropped(),
        trimmed=asked.trimmed,
        cache_status=head.cache_status,
        gateway_log_id=head.gateway_log_id,
        reasoning=parts.reasoning,
    )


FailureT = TypeVar("FailureT", bound=WorkersAIError)


def failed_by_finish_reason(kind: type[FailureT], head: ReplyHead, partial: Completion | None) -> FailureT:
    """The error for an answer whose finish reason is ``error`` (wire.md#whole-replies)."""
    error = kind(
        "The model failed while it answered: the finish reason is 'error'. Try again.",
        status_code=head.status,
        request_id=head.request_id,
        retryable=True,
    )
    error.partial = partial
    return error


def calls_of(wires: Any, head: ReplyHead) -> list[dict[str, Any]]:
    """The entries of a ``tool_calls`` field, which may be null or absent.

    Raises:
        ServerError: it is no list of objects.
    """
    if not wires:
        return []
    if not isinstance(wires, list) or not all(isinstance(wire, dict) for wire in wires):
        raise unreadable("has tool calls that are no list of objects", head)
    return wires


def finish_reason_of(given: Any, *, called: bool, usage: Usage | None, asked: Asked) -> str:
    """Why the answer ended. The native shape doesn't say, so it is derived (wire.md#finish-reasons)."""
    given = _FINISH_REASONS.get(given, given) if isinstance(given, str) else given
    if given is None and usage is not None and _reached(usage.completion_tokens, asked.max_tokens):
        return "length"
    if called and given in (None, "stop"):
        return "tool_calls"
    return str(given or "stop")


def _reached(tokens: int, max_tokens: int | None) -> bool:
    # Where none was asked for, the service's own is known for some models only: more than it was not cut there.
    return tokens == SERVICE_MAX_TOKENS if max_tokens is None else tokens >= max_tokens


def is_empty_answer(body: bytes) -> bool:
    """Whether a successful reply has an empty result, as routes send for a stream (wire.md#failures-in-streams)."""
    try:
        payload = whole_value_of(body)
    except ValueError:
        return False
    return isinstance(payload, dict) and payload.get("success") is True and payload.get("result") in ({}, None)
