"""Follows ``NAME>{...}``, which stands behind ``<function=`` in a text tool call of Llama's."""

from __future__ import annotations

import re

from workersai.protocol.call_elements import MOST_BLANK
from workersai.protocol.call_scan import CallScanner
from workersai.protocol.text_call_forms import OfferedTools

_SPACE = re.compile(r"[ \t\r\n]*")


class FunctionCallScanner:
    """The state of one call: the name, the end of the tag, and the object of the arguments."""

    def __init__(self, offered: OfferedTools) -> None:
        self.is_broken = False
        """Whether it can't be a call any more."""
        self.name = ""
        """The name, as far as it was read."""
        self.length = 0
        """How many characters stand before the arguments."""
        self._offered = offered
        self._has_name = False
        self._blank = 0
        self._arguments: CallScanner | None = None

    @property
    def is_done(self) -> bool:
        """Whether the end of the arguments was read."""
        return self._arguments is not None and self._arguments.is_done

    def advance(self, text: str, at: int = 0) -> int:
        """Reads on from there; returns the index behind the end, or of the token that broke it, or the text's length.

        The token can begin before this text; its index is negative then.
        """
        while at < len(text) and not self.is_broken and not self.is_done:
            if self._arguments is not None:
                at = self._arguments.advance(text, at)
                self.is_broken = self._arguments.is_broken
            elif self._has_name:
                at = self._skip_space(text, at)
            else:
                at = self._skip_name(text, at)
        return at

    def _skip_name(self, text: str, at: int) -> int:
        already = len(self.name)
        limit = at + self._offered.longest_name + 1
        end = text.find(">", at, limit)
        self._has_name = end >= 0
        self.name += text[at : end if self._has_name else limit]
        fits = self.name in self._offered.names if self._has_name else self._offered.has_name_with(self.name)
        self.is_broken = not fits
        self.length = len(self.name) + 1
        if self.is_broken:
            return at - already
        return end + 1 if self._has_name else len(text)

    def _skip_space(self, text: str, at: int) -> int:
        found = _SPACE.match(text, at)
        end = at if found is None else found.end()
        self._blank += end - at
        self.length += end - at
        if self._blank > MOST_BLANK:
            self.is_broken = True
        elif end < len(text) and text[end] == "{":
            self._arguments = CallScanner(None)
        else:
            self.is_broken = end < len(text)
        return end
