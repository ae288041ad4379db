"""A tool call that the model wrote as text -> the wire's form of a call, for ``tool_calls.py`` to read.

A Llama model can write a call out: as an object of a name and parameters (or arguments), in a list, several separated
by ``;``, or behind ``<|python_tag|>`` (wire page, "Replies"). It is a call only where a tool of that name was offered.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from pydantic_core import from_json

Call = dict[str, Any]

_TAG = "<|python_tag|>"
_KEYS = ("type", "id", "name", "parameters", "arguments", "function")
_ARGUMENTS = ("parameters", "arguments")
_BEFORE = re.compile(r"\s*(?:;\s*)?(?:<\|python_tag\|>\s*)?")
_OUTSIDE, _INSIDE = re.compile(r'[{}\[\]"]'), re.compile(r'["\\]')
_KEY_BEGUN = re.compile(r'[{,]\s*"([^"\\]*)\Z')
_OFTEN = 1_024  # characters up to which each piece is looked at; beyond, each doubling


class LeakFilter:
    """Passes text on, and takes the calls out of it, wherever the text is cut into pieces.

    Text is held back only while it can still become a call: one begins at the very beginning, after another call, or
    behind the tag.
    """

    def __init__(self, names: Collection[str]) -> None:
        self._names = names
        self._may_begin = bool(names)
        self._called = False
        self._held = ""
        self._start_over("")

    @property
    def held(self) -> str:
        """The text that is held back."""
        return self._held

    def feed(self, text: str) -> list[str | Call]:
        """What ``text`` completes: text to show and calls, in their order."""
        if not self._names:
            return [text] if text else []
        self._held += text
        passed: list[str | Call] = []
        while self._held and (self._call(passed) if self._may_begin else self._prose(passed)):
            pass
        return passed

    def flush(self) -> list[str | Call]:
        """What was held back, once no more text can come."""
        held, self._held = self._held, ""
        self._names = ()
        if self._called and not held.strip(" \t\r\n;"):
            return []
        return [held] if held else []

    def _start_over(self, held: str) -> None:
        self._held = held
        self._end = _EndOfJSON()
        self._looked = 0  # the length at which the text was last looked at
        self._sure = False

    def _call(self, passed: list[str | Call]) -> bool:
        """Takes a call off the beginning; False: more text is needed to tell."""
        before = _BEFORE.match(self._held)
        start = before.end() if before else 0
        rest = self._held[start:]
        if not rest or (self._held.lstrip("; \t\r\n") and _TAG.startswith(self._held.lstrip("; \t\r\n"))):
            return False
        if rest[0] in "{[":
            end = self._end.found(self._held, start)
            if end is None and self._could_be_call(rest):
                return False
            calls = [] if end is None else self._calls(self._held[start:end])
            if calls and end is not None:
                passed.extend(calls)
                self._called = True
                self._start_over(self._held[end:])
                return True
        self._may_begin = False
        if self._held.startswith(_TAG):  # of a call that was none: shown, or it would be found again
            passed.append(_TAG)
            self._held = self._held[len(_TAG) :]
        return True

    def _prose(self, passed: list[str | Call]) -> bool:
        at = self._held.find(_TAG)
        if at >= 0:
            shown = at
        else:
            lengths = range(min(len(_TAG) - 1, len(self._held)), 0, -1)
            shown = len(self._held) - next((n for n in lengths if _TAG.startswith(self._held[-n:])), 0)
        if shown:
            passed.append(self._held[:shown])
        self._start_over(self._held[shown:])
        self._may_begin = at >= 0
        return at >= 0

    def _could_be_call(self, text: str) -> bool:
        """Whether an unfinished object or list can still become a call."""
        if self._sure or _OFTEN < len(text) < 2 * self._looked:
            return True
        self._looked = len(text)
        in_list = text.startswith("[")
        if in_list and not re.match(r"\[\s*(\{|\Z)", text):
            return False
        begun = _KEY_BEGUN.search(text) if self._end.depth == 1 + in_list else None
        if begun and not any(key.startswith(begun[1]) for key in _KEYS):
            return False
        try:
            value = from_json(text, allow_partial="trailing-strings")
        except ValueError:
            return False
        last = (value[-1] if value else {}) if in_list else value
        self._sure = not in_list and self._is_call(value)
        done = value[:-1] if in_list else []
        return all(map(self._is_call, done)) and self._could_be(last)

    def _could_be(self, value: Any) -> bool:
        if not isinstance(value, dict) or not set(value) <= set(_KEYS):
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

    def _calls(self, text: str) -> list[Call]:
        """The calls that a whole object or list holds; none unless all of it is calls."""
        try:
            value = from_json(text)
        except ValueError:
            return []
        values = value if isinstance(value, list) else [value]
        return values if all(map(self._is_call, values)) else []

    def _is_call(self, value: Any) -> bool:
        if not isinstance(value, dict) or not set(value) <= set(_KEYS):
            return False
        function = value.get("function", value)
        name = function.get("name") if isinstance(function, dict) else None
        if not isinstance(name, str) or name not in self._names:
            return False
        return value.get("type") == "function" or any(key in function for key in _ARGUMENTS)


class _EndOfJSON:
    """Finds where an object or a list ends, looking at each character once however the text grows."""

    def __init__(self) -> None:
        self.depth = 0
        self._in_string = False
        self._at: int | None = None

    def found(self, text: str, start: int) -> int | None:
        """The index behind the end, or None where it isn't there yet."""
        at = start if self._at is None else self._at
        while mark := (_INSIDE if self._in_string else _OUTSIDE).search(text, at):
            at = mark.end()
            match mark[0]:
                case "\\":
                    at += 1
                case '"':
                    self._in_string = not self._in_string
                case "{" | "[":
                    self.depth += 1
                case _:
                    self.depth -= 1
                    if self.depth == 0:
                        return at
        self._at = max(at, len(text))
        return None
