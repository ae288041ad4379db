"""Failures on demand: each of those in wire.md#errors, for tests of programs that must stand them."""

from __future__ import annotations

import random
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from workersai.local.records import RequestRecord

Kind = Literal[
    "code",
    "error",
    "html",
    "empty",
    "stall",
    "cut",
    "end",
    "garbage",
    "event",
    "whole",
    "dribble",
    "content-type",
    "item",
]

_OVERFLOW = (
    "AiError: The estimated number of input and maximum output tokens (35000) exceeded this model context window limit "
    "(24000)"
)
# The table of wire.md#error-codes: each code with its status, and words such as the service uses.
CODES: Mapping[int, tuple[int, str]] = {
    10000: (401, "Authentication error"),
    5007: (400, "No such model or task"),
    7000: (400, "No route for that URI"),
    7003: (404, "Could not route to that path"),
    5006: (400, "AiError: Bad input: Error: '/temperature' must be <= 5"),
    5004: (400, "AiError: Invalid data"),
    5024: (400, "AiError: JSON Mode couldn't be met"),
    3039: (400, "AiError: The finetune lacks required files"),
    3003: (400, "AiError: Incomplete request"),
    5021: (413, _OVERFLOW),
    3010: (400, "AiError: This model's maximum context length is 24000 tokens. However, you requested 35000 tokens"),
    5018: (403, "AiError: This account is not allowed to use this model"),
    3041: (403, "AiError: This account is not allowed to use this model"),
    5016: (403, "AiError: The model agreement was not accepted"),
    3023: (403, "AiError: This account is blocked"),
    5019: (405, "AiError: Deprecated SDK version"),
    5005: (405, "AiError: This model does not take a LoRA"),
    3042: (404, "AiError: Invalid model id"),
    3006: (413, "AiError: Request is too large"),
    3007: (408, "AiError: Timeout"),
    3008: (408, "AiError: Aborted"),
    3036: (429, "AiError: You have used up your daily free allocation of 10,000 neurons"),
    4006: (429, "AiError: You have used up your daily free allocation of 10,000 neurons"),
    3040: (429, "AiError: Capacity temporarily exceeded, please try again."),
    5000: (500, "AiError: Internal server error"),
    5028: (410, "AiError: Model has been deprecated: @cf/meta/llama-3-8b-instruct was deprecated on 2026-05-30"),
    5035: (403, "AiError: This model requires the Workers Paid plan"),
    5012: (422, 'AiError: AiError: {"error":{"type":"invalid_request","message":"Request body failed validation"}}'),
    8001: (400, "AiError: AiError: Invalid input"),
    8007: (400, 'AiError: AiError: {"error":{"message":"The request was refused","code":400}}'),
    3030: (400, "AiError: AiError: Sequence too long: 9003 > 8192"),
    3046: (408, "AiError: AiError: Request timeout"),
    8005: (500, "AiError: AiError: Internal server error"),
    2021: (402, "Insufficient balance; add money to your gateway or use BYOK"),
    2045: (429, "The gateway's spend limit was reached"),
    2003: (429, "Rate limited"),
}

_WRITTEN = re.compile(r"(?P<kind>[a-z-]+|\d[\d/]*)(:(?P<value>[^@]+))?(@(?P<share>\d*\.?\d+))?")
_UNKNOWN = "AiError: Something of which the table says nothing"
_LONGEST_PAUSE = 60  # seconds
_DEFAULTS: Mapping[Kind, str] = {
    "error": "4006",
    "html": "502",
    "empty": "200",
    "stall": "0",
    "cut": "0",
    "end": "0",
    "garbage": "0",
    "event": "3040",
    "whole": "",
    "dribble": "0.01",
    "content-type": "text/plain",
    "item": "3040",
}


def _within(low: int, high: int) -> Callable[[str], bool]:
    return lambda value: _is_number(value) and low <= int(value) <= high


def _is_number(value: str) -> bool:
    return value.isascii() and value.isdigit()


