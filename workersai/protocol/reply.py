"""A reply, in every shape it comes in -> a Completion, or the error that it tells of.

The shapes of a result are read in :mod:`~workersai.protocol.shapes` and the usage in :mod:`~workersai.protocol.usage`,
for whole replies and for the events of a stream alike, so that each quirk has one home.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

from workersai.catalog import SERVICE_MAX_TOKENS
from workersai.errors import ServerError, WorkersAIError, error_for
from workersai.protocol.json_mode import JSONMode
from workersai.protocol.leaks import LeakFilter
from workersai.protocol.shapes import AnswerParts, ShapeError, parts_of_result
from workersai.protocol.stop import before_stop
from workersai.protocol.surrogates import whole_value_of
from workersai.protocol.tool_calls import ToolCallAssembler
from workersai.protocol.tools import Offer
from workersai.protocol.usage import usage_of
from workersai.protocol.values import Completion, Trimmed, Usage

__all__ = ["Asked", "ReplyHead", "completion_from_body", "completion_of", "result_of", "unreadable", "usage_of"]

# The service's own words for reasons that have a name here (wire.md#finish-reasons).
_FINISH_REASONS = {"model_length": "length"}
_FAILED = "error"


@dataclass(frozen=True)
class ReplyHead:
    """What comes before a reply's body; header names are in lower case."""

    status: int
    headers: Mapping[str, str]

    @property
    def ok(self) -> bool:
        """Whether the status promises an answer. A 200 can still tell of a failure (wire.md#envelope)."""
        return 200 <= self.status < 300  # noqa: PLR2004 - HTTP's success

    @property
    def request_id(self) -> str | None:
        """The ``cf-ray``, by which Cloudflare's support finds the request."""
        return self.headers.get("cf-ray")

    @property
    def cache_status(self) -> str | None:
        """``HIT`` or ``MISS`` of an AI Gateway's cache; None where no gateway tells of one."""
        return self.headers.get("cf-aig-cache-status")

    @property
    def from_cache(self) -> bool:
        """Whether the reply is an earlier one, kept by an AI Gateway: no model was asked, and nothing is billed."""
        return (self.cache_status or "").upper() == "HIT"

    @property
    def gateway_log_id(self) -> str | None:
        """The entry of the AI Gateway's log."""
        return self.headers.get("cf-aig-log-id")

    @property
    def neurons(self) -> float | None:
        """The neurons that the ``cf-ai-neurons`` header bills; None without it."""
        try:
            neurons = float(self.headers.get("cf-ai-neurons", ""))
        except ValueError:
            return None
        return neurons if 0 <= neurons < float("inf") else None

    @property
    def retry_after(self) -> float | None:
        """Seconds to wait by the ``Retry-After`` header, given in seconds or as a date."""
        value = self.headers.get("retry-after", "").strip()
        if re.fullmatch(r"\d+(, *\d+)*", value, re.ASCII):  # more than once where two proxies told it
            return max(map(float, value.split(",")))
        try:
            # Measured from the reply's own Date: the two clocks need not agree.
            wait = parsedate_to_datetime(value) - parsedate_to_datetime(self.headers.get("date", ""))
        except (TypeError, ValueError, OverflowError):
            return None
        return max(0.0, wait.total_seconds())


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
        return LeakFilter(self.offer.callable_names)


def completion_from_body(body: bytes, head: ReplyHead, asked: Asked) -> Completion:
    """The answer in a whole reply.

    Raises:
        WorkersAIError: the failure that the reply reports; :class:`ServerError` for one that can't be read.
    """
    if is_empty_answer(body):
        raise ServerError(
            "The service answered with an empty result. Try again, or another model.",
            status_code=head.status,
            request_id=head.request_id,
            retryable=True,
        )
    return completion_of(result_of(body, head), head, asked)


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
    """The error for an answer whose finish reason is ``error`` (wire.md#finish-reasons)."""
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
    """Why the answer ended. The native shape doesn't say, so it is inferred from the reply (wire.md#finish-reasons)."""
    given = _FINISH_REASONS.get(given, given) if isinstance(given, str) else given
    if given is None and usage is not None and _reached(usage.completion_tokens, asked.max_tokens):
        return "length"
    if called and given in (None, "stop"):
        return "tool_calls"
    return str(given or "stop")


