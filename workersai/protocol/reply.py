"""A reply, in every shape it comes in -> a Completion, or the error that it tells of.

The stream reads its events through the same functions (:func:`text_of`, :func:`usage_of`, :func:`error_of`), so that
each quirk of a reply has one home.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any

from workersai.catalog import SERVICE_MAX_TOKENS
from workersai.checks import is_number
from workersai.errors import ServerError, WorkersAIError, error_for
from workersai.protocol.json_mode import JSONMode
from workersai.protocol.leaks import LeakFilter
from workersai.protocol.stop import before_stop
from workersai.protocol.surrogates import whole_value_of
from workersai.protocol.tool_calls import ToolCallAssembler
from workersai.protocol.tools import Offer
from workersai.protocol.values import Completion, Trimmed, Usage

_NO_COUNT = 1e12  # tokens


@dataclass(frozen=True)
class ReplyHead:
    """What comes before a reply's body; header names are in lower case."""

    status: int
    headers: Mapping[str, str]

    @property
    def ok(self) -> bool:
        """Whether the status promises an answer. A 200 can still tell of a failure (wire page, "Replies")."""
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

    def assembler(self) -> ToolCallAssembler:
        """What collects the calls of the reply."""
        return ToolCallAssembler(self.offer.nullable, parallel=self.parallel_tool_calls)

    def leaks(self) -> LeakFilter:
        """What finds the calls in its text."""
        return LeakFilter(self.offer.callable_names)


def completion_from_body(body: bytes, head: ReplyHead, asked: Asked) -> Completion:
    """The answer in a whole reply.

    Raises:
        WorkersAIError: the failure that the reply tells of; :class:`ServerError` for one that can't be read.
    """
    return completion_of(result_of(body, head), head, asked)


def completion_of(result: Mapping[str, Any], head: ReplyHead, asked: Asked) -> Completion:
    """The answer in the result of a reply.

    Raises:
        ServerError: it has none that can be read.
    """
    choices = result.get("choices")
    if choices is not None:
        message, finish = _choice(choices, head)
        text, wires = text_of(message.get("content")), message.get("tool_calls")
    elif "response" in result or "tool_calls" in result:
        text, wires, finish = text_of(result.get("response")), result.get("tool_calls"), None
    else:
        raise unreadable("has neither an answer nor an error in it", head)
    text, stopped = before_stop(text, asked.stop)
    finish = "stop" if stopped else finish
    calls = asked.assembler()
    calls.add(calls_of(wires, head))
    leaks = asked.leaks()
    text = leaks.feed(text) + leaks.flush()
    leaked_text, leaked_calls = leaks.take(as_text=bool(wires))
    text += leaked_text
    calls.add(leaked_calls)
    usage = usage_of(result.get("usage"), asked.model, billed=not head.from_cache)
    finish = finish_reason_of(finish, called=calls.any, usage=usage, asked=asked)
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
    )


def text_of(response: Any) -> str:
    """The text in a ``response`` or ``content`` field.

    It is null beside a tool call; an object in JSON Mode; a number or a boolean where the model's text was one.
    """
    if isinstance(response, str):
        return response
    return "" if response is None else json.dumps(response, ensure_ascii=False)


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


def usage_of(usage: Any, model: str, *, billed: bool = True) -> Usage | None:
    """The token counts, or None where there are none. The schema allows them to be fractional numbers.

    What a gateway's cache answers has the counts of the reply that it kept; it is not billed.
    """
    if not isinstance(usage, dict) or not usage:
        return None
    counts = [usage.get(name) or 0 for name in ("prompt_tokens", "completion_tokens")]
    if not all(isinstance(count, int | float) and 0 <= count < _NO_COUNT for count in counts):
        return None  # it is none that could be added up, or priced
    details = usage.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else None
    prompt, completion = _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens"))
    unbilled = (0, 0) if billed else (prompt, completion)
    return Usage(prompt, completion, _count(cached), model, *unbilled)


def _count(number: Any) -> int:
    return int(number) if is_number(number) else 0


def finish_reason_of(given: Any, *, called: bool, usage: Usage | None, asked: Asked) -> str:
    """Why the answer ended. The native shape doesn't say, so it is told from what came (wire page, "Replies")."""
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
    """The result inside the envelope; the Worker binding's route sends it bare (wire page).

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


def _choice(choices: Any, head: ReplyHead) -> tuple[dict[str, Any], Any]:
    """Message and finish reason where a route answers with OpenAI's whole shape as the result."""
    first = choices[0] if isinstance(choices, list) and choices else None
    message = first.get("message") if isinstance(first, dict) else None
    if not isinstance(first, dict) or not isinstance(message, dict):
        raise unreadable("has no message in its choices", head)
    return message, first.get("finish_reason")


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
