"""Reads the failure that a reply or a stream's event reports, in every shape it comes in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from typing import Any

from workersai.error_table import error_for
from workersai.errors import ServerError, WorkersAIError
from workersai.protocol.surrogates import whole_value_of

_KEYS = ("error", "errors", "message", "detail", "msg")
_MOST_WRAPPERS = 4
_LONGEST_WRAPPER = 100_000  # characters


@dataclass(frozen=True)
class ReplyHead:
    """What comes before a reply's body; header names are in lower case."""

    status: int
    headers: Mapping[str, str]

    @property
    def ok(self) -> bool:
        """Whether the status promises an answer. A 200 can still tell of a failure (wire.md#whole-replies)."""
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


def error_of(payload: Any, head: ReplyHead) -> WorkersAIError | None:
    """Returns the failure that a payload or a stream's event reports; None if it reports none."""
    if not isinstance(payload, dict):
        return None
    # AI Gateway's own failures have a list in "error", where the service has an object or "errors".
    entry: Any = payload.get("errors") or payload.get("error")
    if isinstance(entry, list) and entry:
        entry = entry[0]
    if not entry and payload.get("success") is not False:
        return None
    message, code = _message_and_code(entry)
    if not message or code is None:
        # The gateway repeats both beside its list.
        whole, number = _message_and_code(
            {"message": payload.get("message"), "code": payload.get("internalCode", payload.get("code"))}
        )
        message, code = message or whole, number if code is None else code
    return _told(message or "The service reported a failure and did not say which", _with_status(head, payload), code)


def _with_status(head: ReplyHead, payload: Mapping[str, Any]) -> ReplyHead:
    """The head with the status that the gateway's body names, if its own promises an answer."""
    status = payload.get("httpCode")
    if head.ok and isinstance(status, int) and 300 <= status < 600:  # noqa: PLR2004 - HTTP's failures
        return replace(head, status=status)
    return head


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
    given = entry.get("message")
    words, number = _words_in(given) if isinstance(given, dict | list) else ("", None)
    message, inner = _unwrapped(words or str(given or ""))
    code = entry.get("code")
    if isinstance(code, str) and code.isascii() and code.isdigit():
        code = int(code[:9])
    if isinstance(code, int) and not isinstance(code, bool):
        return message, code
    # {"message": "4006: you have used up ...", "code": "internal_error"}: the number in front is the code.
    front = re.match(r"(?:AiError: )?(\d{4,5}): ", message)
    return message, int(front[1]) if front else number or inner


def _unwrapped(message: str) -> tuple[str, int | None]:
    """A message without the JSON around its words, and the service's code if that JSON has one.

    The service passes on what a model's server said as ``AiError: AiError: {"error": {"message": ...}} (id)``.
    """
    code: int | None = None
    for _ in range(_MOST_WRAPPERS):
        start, end = message.find("{"), message.rfind("}") + 1
        if not 0 <= start < end or end - start > _LONGEST_WRAPPER:
            break
        try:
            value = whole_value_of(message[start:end].encode(errors="replace"))
        except ValueError:
            break
        words, number = _words_in(value)
        if not words:
            break
        message, code = message[:start] + words + message[end:], code or number
    return re.sub(r"(?:AiError:\s*)+", "AiError: ", message), code


def _words_in(value: Any, depth: int = 0) -> tuple[str, int | None]:
    """The message in an error's JSON, whatever key holds it; empty if there is none."""
    if isinstance(value, str):
        return value.strip(), None
    inner: list[Any] = []
    if isinstance(value, dict):
        inner = [value[key] for key in _KEYS if key in value]
    elif isinstance(value, list):
        inner = value[:_MOST_WRAPPERS]
    for each in inner if depth < _MOST_WRAPPERS else ():
        words, code = _words_in(each, depth + 1)
        if words:
            return words, code or _code_in(value)
    return "", None


def _code_in(value: Any) -> int | None:
    number = value.get("code") if isinstance(value, dict) else None
    return number if type(number) is int and 1_000 <= number < 100_000 else None  # noqa: PLR2004 - not HTTP's


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
