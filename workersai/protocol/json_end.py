"""Where a JSON object that comes in pieces ends: each character is looked at once, and none is kept."""

from __future__ import annotations

import re

_OUTSIDE, _INSIDE = re.compile(r'[{}\[\]"]'), re.compile(r'["\\]')
_BLANK = " \t\r\n"


class ObjectEnd:
    """Finds the end of an object by its brackets and strings; whether it is JSON is for a parser to say."""

    def __init__(self) -> None:
        self._depth = 0
        self._in_string = False
        self._is_escaped = False  # the last piece ended in a backslash
        self._has_begun = False
        self._is_none = False  # something else stands before it, or behind its end
        self._has_ended = False

    @property
    def is_reached(self) -> bool:
        """Whether the text so far is one object, and nothing but blanks around it."""
        return self._has_ended and not self._is_none

    def advance(self, text: str) -> None:
        """Reads the next piece."""
        at = 0
        if not self._has_begun:
            at = len(text) - len(text.lstrip(_BLANK))
            self._has_begun = at < len(text)
            self._is_none = self._has_begun and text[at] != "{"
        if self._is_none or not text:
            return
        if self._has_ended:
            self._is_none = bool(text.strip(_BLANK))
            return
        at += self._is_escaped
        self._is_escaped = False
        while mark := (_INSIDE if self._in_string else _OUTSIDE).search(text, at):
            at = mark.end()
            match mark[0]:
                case "\\":
                    self._is_escaped = at == len(text)
                    at += 1
                case '"':
                    self._in_string = not self._in_string
                case "{" | "[":
                    self._depth += 1
                case _:
                    self._depth -= 1
                    if self._depth == 0:
                        self._has_ended = True
                        self._is_none = bool(text[at:].strip(_BLANK))
                        return