def _is_code(value: str) -> bool:
    code, wait = _split(value, ":")
    number, status = _split(code, "/")
    return _within(1, 999_999)(number) and _STATUS(status or "400") and _is_number(wait or "0")


def _is_page(value: str) -> bool:
    status, wait = _split(value, ":")
    return _STATUS(status) and _is_number(wait or "0")


def _split(value: str, at: str) -> tuple[str, str | None]:
    first, found, rest = value.partition(at)
    return first, rest if found else None


def _is_label(value: str) -> bool:
    return re.fullmatch(r"[\w+.-]+/[\w+.-]+(; ?[\w=.-]+)*", value, re.ASCII) is not None


_STATUS = _within(400, 599)
_COUNT = _within(0, 10**9), "a number of bytes"
_LISTED = (lambda value: _is_number(value) and int(value) in CODES), "a code of the service"
# What each kind takes, and how that is said.
_VALID: Mapping[Kind, tuple[Callable[[str], bool], str]] = {
    "code": (_is_code, "a code, as in 3040, 3040:2 (Retry-After in whole seconds) or 1234/503 (a status from 400)"),
    "error": _LISTED,
    "html": (_is_page, "a status from 400 to 599, as in 502 or 503:2 (Retry-After in whole seconds)"),
    "empty": (_within(200, 599), "a status from 200 to 599"),
    "stall": _COUNT,
    "cut": _COUNT,
    "end": _COUNT,
    "garbage": _COUNT,
    "event": _LISTED,
    "whole": ((lambda value: not value), "nothing"),
    "dribble": (
        lambda value: re.fullmatch(r"\d*\.?\d+", value, re.ASCII) is not None and float(value) < _LONGEST_PAUSE,
        f"seconds, below {_LONGEST_PAUSE}",
    ),
    "content-type": (_is_label, "a media type, as in text/plain"),
    "item": ((lambda value: value == "lost" or _LISTED[0](value)), "a code of the service, or the word lost"),
}


@dataclass(frozen=True)
class Fault:
    """One failure of a reply.

    ======================  =====================================================================================
    written                 what happens
    ======================  =====================================================================================
    ``3040``, ``3040:2``    a refusal with that code, its status and, if given, ``Retry-After`` in seconds
    ``1234/503``            the same with a code that the table doesn't list; the status is 400 by default
    ``error:4006``          a refusal in the other form: the code in front of the message, and no envelope
    ``html:502``            the page of the edge, with that status; ``html:503:2`` with ``Retry-After``
    ``empty:200``           an empty body, with that status
    ``stall:100``           nothing more after so many bytes of the body; after 0 of them, the head isn't sent either
    ``cut:100``             the connection is closed after so many bytes of the body; the same
    ``end:100``             the reply ends after so many bytes of the body, as if that were all
    ``garbage:100``         what nobody can read after so many bytes of the body, then the end
    ``event:3040``          a failure after the first piece of a stream; of a whole reply, in a 200
    ``whole``               the whole reply at once where a stream was asked for
    ``dribble:0.01``        the body byte by byte, so many seconds apart
    ``content-type:x/y``    the right reply under a wrong label
    ``item:3040``           the items of a batch fail with that code; ``item:lost`` leaves them out of its reply
    ======================  =====================================================================================

    The values above are those that ``error``, ``html``, ``empty``, ``event``, ``dribble`` and ``item`` have by
    themselves; the others have 0, and ``content-type`` has ``text/plain``. Of a body with fewer bytes than a fault
    lets through, nothing is lost.

    Args:
        kind: The word in front; ``"code"`` for a number.
        value: What stands behind it.
        share: Of the replies, those that fail; ``3040@0.1`` is one in ten. Of ``item``, it is the share of the items.

    Raises:
        ValueError: the kind can't have that value, or the share is not above 0 and at most 1.
    """

    kind: Kind
    value: str
    share: float = 1.0

    def __post_init__(self) -> None:
        if self.kind not in _VALID:
            raise ValueError(f"There is no fault {self.kind!r}: there are {', '.join(_VALID)}.")
        valid, takes = _VALID[self.kind]
        if not (isinstance(self.value, str) and valid(self.value)):
            raise ValueError(f"The value of the fault {self.kind!r} must be {takes}, as a string; got {self.value!r}.")
        if isinstance(self.share, bool) or not isinstance(self.share, int | float) or not 0 < self.share <= 1:
            raise ValueError(f"The share of the fault {self.kind!r} must be above 0 and at most 1; got {self.share!r}.")

    @classmethod
    def parse(cls, written: str) -> Fault:
        """A fault as it is written on the command line: ``KIND``, ``KIND:VALUE``, ``KIND:VALUE@SHARE``.

        Raises:
            ValueError: it is none.
        """
        match = _WRITTEN.fullmatch(written)
        if match is None:
            raise ValueError(f"{written!r} is no fault: write KIND, KIND:VALUE, KIND@SHARE or KIND:VALUE@SHARE.")
        word, value, share = match["kind"], match["value"], float(match["share"] or 1)
        if word[0].isdigit():
            return cls("code", f"{word}:{value}" if value else word, share)
        for kind, default in _DEFAULTS.items():
            if word == kind:
                return cls(kind, value or default, share)
        raise ValueError(f"{written!r} is no fault: there are {', '.join(_DEFAULTS)}, and the codes of the service.")


