"""Follows a passage of text tool calls: one or several calls, with what belongs to them, and where they end.

A passage is a sequence of elements, with blanks and ``;`` in between. An element is a JSON object or list, a list in
Python's form, ``<function=NAME>{...}</function>``, each with or without ``<|python_tag|>`` in front, or a code fence
around such elements. The passage breaks at the first token that fits none of them. What becomes of its elements is
decided then, with the text that follows:

- At the beginning of the answer and behind the tag, a call counts whatever follows it.
- Elsewhere a call in a sentence may be a quotation. It counts if nothing more follows on its last line. If it stands
  inside of brackets that close behind it, it doesn't count. The same holds for fences and Python's form anywhere.

Where the text is cut makes no difference: the passage breaks at a place that depends on the text alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from workersai.protocol.call_elements import (
    MOST_BLANK,
    Call,
    Element,
    Reader,
    arguments_reader,
    chosen,
    json_reader,
    python_reader,
)
from workersai.protocol.call_scan import CallScanner
from workersai.protocol.function_calls import FunctionCallScanner
from workersai.protocol.python_calls import PythonCallScanner
from workersai.protocol.text_call_forms import OfferedTools

TAG = "<|python_tag|>"
_FUNCTION = "<function="
_FUNCTION_END = "</function>"
FENCE = 3  # backticks
BLANK = "; \t\r\n"
"""What may stand between two calls."""
_BLANKS = re.compile(r"[; \t\r\n]*")
_SPACE = re.compile(r"[ \t\r\n]*")
_LANGUAGE = re.compile(r"[\w+-]*")
_LONGEST_LANGUAGE = 20

_Scanner = CallScanner | PythonCallScanner | FunctionCallScanner


class CallPassage:
    """The state of one passage. Positions are counted from its beginning.

    Args:
        offered: The tools that the model may call.
        is_first: Whether it is the beginning of the answer.
    """

    def __init__(self, offered: OfferedTools, *, is_first: bool = False) -> None:
        self.is_broken = False
        """Whether it ended: no text can be added."""
        self.in_fence = False
        """Whether it broke inside a fence that holds something else."""
        self.in_long_fence = False
        """Whether it broke where more backticks can follow of those that open the fence."""
        self._offered = offered
        self._is_first = is_first
        self._step: Callable[[CallPassage, str, int], int] = CallPassage._between
        self._offset = 0  # of the text at hand
        self._elements: list[Element] = []
        self._start = 0  # of the element at hand
        self._is_tagged = False
        self._blank = 0
        self._mark = ""
        self._ticks = 0
        self._fence: int | None = None  # where the fence begins that is open
        self._before_fence: list[Element] = []
        self._scanner: _Scanner = CallScanner(None)
        self._scan_start = 0
        self._arguments_end = 0
        self._reader: Reader = python_reader([])

    def advance(self, text: str, at: int = 0) -> int:
        """Reads the text from there; returns the index where it broke, or the text's length.

        That is a place in an earlier text if the index is negative.
        """
        while at < len(text) and not self.is_broken:
            at = self._step(self, text, at)
        self.in_fence = self.is_broken and self._fence is not None
        return at

    def place(self, offset: int) -> None:
        """Says how far behind the beginning of the passage the next text begins; less than 0 if it begins before."""
        self._offset = offset

    def decide(self, text: str, end: int | None) -> tuple[int, list[Call]]:
        """How much of the passage belongs to calls, and the calls.

        Args:
            text: The passage so far.
            end: Where it broke; None: the answer is at its end.
        """
        is_at_end = end is None
        if is_at_end:
            self._finish(len(text))
        if self._fence is not None:
            return chosen(self._before_fence, text, self._fence)
        is_begun = self._is_tagged or self._step is not CallPassage._between
        return chosen(self._elements, text, self._start if is_begun else end)

    def _finish(self, length: int) -> None:
        """Ends what may be unfinished at the end of the answer: the tag that closes a function, and a fence."""
        if self._step is CallPassage._function_close:
            self._end_element(length if self._mark else self._arguments_end, counts_anywhere=True, reader=self._reader)
        elif self._step is CallPassage._close_fence:
            self._step = CallPassage._between
        if self._fence is not None and self._step is CallPassage._between and self._elements and not self._is_tagged:
            self._end_fence(length)

    def _break(self, at: int) -> int:
        self.is_broken = True
        return at

    def _between(self, text: str, at: int) -> int:
        """Blanks, and then the beginning of an element or of what belongs to one."""
        found = _BLANKS.match(text, at, at + MOST_BLANK + 1 - self._blank)
        end = at if found is None else found.end()
        self._blank += end - at
        if self._blank > MOST_BLANK:
            return self._break(end - 1)
        if end == len(text):
            return end
        mark = text[end]
        if not self._is_tagged:
            self._start = self._offset + end
        if mark == "{":
            return self._begin_scan(end, CallScanner(self._offered), end)
        match mark:
            case "[":
                self._scan_start = self._offset + end
                self._blank = 0
                self._step = CallPassage._bracket
                end += 1
            case "<":
                self._mark = ""
                self._step = CallPassage._tag
            case "`" if not self._is_tagged and (self._fence is None or self._elements):
                self._ticks = 0
                self._step = CallPassage._open_fence if self._fence is None else CallPassage._close_fence
            case _:
                self.is_broken = True
        return end

    def _begin_scan(self, at: int, scanner: _Scanner, start: int) -> int:
        self._scanner = scanner
        self._scan_start = self._offset + start
        self._step = CallPassage._scan
        return at

    def _bracket(self, text: str, at: int) -> int:
        """What stands behind a bracket: an object, or a name in Python's form."""
        found = _SPACE.match(text, at)
        end = at if found is None else found.end()
        self._blank += end - at
        if self._blank > MOST_BLANK:
            return self._break(at)
        if end == len(text):
            return end
        start = self._scan_start - self._offset
        if text[end] != "{":
            return self._begin_scan(end, PythonCallScanner(self._offered), start)
        scanner = CallScanner(self._offered)
        scanner.advance("[")
        return self._begin_scan(end, scanner, start)

    def _scan(self, text: str, at: int) -> int:
        at, scanner = self._scanner.advance(text, at), self._scanner
        if scanner.is_broken:
            return self._break(at)
        if scanner.is_done:
            end = self._offset + at
            match scanner:
                case FunctionCallScanner():
                    self._reader = arguments_reader(scanner.name, self._scan_start + scanner.length, end)
                    self._arguments_end = end
                    self._mark = ""
                    self._blank = 0
                    self._step = CallPassage._function_close
                case PythonCallScanner():
                    self._end_element(end, counts_anywhere=False, reader=python_reader(scanner.calls))
                case _:
                    reader = json_reader(self._offered, self._scan_start, end)
                    self._end_element(end, counts_anywhere=True, reader=reader)
        return at

    def _end_element(self, end: int, *, counts_anywhere: bool, reader: Reader) -> None:
        counts_anywhere &= self._is_first or self._is_tagged
        self._elements.append(Element(self._start, end, counts_anywhere, [reader]))
        self._is_tagged = False
        self._blank = 0
        self._step = CallPassage._between

    def _tag(self, text: str, at: int) -> int:
        """The tag, or the beginning of a function's."""
        while at < len(text):
            self._mark += text[at]
            is_tag = not self._is_tagged and TAG.startswith(self._mark)
            if not (is_tag or _FUNCTION.startswith(self._mark)):
                return self._break(at)
            at += 1
            if self._mark == TAG:
                self._is_tagged = True
                self._is_first |= not self._elements and self._fence is None
                self._blank = 0
                self._step = CallPassage._between
                break
            if self._mark == _FUNCTION:
                return self._begin_scan(at, FunctionCallScanner(self._offered), at)
        return at

    def _function_close(self, text: str, at: int) -> int:
        """The tag that closes a function, if there is one."""
        while at < len(text):
            mark = text[at]
            if not self._mark and mark in BLANK and self._blank < MOST_BLANK:
                self._blank += 1
                at += 1
                continue
            if not _FUNCTION_END.startswith(self._mark + mark):
                self._end_element(self._arguments_end, counts_anywhere=False, reader=self._reader)
                if self._mark:  # what was read of it may begin another tag
                    self._start = self._offset + at - len(self._mark)
                    self._step = CallPassage._tag
                return at
            self._mark += mark
            at += 1
            if self._mark == _FUNCTION_END:
                self._end_element(self._offset + at, counts_anywhere=True, reader=self._reader)
                break
        return at

    def _open_fence(self, text: str, at: int) -> int:
        while at < len(text) and text[at] == "`" and self._ticks <= FENCE:
            self._ticks += 1
            at += 1
        self.in_long_fence = self._ticks > FENCE
        if at == len(text) and not self.in_long_fence:
            return at
        if self._ticks < FENCE:
            return self._break(at)
        self._fence = self._start
        self._before_fence, self._elements = self._elements, []
        if self.in_long_fence:
            return self._break(at)
        self._mark = ""
        self._step = CallPassage._language
        return at

    def _language(self, text: str, at: int) -> int:
        already = len(self._mark)
        found = _LANGUAGE.match(text, at)
        end = at if found is None else found.end()
        self._mark += text[at : min(end, at + _LONGEST_LANGUAGE + 1)]
        if len(self._mark) > _LONGEST_LANGUAGE:
            return self._break(at - already)
        if end < len(text):
            self._blank = 0
            self._step = CallPassage._between
        return end

    def _close_fence(self, text: str, at: int) -> int:
        while at < len(text):
            if text[at] != "`":
                return self._break(at)
            self._ticks += 1
            at += 1
            if self._ticks == FENCE:
                self._end_fence(self._offset + at)
                break
        return at

    def _end_fence(self, end: int) -> None:
        inner, self._elements = self._elements, self._before_fence
        start, self._fence = self._fence or 0, None
        readers = [reader for element in inner for reader in element.readers]
        self._elements.append(Element(start, end, counts_anywhere=False, readers=readers))
        self._blank = 0
        self._step = CallPassage._between
