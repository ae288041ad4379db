"""A tool call that the model wrote as text -> the wire's form of a call, for ``tool_calls.py`` to read.

A model can write a call out: as an object of a name and parameters (or arguments), in a list, several separated by
``;``, behind ``<|python_tag|>``, in a code fence, and in the other forms of wire.md#text-tool-calls. It is a
call only if a tool of that name was offered.

Strategy: the text is read once, by an index that only grows. Prose is searched for the few characters with which a
call can begin. There a :class:`~workersai.protocol.call_passage.CallPassage` follows the text until it breaks, and
decides which part of it is calls. The rest is shown, and reading continues where the passage broke. A code fence that
holds something else is shown as it is, up to its end. Where the text is cut into pieces makes no difference to the text
and the calls. Another form of call is an element of the passage.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from workersai.protocol.call_passage import BLANK, FENCE, CallPassage
from workersai.protocol.text_call_forms import OfferedTools

# What may begin a call, with the character that follows it if that is there already: most brackets are something else.
_BEGINNING = re.compile(r'\{(?=[" \t\r\n]|\Z)|\[(?=[\w{ \t\r\n]|\Z)|<(?=[|f]|\Z)|`(?=``|`?\Z)')
_TICKS = re.compile(r"`+")


class LeakFilter:
    """Passes text on, and takes the calls out of it, wherever the text is cut into pieces.

    Text is held back only while it can still become a call, or decides whether one before it counts.

    Args:
        names: The names of the tools that the model may call.
        parameters: The names of their parameters, by the tool's name; without them, no flat call is read.
    """

    def __init__(self, names: Collection[str], parameters: Mapping[str, Collection[str]] | None = None) -> None:
        self._offered = OfferedTools(names, parameters) if names else None
        self._passage = None if self._offered is None else CallPassage(self._offered, is_first=True)
        self._pieces: list[str] = []  # the text of the passage, without the piece at hand
        self._length = 0  # of that text
        self._in_fence = False
        self._is_opening = False  # more backticks can follow of those that open it
        self._ticks = 0  # backticks with which a piece of a fence ended
        self._found: list[tuple[str, list[dict[str, Any]]]] = []

    @property
    def held(self) -> str:
        """The text that is held back."""
        return "".join(self._pieces)

    def feed(self, text: str) -> str:
        """The part of the text so far that may be shown, and was not shown yet."""
        if self._offered is None or not text:
            return text
        if self._passage is None and not self._in_fence and _BEGINNING.search(text) is None:
            return text  # nearly all pieces are such
        shown: list[str] = []
        at = 0
        if self._passage is not None:
            text, at = self._follow(self._passage, text, 0, shown)
        while at < len(text):
            if self._in_fence:
                at = self._skip_fence(text, at, shown)
                continue
            beginning = _BEGINNING.search(text, at)
            start = len(text) if beginning is None else beginning.start()
            shown.append(text[at:start])
            at = start
            if beginning is not None:
                self._passage = CallPassage(self._offered)
                text, at = self._follow(self._passage, text, start, shown)
        return "".join(shown)

    def flush(self) -> str:
        """What was held back, once no more text can come."""
        if self._passage is None:
            return ""
        held = self.held
        end, calls = self._passage.decide(held, None)
        self._passage, self._pieces, self._length = None, [], 0
        self._keep(held[:end], calls)
        rest = held[end:]
        return "" if calls and not rest.strip(BLANK) else rest

    def take(self, *, as_text: bool) -> tuple[str, list[dict[str, Any]]]:
        """The calls that were found, as the wire would have them.

        With ``as_text``, they are given back as text: where the service reads the model's calls itself, what it leaves
        in the text is none, or is one that it sends as well.
        """
        found, self._found = self._found, []
        if as_text:
            return "".join(text for text, _ in found), []
        return "", [call for _, calls in found for call in calls]

    def _follow(self, passage: CallPassage, text: str, start: int, shown: list[str]) -> tuple[str, int]:
        """Reads on in a passage; returns the text and where to continue in it, which is its end if more is needed."""
        before = self._length
        passage.place(before - start)
        end = passage.advance(text, start)
        if not passage.is_broken:
            self._pieces.append(text[start:])
            self._length += len(text) - start
            return text, len(text)
        self._passage, self._length = None, 0
        if self._pieces:
            text = "".join([*self._pieces, text])
            self._pieces = []
            end += before
            start = 0
        taken, calls = passage.decide(text[start : end + 1], end - start)
        self._keep(text[start : start + taken], calls)
        shown.append(text[start + taken : end])
        self._in_fence, self._is_opening = passage.in_fence, passage.in_long_fence
        return text, end

    def _keep(self, text: str, calls: list[dict[str, Any]]) -> None:
        if calls:
            self._found.append((text.strip(BLANK), calls))

    def _skip_fence(self, text: str, at: int, shown: list[str]) -> int:
        """Shows the text up to the end of a code fence, and returns where that is."""
        start = at
        if self._is_opening:
            opening = _TICKS.match(text, at)
            at = at if opening is None else opening.end()
            self._is_opening = at == len(text)
        while at < len(text):
            if self._ticks and text[at] != "`":
                self._in_fence = self._ticks < FENCE
                self._ticks = 0
                if not self._in_fence:
                    break
            ticked = _TICKS.search(text, at)
            at = len(text) if ticked is None else ticked.end()
            self._ticks += 0 if ticked is None else len(ticked[0])
        shown.append(text[start:at])
        return at