def refusal(code: int, status: int | None = None) -> tuple[int, str]:
    """Status and words of a code."""
    known, words = CODES.get(code, (400, _UNKNOWN))
    return status or known, words


Faults = str | Fault | Sequence[str | Fault | None] | Callable[[RequestRecord], str | Fault | None]
"""One fault for all replies, one for each in turn (None for none; after the last, none), or one chosen by request."""


class FaultPlan:
    """Chooses the fault of each reply.

    Raises:
        ValueError: a spec is no fault.
    """

    def __init__(self, faults: Faults | None) -> None:
        self._lock = threading.Lock()
        self._dice = random.Random(0)  # noqa: S311 - the same ones fail each time
        if faults is None or isinstance(faults, str | Fault):
            one = _fault(faults, "faults")
            self._choose: Callable[[RequestRecord], str | Fault | None] = lambda _: one
        elif callable(faults):
            self._choose = faults
        elif isinstance(faults, Sequence) and not isinstance(faults, bytes):
            turns = iter([_fault(fault, f"faults[{place}]") for place, fault in enumerate(faults)])
            self._choose = lambda _: next(turns, None)
        else:
            raise ValueError(f"faults must be a str, a Fault, a list of them or a function, not {_kind(faults)}.")

    def fault_for(self, record: RequestRecord) -> Fault | None:
        """The fault of this reply, or None.

        Raises:
            ValueError: a function chose what is none.
        """
        with self._lock:
            fault = _fault(self._choose(record), "What the function given as faults returns")
            if fault is None or fault.kind == "item":  # which of its items fail is decided for each of them
                return fault
            return fault if self._dice.random() < fault.share else None


def any_of(specs: Sequence[str]) -> Faults:
    """Each reply suffers one of these faults or none, each in its share of the replies; for the command line.

    Raises:
        ValueError: one is no fault, or the shares are more than the whole.
    """
    given, dice = [Fault.parse(spec) for spec in specs], random.Random(1)  # noqa: S311
    faults = [fault for fault in given if fault.kind != "item"]
    of_items = next((fault for fault in given if fault.kind == "item"), None)
    if sum(fault.share for fault in faults) > 1.000_001:  # noqa: PLR2004 - rounded
        raise ValueError("The shares of all faults together are more than 1: give each its share, as in 3040@0.1.")

    def choose(_: RequestRecord) -> Fault | None:
        thrown = dice.random()
        for fault in faults:
            thrown -= fault.share
            if thrown < 0:
                return replace(fault, share=1.0)
        return of_items

    return choose


def _fault(given: object, what: str) -> Fault | None:
    if isinstance(given, str):
        return Fault.parse(given)
    if given is None or isinstance(given, Fault):
        return given
    raise ValueError(f"{what} must be a str, a Fault or None, not {_kind(given)}.")


def _kind(value: object) -> str:
    return type(value).__name__
