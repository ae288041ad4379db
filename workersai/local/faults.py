"""Failures on demand: each of those that the wire page knows of, for tests of programs that must stand them."""

from __future__ import annotations

import random
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from workersai.local.records import RequestRecord

Kind = Literal[
    "code", "error", "html", "empty", "stall", "cut", "end", "garbage", "event", "whole", "dribble", "content-type"
]

_OVERFLOW = (
    "AiError: The estimated number of input and maximum output tokens (35000) exceeded this model context window limit "
    "(24000)"
)
# The wire page's table: each code with its status, and words such as the service uses.
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
}


def _is_code(value: str) -> bool:
    code, _, wait = value.partition(":")
    number, slash, status = code.partition("/")
    return 0 < int(number) < 10**6 and (not slash or int(status) in range(400, 600)) and _is_wait(wait)


def _is_page(value: str) -> bool:
    status, _, wait = value.partition(":")
    return int(status) in range(400, 600) and _is_wait(wait)


def _is_wait(value: str) -> bool:
    return not value or (value.isascii() and value.isdigit())  # as the header has it


def _is_label(value: str) -> bool:
    return re.fullmatch(r"[\w+.-]+/[\w+.-]+(; ?[\w=.-]+)*", value, re.ASCII) is not None


def _is_count(value: str) -> bool:
    return int(value) >= 0


_VALID: Mapping[Kind, Callable[[str], bool]] = {
    "code": _is_code,
    "error": lambda value: int(value) in CODES,
    "html": _is_page,
    "empty": lambda value: int(value) in range(200, 600),
    "stall": _is_count,
    "cut": _is_count,
    "end": _is_count,
    "garbage": _is_count,
    "event": lambda value: int(value) in CODES,
    "whole": lambda value: not value,
    "dribble": lambda value: 0 <= float(value) < _LONGEST_PAUSE,
    "content-type": _is_label,
}


@dataclass(frozen=True)
class Fault:
    """One failure of a reply.

    ======================  =====================================================================================
    written                 what happens
    ======================  =====================================================================================
    ``3040``, ``3040:2``    a refusal with that code, its status and, if given, ``Retry-After`` in seconds
    ``1234/503``            the same with a code of which the wire page says nothing; the status is 400 by default
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
    ======================  =====================================================================================

    The values above are those that ``error``, ``html``, ``empty``, ``event`` and ``dribble`` have by themselves; the
    others have 0, and ``content-type`` has ``text/plain``. Of a body with fewer bytes than a fault lets through,
    nothing is lost.

    Args:
        kind: The word in front; ``"code"`` for a number.
        value: What stands behind it.
        share: Of the replies, those that fail; ``3040@0.1`` is one in ten.

    Raises:
        ValueError: the kind can't have that value, or the share is not above 0 and at most 1.
    """

    kind: Kind
    value: str
    share: float = 1.0

    def __post_init__(self) -> None:
        try:
            valid = self.kind in _VALID and _VALID[self.kind](self.value) and 0 < self.share <= 1
        except ValueError:
            valid = False
        if not valid:
            raise ValueError(
                f"There is no fault of kind {self.kind!r} with {self.value!r} and a share of {self.share}."
            )

    @classmethod
    def parse(cls, written: str) -> Fault:
        """A fault as it is written on the command line: ``KIND``, ``KIND:VALUE``, ``KIND:VALUE@SHARE``.

        Raises:
            ValueError: it is none.
        """
        match = _WRITTEN.fullmatch(written)
        if match is None:
            raise ValueError(f"{written!r} is no fault: it is written KIND, KIND:VALUE or KIND:VALUE@SHARE.")
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
            one = _fault(faults)
            self._choose: Callable[[RequestRecord], str | Fault | None] = lambda _: one
        elif callable(faults):
            self._choose = faults
        else:
            turns = iter([_fault(fault) for fault in faults])
            self._choose = lambda _: next(turns, None)

    def fault_for(self, record: RequestRecord) -> Fault | None:
        """The fault of this reply, or None."""
        with self._lock:
            fault = _fault(self._choose(record))
            return fault if fault is not None and self._dice.random() < fault.share else None


def any_of(specs: Sequence[str]) -> Faults:
    """Each reply suffers the first of these faults whose share it falls into; for the command line."""
    faults, dice = [Fault.parse(spec) for spec in specs], random.Random(1)  # noqa: S311

    def choose(_: RequestRecord) -> Fault | None:
        return next((replace(fault, share=1.0) for fault in faults if dice.random() < fault.share), None)

    return choose


def _fault(given: str | Fault | None) -> Fault | None:
    return Fault.parse(given) if isinstance(given, str) else given
