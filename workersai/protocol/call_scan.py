"""Follows the JSON of a text tool call as it comes: where it ends, or where it can't be a call any more.

Strategy: a state machine looks at each token once, wherever the text is cut into pieces, and keeps what encloses it and
what may come next, but none of the text. So following costs a time in proportion to the text, whatever the pieces.

It breaks at the first character that can't stand in a call: what is no JSON, a key that no call has, or has twice.
That matters beyond latency. If a candidate fails, the text after its beginning is searched again for the next one. As
each candidate breaks at once, two that overlap can't both go on: the second would begin inside a string of the first,
so that one's strings are what stands between the other's, and none of that is a key of a call. So the search is in
proportion to the text as well.
"""

from __future__ import annotations

import json
import re

CALL_KEYS = ("type", "id", "name", "parameters", "arguments", "function")
"""The keys of a call (wire.md#text-tool-calls), or of the function in it."""

_BLANK = re.compile(r"[ \t\r\n]*")
_IN_STRING = re.compile(r'["\\]')
_NUMBER = re.compile(r"[-+.eE0-9]*")
_LETTERS = re.compile(r"[a-z]*")
_LITERALS = {"t": "true", "f": "false", "n": "null"}
_LONGEST_KEY = 6 * max(map(len, CALL_KEYS))  # each character written as \uXXXX

# What may come next; the first three may also be the end of what they stand in.
_FIRST_KEY, _FIRST_VALUE, _COMMA, _KEY, _COLON, _VALUE = range(6)
_VALUES = (_FIRST_VALUE, _VALUE)


class CallScanner:
    """The state of one object, or one list of objects, that may be a call."""

    def __init__(self) -> None:
        self.is_broken = False
        """Whether it can't be a call any more."""
        self._enclosing: list[str] = []
        self._next = _VALUE
        self._word = ""  # of a number its first character, of a literal what there is of it
        self._in_string = False
        self._is_escaped = False  # the last piece ended in a backslash
        self._key: str | None = None  # what there is of the key of a call, as it is written
        self._last_key = ""
        self._keys: dict[int, set[str]] = {}  # those that were seen, by the depth of the call or its function

    def advance(self, text: str, at: int = 0) -> int | None:
        """Reads on from there; the index behind the end, or None where the end isn't there yet, or it is broken."""
        while not self.is_broken:
            if self._in_string:
                at = self._skip_string(text, at)
            elif self._word:
                at = self._skip_word(text, at)
            else:
                at = _match_end(_BLANK, text, at)
            if at == len(text) or self.is_broken:
                return None
            if not self._in_string:
                at += 1
                self._take(text[at - 1])
                if not self._enclosing and not self.is_broken:
                    return at
        return None

    def _take(self, mark: str) -> None:
        """One character outside of strings, numbers and literals."""
        may = self._next
        match mark:
            case '"' if may in (_KEY, _FIRST_KEY) or (may in _VALUES and not self._in_list_of_calls()):
                self._in_string = True
                is_of_call = may in (_KEY, _FIRST_KEY) and len(self._enclosing) in self._keys
                self._key = "" if is_of_call else None
                self._next = _COMMA if may in _VALUES else _COLON
            case "{" if may in _VALUES:
                self._open_object()
            case "[" if may in _VALUES and not self._in_list_of_calls():
                self._enclosing.append(mark)
                self._next = _FIRST_VALUE
            case "}" if may in (_FIRST_KEY, _COMMA) and self._enclosing[-1] == "{":
                self._close()
            case "]" if may in (_FIRST_VALUE, _COMMA) and self._enclosing[-1] == "[":
                self._close()
            case ":" if may == _COLON:
                self._next = _VALUE
            case "," if may == _COMMA:
                self._next = _KEY if self._enclosing[-1] == "{" else _VALUE
            case _ if may in _VALUES and mark in "-0123456789tfn" and not self._in_list_of_calls():
                self._word = mark
                self._next = _COMMA
            case _:
                self.is_broken = True

    def _in_list_of_calls(self) -> bool:
        return self._enclosing == ["["]

    def _open_object(self) -> None:
        own = 1 + (self._enclosing[:1] == ["["])  # the depth of a call
        depth = len(self._enclosing) + 1
        if depth == own or (depth == own + 1 and self._last_key == "function" and self._enclosing[-1] == "{"):
            self._keys[depth] = set()
        self._enclosing.append("{")
        self._next = _FIRST_KEY

    def _close(self) -> None:
        self._keys.pop(len(self._enclosing), None)
        self._enclosing.pop()
        self._next = _COMMA

    def _skip_string(self, text: str, at: int) -> int:
        begin, end = at, len(text)
        at += self._is_escaped
        self._is_escaped = False
        while mark := _IN_STRING.search(text, at):
            at = mark.end()
            if mark[0] == '"':
                end = at - 1
                at = _match_end(_BLANK, text, at)
                self._in_string = False
                break
            at += 1
        else:
            self._is_escaped = at > end  # behind a backslash that comes last
            at = end
        if self._key is not None:
            self._check_key(self._key + text[begin:end])
        return at

    def _check_key(self, written: str) -> None:
        """The key of a call so far, or the whole one if its string is closed."""
        self._key = written
        if len(written) > _LONGEST_KEY:
            self.is_broken = True
        elif self._in_string:
            self.is_broken = "\\" not in written and not any(key.startswith(written) for key in CALL_KEYS)
        else:
            depth = len(self._enclosing)
            key = _decoded(written)
            is_inner = depth - 1 in self._keys  # a function holds no other function
            if key not in CALL_KEYS or key in self._keys[depth] or (is_inner and key == "function"):
                self.is_broken = True
            else:
                self._keys[depth].add(key)
                self._last_key = "" if is_inner else key

    def _skip_word(self, text: str, at: int) -> int:
        literal = _LITERALS.get(self._word[0])
        end = _match_end(_NUMBER if literal is None else _LETTERS, text, at)
        if literal is not None:
            self._word += text[at : min(end, at + len(literal))]
            is_whole = end < len(text)
            self.is_broken = self._word != literal if is_whole else not literal.startswith(self._word)
        if end < len(text):
            self._word = ""
            return _match_end(_BLANK, text, end)
        return end


def _match_end(pattern: re.Pattern[str], text: str, at: int) -> int:
    found = pattern.match(text, at)
    return at if found is None else found.end()


def _decoded(written: str) -> str:
    try:
        return str(json.loads(f'"{written}"'))
    except ValueError:
        return ""
