r"""Follows ``[NAME(city="Paris", days=3), OTHER()]``, the form that Meta documents for Llama, and reads its arguments.

Strategy: one pass over the tokens, wherever the text is cut into pieces. Each token is checked and written as JSON at
once, so nothing is evaluated and no syntax tree is built. The values are those of ``ast.literal_eval``: strings,
numbers, True, False, None, lists, tuples (as lists) and dicts. That function itself would warn about ``"\d"``, and
can't begin before the text is whole. Text that isn't such a list breaks at the first token that doesn't fit.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass

from workersai.protocol.text_call_forms import OfferedTools

_BLANK = re.compile(r"[ \t\r\n]*")
_NAME_MARKS = re.compile(r"[\w.:/-]*")
_WORD_MARKS = re.compile(r"[\w.+-]*")
_IDENTIFIER = re.compile(r"[^\W\d]\w*")
_INT = re.compile(r"[+-]?(?:0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[+-]?(?:(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|[0-9]+[eE][+-]?[0-9]+)")
_NUMBER_SO_FAR = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*(?:[eE][+-]?[0-9]*)?|\.[0-9]+(?:[eE][+-]?[0-9]*)?|\.)?")
_CONSTANTS = {"True": "true", "False": "false", "None": "null"}
_ESCAPE = re.compile(r"\\(?:([0-7]{1,3})|x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.))", re.DOTALL)
_ESCAPED = {"\\": "\\", "'": "'", '"': '"', "a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_IN_STRING = {quote: re.compile(rf"[{quote}\\\r\n\0]") for quote in "\"'"}
_LONGEST_WORD = 1_000  # characters of a number or of the name of an argument
_DEEPEST = 50  # lists and dicts in one another

# What may come next.
_NAME, _OPEN, _ARGUMENT, _EQUALS, _FIRST, _VALUE, _COLON, _COMMA, _CALL_COMMA = range(9)
_CLOSING = {"[": "]", "{": "}", "(": ")", "call": ")"}


@dataclass
class _Container:
    """What encloses the next value: a list, a tuple, a dict, or the call itself."""

    kind: str
    place: int
    """Where it begins in the JSON."""
    size: int = 0
    has_comma: bool = False


class PythonCallScanner:
    """The state of one list of calls. The bracket that opens it was read already."""

    def __init__(self, offered: OfferedTools) -> None:
        self.is_broken = False
        """Whether it can't be a list of calls any more."""
        self.is_done = False
        """Whether its end was read."""
        self.calls: list[tuple[str, str]] = []
        """The names, and the arguments as JSON."""
        self._offered = offered
        self._next = _NAME
        self._name = ""
        self._arguments: set[str] = set()
        self._containers: list[_Container] = []
        self._json: list[str] = []
        self._word = ""
        self._quote = ""
        self._string: list[str] = []
        self._is_escaped = False

    def advance(self, text: str, at: int = 0) -> int:
        """Reads on from there; returns the index behind the end, or of the token that broke it, or the text's length.

        The token can begin before this text; its index is negative then.
        """
        while at < len(text) and not self.is_broken and not self.is_done:
            if self._quote:
                at = self._skip_string(text, at)
            elif self._word:
                at = self._skip_word(text, at)
            else:
                at = _match_end(_BLANK, text, at)
                if at < len(text):
                    self._take(text[at])
                    at += not self.is_broken
        return at

    def _take(self, mark: str) -> None:
        """One character outside of words and strings."""
        may = self._next
        container = self._containers[-1] if self._containers else None
        kind = "" if container is None else container.kind
        closes = mark == _CLOSING.get(kind) and may in (_ARGUMENT, _FIRST, _COMMA)
        if container is not None and closes:
            self._close(container)
        elif may in (_NAME, _ARGUMENT):
            self._word, self.is_broken = mark, not self._fits(mark, is_whole=False)
        elif may in (_FIRST, _VALUE):
            self._begin_value(mark, container)
        elif container is not None and may == _COMMA and mark == ",":
            container.has_comma = True
            self._next = _ARGUMENT if kind == "call" else _FIRST
        elif mark == {_EQUALS: "=", _COLON: ":"}.get(may):
            self._json.append(":")
            self._next = _VALUE
        elif may == _OPEN and mark == "(":
            self._containers = [_Container("call", 0)]
            self._arguments, self._json, self._next = set(), ["{"], _ARGUMENT
        elif may == _CALL_COMMA and mark in ",]":
            self.is_done = mark == "]"
            self._next = _NAME
        else:
            self.is_broken = True

    def _begin_value(self, mark: str, container: _Container | None) -> None:
        if container is not None and self._next == _FIRST:  # an element, or the key of a dict
            self._json += [","] * (container.size > 0)
            container.size += 1
        is_key = container is not None and container.kind == "{" and self._next == _FIRST
        self._next = _COLON if is_key else _COMMA
        if mark in "\"'":
            self._quote = mark
        elif mark in "[{(" and not is_key and len(self._containers) < _DEEPEST:
            self._containers.append(_Container(mark, len(self._json)))
            self._json.append("{" if mark == "{" else "[")
            self._next = _FIRST
        else:
            self._word, self.is_broken = mark, is_key or not self._fits(mark, is_whole=False)

    def _close(self, container: _Container) -> None:
        self._containers.pop()
        self._next = _COMMA
        if container.kind == "call":
            self._json.append("}")
            self.calls.append((self._name, "".join(self._json)))
            self._next = _CALL_COMMA
        elif container.kind == "(" and container.size == 1 and not container.has_comma:
            self._json[container.place] = ""  # a value in parentheses is no tuple
        else:
            self._json.append("}" if container.kind == "{" else "]")

    def _skip_word(self, text: str, at: int) -> int:
        """The rest of a name, a number or a constant, as far as it is there."""
        begin = at - len(self._word)
        end = _match_end(_NAME_MARKS if self._next == _NAME else _WORD_MARKS, text, at)
        self._word += text[at : min(end, at + _LONGEST_WORD + 1)]
        is_whole = end < len(text)
        self.is_broken = len(self._word) > _LONGEST_WORD or not self._fits(self._word, is_whole=is_whole)
        if self.is_broken:
            return begin
        if is_whole:
            self._end_word(self._word)
            self._word = ""
        return end

    def _fits(self, word: str, *, is_whole: bool) -> bool:
        if self._next == _NAME:
            return word in self._offered.names if is_whole else self._offered.has_name_with(word)
        if self._next == _ARGUMENT:
            return bool(_IDENTIFIER.fullmatch(word)) and not (is_whole and word in self._arguments)
        if is_whole:
            is_float = _FLOAT.fullmatch(word) and math.isfinite(float(word))
            return word in _CONSTANTS or bool(is_float or _INT.fullmatch(word))
        return any(one.startswith(word) for one in _CONSTANTS) or bool(_NUMBER_SO_FAR.fullmatch(word))

    def _end_word(self, word: str) -> None:
        if self._next == _NAME:
            self._name, self._next = word, _OPEN
        elif self._next == _ARGUMENT:
            self._json += [","] * bool(self._arguments) + [json.dumps(word)]
            self._arguments.add(word)
            self._next = _EQUALS
        elif word in _CONSTANTS:
            self._json.append(_CONSTANTS[word])
        else:
            self._json.append(word.lstrip("+") if _INT.fullmatch(word) else json.dumps(float(word)))

    def _skip_string(self, text: str, at: int) -> int:
        begin = at
        if self._is_escaped:
            self.is_broken = text[at] in "\r\n\0"
            at += not self.is_broken
        self._is_escaped = False
        while not self.is_broken and (mark := _IN_STRING[self._quote].search(text, at)):
            at = mark.end()
            if mark[0] == self._quote:
                self._end_string("".join([*self._string, text[begin : at - 1]]))
                return at
            if mark[0] != "\\":
                self.is_broken = True
                return mark.start()
            if at == len(text):
                self._is_escaped = True
            elif text[at] in "\r\n\0":
                self.is_broken = True
                return at
            else:
                at += 1
        self._string.append(text[begin:])
        return at if self.is_broken else len(text)

    def _end_string(self, written: str) -> None:
        self._quote, self._string = "", []
        try:
            self._json.append(json.dumps(_ESCAPE.sub(_unescaped, written)))
        except ValueError:
            self.is_broken = True


def _unescaped(escape: re.Match[str]) -> str:
    octal, *codes, other = escape.groups()
    if octal:
        return chr(int(octal, 8))
    code = next(filter(None, codes), None)
    if code:
        return chr(int(code, 16))
    if other in "xuUN":
        raise ValueError(other)
    return _ESCAPED.get(other, f"\\{other}")


def _match_end(pattern: re.Pattern[str], text: str, at: int) -> int:
    found = pattern.match(text, at)
    return at if found is None else found.end()