def _reached(tokens: int, max_tokens: int | None) -> bool:
    # Where none was asked for, the service's own is known for some models only: more than it was not cut there.
    return tokens == SERVICE_MAX_TOKENS if max_tokens is None else tokens >= max_tokens


def error_of(payload: Any, head: ReplyHead) -> WorkersAIError | None:
    """The failure that a payload or a stream's event tells of, or None where it tells of none."""
    if not isinstance(payload, dict):
        return None
    # AI Gateway's own failures have a list in "error", where the service has an object or "errors".
    entry: Any = payload.get("errors") or payload.get("error")
    if isinstance(entry, list) and entry:
        entry = entry[0]
    if not entry and payload.get("success") is not False:
        return None
    message, code = _message_and_code(entry)
    return _told(message or "The service reported a failure and did not say which", head, code)


def error_from_body(body: bytes, head: ReplyHead) -> WorkersAIError:
    """The error in the body of a reply whose status is not 2xx."""
    try:
        payload = whole_value_of(body)
    except ValueError:
        return _told(_sum_up(body, head), head, None)
    return error_of(payload, head) or _told(f"The service answered {head.status} without a reason", head, None)


def result_of(body: bytes, head: ReplyHead) -> dict[str, Any]:
    """The result inside the envelope; the Worker binding's route sends it bare (wire.md#worker-binding).

    Raises:
        WorkersAIError: the failure that the reply tells of; :class:`ServerError` for one that can't be read.
    """
    try:
        payload = whole_value_of(body)
    except ValueError:
        raise _told(_sum_up(body, head), head, None) from None
    error = error_of(payload, head)
    if error is not None:
        raise error
    if isinstance(payload, dict):
        result = payload.get("result", payload)
        if isinstance(result, dict):
            return result
    raise unreadable("is not of a known shape", head)


def _message_and_code(entry: Any) -> tuple[str, int | None]:
    if not isinstance(entry, dict):
        entry = {"message": entry}
    message, code = str(entry.get("message") or ""), entry.get("code")
    if isinstance(code, str) and code.isascii() and code.isdigit():
        code = int(code[:9])
    if isinstance(code, int) and not isinstance(code, bool):
        return message, code
    # {"message": "4006: you have used up ...", "code": "internal_error"}: the number in front is the code.
    number = re.match(r"(\d{4,5}): ", message)
    return message, int(number[1]) if number else None


def _told(message: str, head: ReplyHead, code: int | None) -> WorkersAIError:
    return error_for(
        message,
        status_code=head.status,
        code=code,
        request_id=head.request_id,
        retry_after=head.retry_after,
    )


def is_empty_answer(body: bytes) -> bool:
    """Whether a reply of success has an empty result: some routes answer a stream request so (wire.md#streams)."""
    try:
        payload = whole_value_of(body)
    except ValueError:
        return False
    return isinstance(payload, dict) and payload.get("success") is True and payload.get("result") in ({}, None)


def unreadable(what: str, head: ReplyHead) -> ServerError:
    """The error for a reply that is not of a known shape."""
    return ServerError(
        f"The reply {what}. If it comes again, please report it with the request id.",
        status_code=head.status,
        request_id=head.request_id,
        retryable=False,
    )


def _sum_up(body: bytes, head: ReplyHead) -> str:
    """One line about a body that is not JSON: the edge in front of the service answers with HTML pages."""
    text = body[:20_000].decode(errors="replace").strip()
    if not text:
        return f"The service answered {head.status} with an empty body, where JSON was expected"
    title = re.search(r"<title[^>]*>([^<]*)", text, re.IGNORECASE)
    if title or text.startswith("<"):
        named = f" titled {' '.join(title[1].split())[:100]!r}" if title else ""
        return f"The service answered {head.status} with an HTML page{named}, where JSON was expected"
    return f"The service answered {head.status} with text that is not JSON: {text.splitlines()[0][:100]!r}"
