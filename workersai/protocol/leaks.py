"""A tool call that the model wrote as text -> the wire's form of a call, for ``tool_calls.py`` to read.

A Llama model can write a call out: as an object of a name and parameters (or arguments), in a list, several separated
by ``;``, or behind ``<|python_tag|>`` (wire.md#text-tool-calls). It is a call only if a tool of that name was offered.

Strategy: the text is read once, by an index that only grows. Prose is searched for the tag. Where a call may begin, a
:class:`~workersai.protocol.call_scan.CallScanner` follows the candidate; its pieces are joined once, when it ends or
breaks. A finished candidate is decoded once. An unfinished one is decoded as well, to show text early that can't become
a call, but only each time that its length has doubled. Where the text is cut into pieces makes no difference to the
text and the calls. Another form of call needs a scanner of its own and the place where it may begin.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import from_json

from workersai.protocol.call_scan import CALL_KEYS, CallScanner

_TAG = "<|python_tag|>"
_ARGUMENTS = ("parameters", "arguments")
_BEFORE = re.compile(r"\s*(?:;\s*)?(?:(<\|python_tag\|>)\s*)?")
_BLANK = "; \t\r\n"  # what may stand between two calls
_MOST_BLANK = 500  # characters before a call; beyond that a model is running on
_OFTEN = 1_024  # characters up to which each piece is looked at; beyond, each doubling


@dataclass
class _Candidate:
    """A text that may become a call: what may stand before it, and what there is of its JSON."""

    pieces: list[str]
    start: int
    """Where the JSON begins in it."""
    length: int
    scanner: CallScanner = field(default_factory=CallScanner)
    looked: int = 0
    """The length at which it was last decoded."""

    def join(self) -> str:
        self.pieces = ["".join(self.pieces)]
        return self.pieces[0]


class LeakFilter:
    """Passes text on, and takes the calls out of it, wherever the text is cut into pieces.

    Text is held back only while it can still become a call: one begins at the very beginning, after another call, or
    behind the tag.
    """

    def __init__(self, names: Collection[str]) -> None:
        self._names = names
        self._may_begin = bool(names)
        self._called = False
        self._tail = ""  # what is held back while no call has begun
        self._candidate: _Candidate | None = None
        self._found: list[tuple[str, tuple[dict[str, Any], ...]]] = []

    @property
    def held(self) -> str:
        """The text that is held back."""
        return self._tail if self._candidate is None else self._candidate.join()

    def feed(self, text: str) -> str:
        """The part of the text so far that may be shown, and was not shown yet."""
        if not self._names or not text:
            return text
        shown: list[str] = []
        candidate = self._candidate
        if candidate is None:
            tail, self._tail = self._tail, ""
            self._read(tail + text, 0, shown)
            return "".join(shown)
        candidate.pieces.append(text)
        candidate.length += len(text)
        end = candidate.scanner.advance(text)
        if end is None and self._may_become_call(candidate):
            return ""
        self._candidate = None
        joined = candidate.join()
        end = None if end is None else len(joined) - len(text) + end
        self._read(joined, self._decide(joined, 0, candidate.start, end, shown), shown)
        return "".join(shown)

    def flush(self) -> str:
        """What was held back, once no more text can come."""
        shown: list[str] = []
        while self._candidate is not None:
            candidate, self._candidate = self._candidate, None
            candidate.looked = 0
            self._tail = candidate.join()
            if not self._may_become_call(candidate):
                text, self._tail = self._tail, ""
                self._read(text, self._decide(text, 0, candidate.start, None, shown), shown)
        held, self._tail = self._tail, ""
        return "".join(shown) + ("" if self._called and not held.strip(_BLANK) else held)

    def take(self, *, as_text: bool) -> tuple[str, list[dict[str, Any]]]:
        """The calls that were found, as the wire would have them.

        With ``as_text``, they are given back as text: where the service reads the model's calls itself, what it leaves
        in the text is none, or is one that it sends as well.
        """
        found, self._found = self._found, []
        if as_text:
            return "".join(text for text, _ in found), []
        return "", [call for _, calls in found for call in calls]

    def _read(self, text: str, at: int | None, shown: list[str]) -> None:
        while at is not None and at < len(text):
            at = self._begin(text, at, shown) if self._may_begin else self._prose(text, at, shown)

    def _prose(self, text: str, at: int, shown: list[str]) -> int | None:
        """Shows the text up to the tag, and returns where that is; None: all was read."""
        end = text.find(_TAG, at)
        self._may_begin = end >= 0
        if end < 0:
            lengths = range(min(len(_TAG) - 1, len(text) - at), 0, -1)
            end = len(text) - next((n for n in lengths if _TAG.startswith(text[-n:])), 0)
            self._tail = text[end:]
        shown.append(text[at:end])
        return end if self._may_begin else None

    def _begin(self, text: str, at: int, shown: list[str]) -> int | None:
        """Follows a call that may begin there, and returns where to read on; None: more text is needed to tell."""
        before = _BEFORE.match(text, at)
        start = before.end() if before else at
        if start - at <= _MOST_BLANK:
            if start == len(text) or (before and not before[1] and _TAG.startswith(text[start : start + len(_TAG)])):
                self._tail = text[at:]
                return None
            if text[start] in "{[":
                candidate = _Candidate([], start - at, len(text) - at)
                end = candidate.scanner.advance(text, start)
                if end is None and not candidate.scanner.is_broken:
                    candidate.pieces.append(text[at:])
                    if self._may_become_call(candidate):
                        self._candidate = candidate
                        return None
                return self._decide(text, at, start, end, shown)
        return self._decide(text, at, start, None, shown)

    def _decide(self, text: str, at: int, start: int, end: int | None, shown: list[str]) -> int:
        """Takes the call out that ends there, if it is one; returns where to read on."""
        calls = () if end is None else self._calls(text[start:end])
        if calls and end is not None:
            self._found.append((text[start:end], calls))
            self._called = True
            return end
        self._may_begin = False
        before = _BEFORE.match(text, at)
        if before and before[1] and start - at <= _MOST_BLANK:
            end = before.end(1)
        else:
            end = at + len(_TAG) * text.startswith(_TAG, at)
        shown.append(text[at:end])  # the tag of a call that was none is shown, or it would be found again
        return end

    def _may_become_call(self, candidate: _Candidate) -> bool:
        """Whether an unfinished object or list can still become a call."""
        if candidate.scanner.is_broken:
            return False
        if _OFTEN < candidate.length < 2 * candidate.looked:
            return True
        candidate.looked = candidate.length
        try:
            value = from_json(candidate.join()[candidate.start :], allow_partial="trailing-strings")
        except ValueError:
            return False
        if not isinstance(value, list):
            return self._could_be(value)
        *done, last = value or [{}]
        return all(map(self._is_call, done)) and self._could_be(last)

    def _could_be(self, value: Any) -> bool:
        if not isinstance(value, dict) or not set(value) <= set(CALL_KEYS):
            return False
        if not "function".startswith(str(value.get("type", ""))):
            return False
        if "function" in value and not self._could_be(value["function"]):
            return False
        name = value.get("name", "")
        if not isinstance(name, str):
            return False
        # Only what comes last can be unfinished.
        unfinished = next(reversed(value), "name") == "name" or "name" not in value
        return name in self._names or (unfinished and any(known.startswith(name) for known in self._names))

    def _calls(self, text: str) -> tuple[dict[str, Any], ...]:
        """The calls that a whole object or list holds; none unless all of it is calls."""
        try:
            value = from_json(text, allow_inf_nan=False)
        except ValueError:
            return ()
        values = value if isinstance(value, list) else [value]
        # Without an id, which the model can only have made up.
        return (
            tuple({**one.get("function", one), "id": None} for one in values) if all(map(self._is_call, values)) else ()
        )

    def _is_call(self, value: Any) -> bool:
        if not self._could_be(value):
            return False
        function = value.get("function", value)
        if function.get("name") not in self._names:
            return False
        return value.get("type") == "function" or any(key in function for key in _ARGUMENTS)
