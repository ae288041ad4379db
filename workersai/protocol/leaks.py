"""A tool call that the model wrote as text -> the wire's form of a call, for ``tool_calls.py`` to read.

A Llama model can write a call out: as an object of a name and parameters (or arguments), in a list, several separated
by ``;``, or behind ``<|python_tag|>`` (wire page, "Replies"). It is a call only where a tool of that name was offered.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from pydantic_core import from_json

_TAG = "<|python_tag|>"
_KEYS = ("type", "id", "name", "parameters", "arguments", "function")
_ARGUMENTS = ("parameters", "arguments")
_BEFORE = re.compile(r"\s*(?:;\s*)?(?:<\|python_tag\|>\s*)?")
_BLANK = "; \t\r\n"  # what may stand between two calls
_OUTSIDE, _INSIDE = re.compile(r'[{}\[\]"]'), re.compile(r'["\\]')
_MOST_BLANK = 500  # characters before a call; beyond that a model is running on
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
        self._found: list[tuple[str, tuple[dict[str, Any], ...]]] = []
        self._start_over("")

    @property
    def held(self) -> str:
        """The text that is held back."""
        return self._held

    def feed(self, text: str) -> str:
        """The part of the text so far that may be shown, and was not shown yet."""
        if not self._names:
            return text
        self._held += text
        shown: list[str] = []
        while self._held and (self._call(shown) if self._may_begin else self._prose(shown)):
            pass
        return "".join(shown)

    def flush(self) -> str:
        """What was held back, once no more text can come."""
        held, self._held = self._held, ""
        return "" if self._called and not held.strip(_BLANK) else held

    def take(self, *, as_text: bool) -> tuple[str, list[dict[str, Any]]]:
        """The calls that were found, as the wire would have them.

        With ``as_text``, they are given back as text: where the service reads the model's calls itself, what it leaves
        in the text is none, or is one that it sends as well.
        """
        found, self._found = self._found, []
        if as_text:
            return "".join(text for text, _ in found), []
        return "", [call for _, calls in found for call in calls]

    def _start_over(self, held: str) -> None:
        self._held = held
        self._end = _EndOfJSON()
        self._looked = 0  # the length at which the text was last looked at

    def _call(self, shown: list[str]) -> bool:
        """Takes a call off the beginning; False: more text is needed to tell."""
        before = _BEFORE.match(self._held)
        start = before.end() if before else 0
        rest = self._held[start:]
        if start <= _MOST_BLANK and (not rest or _TAG.startswith(self._held.lstrip(_BLANK))):
            return False
        if start <= _MOST_BLANK and rest[0] in "{[":
            end = self._end.found(self._held, start)
            if end is None and self._could_be_call(rest):
                return False
            calls = () if end is None else self._calls(self._held[start:end])
            if calls and end is not None:
                self._found.append((rest[: end - start], calls))
                self._called = True
                self._start_over(self._held[end:])
                return True
        self._may_begin = False
        if self._held.startswith(_TAG):  # of a call that was none: shown, or it would be found again
            shown.append(_TAG)
            self._held = self._held[len(_TAG) :]
        return True

    def _prose(self, shown: list[str]) -> bool:
        at = self._held.find(_TAG)
        end = at
        if at < 0:
            lengths = range(min(len(_TAG) - 1, len(self._held)), 0, -1)
            end = len(self._held) - next((n for n in lengths if _TAG.startswith(self._held[-n:])), 0)
        shown.append(self._held[:end])
        self._start_over(self._held[end:])
        self._may_begin = at >= 0
        return at >= 0

    def _could_be_call(self, text: str) -> bool:
        """Whether an unfinished object or list can still become a call."""
        if _OFTEN < len(text) < 2 * self._looked:
            return True
        self._looked = len(text)
        in_list = text.startswith("[")
        if in_list and not re.match(r"\[\s*(\{|\Z)", text):
            return False
        key = self._end.key_begun(self._held, 1 + in_list)
        if key is not None and not any(known.startswith(key) for known in _KEYS):
            return False
        try:
            value = from_json(text, allow_partial="trailing-strings")
        except ValueError:
            return False
        last = (value[-1] if value else {}) if in_list else value
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


class _EndOfJSON:
    """Finds where an object or a list ends, looking at each character once however the text grows."""

    def __init__(self) -> None:
        self._depth = 0
        self._in_string = False
        self._key_at: int | None = None  # where the string begins that is open, if it is a key
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
                    is_key = self._in_string and text[start : at - 1].rstrip()[-1:] in ("{", ",")
                    self._key_at = at if is_key else None
                case "{" | "[":
                    self._depth += 1
                case _:
                    self._depth -= 1
                    if self._depth == 0:
                        return at
        self._at = max(at, len(text))
        return None

    def key_begun(self, text: str, depth: int) -> str | None:
        """What there is of a key that is not complete, of an object at that depth."""
        if self._key_at is None or self._depth != depth or "\\" in text[self._key_at :]:
            return None
        return text[self._key_at :]
