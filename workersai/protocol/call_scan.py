"""Follows the JSON of a text tool call as it comes: where it ends, or where it can't be a call any more.

Strategy: a state machine looks at each token once, wherever the text is cut into pieces, and keeps what encloses it and
what may come next, but none of the text. So following costs a time in proportion to the text, whatever the pieces.

The scanner breaks at the first token that can't stand in a call: invalid JSON, a key that no call has or that is there
already, or the name of a tool that was not offered. The place depends on the text alone, not on its pieces, so that a
reader can continue from there. Keys, names, numbers and literals have a bounded length, so little is read twice.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field

from workersai.protocol.text_call_forms import ARGUMENTS, FUNCTION, Form, OfferedTools

_BLANK = re.compile(r"[ \t\r\n]*")
_IN_STRING = re.compile(r'["\\\x00-\x1f]')
_HEX = re.compile(r"[0-9a-fA-F]*")
_ESCAPES = '"\\/bfnrt'
_OF_NUMBER = "-0123456789"
_NUMBER_MARKS = re.compile(r"[-+.eE0-9]*")
_LETTERS = re.compile(r"[a-z]*")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)((?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?)")
_NUMBER_SO_FAR = re.compile(r"-?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*|(?:\.[0-9]+)?[eE][-+]?[0-9]*)?)?")
_LITERALS = ("true", "false", "null")
_LONGEST_WORD = 1_000  # characters of a number
_DEEPEST = 150  # objects and lists in one another; the decoder takes no more than 200
_AS_ESCAPE = 6  # characters of \uXXXX, as which each one can be written

# What may come next; the first three may also be the end of what they stand in.
_FIRST_KEY, _FIRST_VALUE, _COMMA, _KEY, _COLON, _VALUE = range(6)
_VALUES = (_FIRST_VALUE, _VALUE)


@dataclass
class _Level:
    """The object of a call, or of the function in it: the keys so far, and the forms that it can still have."""

    forms: tuple[Form, ...]
    keys: set[str] = field(default_factory=set)
    function_keys: set[str] | None = None

    def is_call(self) -> bool:
        own = self.keys if self.function_keys is None else self.function_keys
        is_standard = "name" in own and bool("type" in self.keys or ARGUMENTS & own)
        is_standard |= "function" in self.keys and self.function_keys is None  # unchecked, for it may be an argument
        return any(
            is_standard if form.name is None else "name" in self.keys and bool(form.parameters & self.keys)
            for form in self.forms
        )


class CallScanner:
    """The state of one object, or one list of objects, that may be a call.

    Args:
        offered: The tools. None: any object is followed, for calls whose name stands outside of the JSON.
    """

    def __init__(self, offered: OfferedTools | None) -> None:
        self.is_broken = False
        """Whether it can't be a call any more."""
        self.is_done = False
        """Whether its end was read."""
        self._offered = offered
        self._enclosing: list[str] = []
        self._next = _VALUE
        self._word = ""  # what there is of a number or a literal
        self._in_string = False
        self._escape = 0  # characters of an escape that are to come: 1 behind the backslash, up to 4 of a code
        self._is_code = False
        self._read: str | None = None  # what there is of a string that is checked, as it is written
        self._checked = ""  # what that string is: "key", or the key whose value it is
        self._last_key = ""
        self._levels: dict[int, _Level] = {}  # by their depth

    def advance(self, text: str, at: int = 0) -> int:
        """Reads on from there; returns the index behind the end, or of the token that broke it, or the text's length.

        The token can begin before this text; its index is negative then.
        """
        while at < len(text) and not self.is_broken and not self.is_done:
            if self._in_string:
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
        """One character outside of strings, numbers and literals."""
        may = self._next
        if may in _VALUES:
            self._begin_value(mark)
            return
        match mark:
            case '"' if may in (_KEY, _FIRST_KEY):
                self._in_string = True
                self._checked, self._read = ("key", "") if len(self._enclosing) in self._levels else ("", None)
                self._next = _COLON
            case "}" if may in (_FIRST_KEY, _COMMA) and self._enclosing[-1] == "{":
                self._close()
            case "]" if may == _COMMA and self._enclosing[-1] == "[":
                self._close()
            case ":" if may == _COLON:
                self._next = _VALUE
            case "," if may == _COMMA:
                self._next = _KEY if self._enclosing[-1] == "{" else _VALUE
            case _:
                self.is_broken = True

    def _begin_value(self, mark: str) -> None:
        key, self._last_key = self._last_key, ""
        depth = len(self._enclosing)
        is_call = not depth or (self._enclosing == ["["] and self._offered is not None)
        if mark == "]" and self._next == _FIRST_VALUE and not is_call:
            self._close()
        elif mark == "{" and key not in ("name", "type") and depth < _DEEPEST:
            self._open_object(key, is_call=is_call)
        elif mark == "[" and ((not depth and self._offered is not None) or not (is_call or key)) and depth < _DEEPEST:
            self._enclosing.append(mark)
            self._next = _FIRST_VALUE
        elif mark == '"' and not is_call and key != "function":
            self._in_string = True
            self._checked, self._read = key, "" if key else None
            self._next = _COMMA
        elif mark in (*_OF_NUMBER, "t", "f", "n") and not (is_call or key):
            self._word = mark
            self._next = _COMMA
        else:
            self.is_broken = True

    def _open_object(self, key: str, *, is_call: bool) -> None:
        self._enclosing.append("{")
        self._next = _FIRST_KEY
        if self._offered is not None and is_call:
            self._levels[len(self._enclosing)] = _Level(self._offered.forms)
        elif key == "function":
            self._levels[len(self._enclosing)] = _Level((FUNCTION,))

    def _close(self) -> None:
        depth = len(self._enclosing)
        level = self._levels.pop(depth, None)
        outer = self._levels.get(depth - 1)
        if level is not None and outer is not None:
            outer.function_keys = level.keys
        if level is not None and outer is None and not level.is_call():
            self.is_broken = True
            return
        self._enclosing.pop()
        self._next = _COMMA
        self.is_done = not self._enclosing

    def _skip_string(self, text: str, at: int) -> int:
        begin, already = at, len(self._read or "")
        at = self._skip_escape(text, at)
        while at < len(text) and not self.is_broken and not self._escape:
            mark = _IN_STRING.search(text, at)
            if mark is None:
                at = len(text)
            elif mark[0] == '"':
                at = mark.end()
                self._in_string = False
                break
            elif mark[0] == "\\":
                self._escape = 1
                at = self._skip_escape(text, mark.end())
            else:
                at = mark.start()
                self.is_broken = True
        if self._read is None or self._offered is None:
            return at
        if self.is_broken:
            return begin - already
        longest = _AS_ESCAPE * max(self._offered.longest_key, self._offered.longest_name)
        end = at if self._in_string else at - 1
        self._read += text[begin : min(end, begin + longest + 1)]
        fits = len(self._read) <= longest and (self._so_far(self._offered) if self._in_string else self._whole())
        self.is_broken = not fits
        return at if fits else begin - already

    def _skip_escape(self, text: str, at: int) -> int:
        """The rest of an escape that has begun, as far as it is there."""
        if self._escape and not self._is_code and at < len(text):
            self._is_code = text[at] == "u"
            self.is_broken = not self._is_code and text[at] not in _ESCAPES
            self._escape = 4 * self._is_code
            at += not self.is_broken
        if self._is_code:
            found = _HEX.match(text, at, at + self._escape)
            end = at if found is None else found.end()
            self._escape -= end - at
            self.is_broken = self._escape > 0 and end < len(text)
            self._is_code = self._escape > 0
            return end
        return at

    def _so_far(self, offered: OfferedTools) -> bool:
        """Whether the beginning of a string that is checked fits; what stands behind a backslash waits for the end."""
        begun = (self._read or "").partition("\\")[0]
        level = self._levels[len(self._enclosing)]
        if self._checked == "type":
            return "function".startswith(begun)
        if self._checked == "name":
            if level.forms[0].name is None:
                return offered.has_name_with(begun)
            return any(form.name is not None and form.name.startswith(begun) for form in level.forms)
        if level.forms is offered.forms:
            return offered.has_key_with(begun)
        return any(key.startswith(begun) for form in level.forms for key in form.keys - level.keys)

    def _whole(self) -> bool:
        """Whether a string that is checked fits, now that it is whole."""
        word, offered, level = _decoded(self._read or ""), self._offered, self._levels[len(self._enclosing)]
        if offered is None or self._checked == "type":
            return word == "function"
        if self._checked == "name":
            level.forms = tuple(form for form in level.forms if form.name in (None, word))
            return word in offered.names and bool(level.forms)
        if word in level.keys:
            return False
        if not all(word in form.keys for form in level.forms):
            level.forms = tuple(form for form in level.forms if word in form.keys)
        level.keys.add(word)
        self._last_key = word if word in offered.checked_keys else ""
        return bool(level.forms)

    def _skip_word(self, text: str, at: int) -> int:
        """The rest of a number or a literal, as far as it is there."""
        begin = at - len(self._word)
        is_number = self._word[0] in _OF_NUMBER
        end = _match_end(_NUMBER_MARKS if is_number else _LETTERS, text, at)
        word = self._word + text[at : min(end, at + _LONGEST_WORD + 1)]
        if len(word) > _LONGEST_WORD:
            fits = False
        elif end < len(text):
            fits = _is_number(word) if is_number else word in _LITERALS
        else:
            fits = bool(_NUMBER_SO_FAR.fullmatch(word)) if is_number else any(one.startswith(word) for one in _LITERALS)
        self._word = word if end == len(text) else ""
        self.is_broken = not fits
        return end if fits else begin


def _match_end(pattern: re.Pattern[str], text: str, at: int) -> int:
    found = pattern.match(text, at)
    return at if found is None else found.end()


def _is_number(word: str) -> bool:
    found = _NUMBER.fullmatch(word)
    return found is not None and (not found[1] or math.isfinite(float(word)))


def _decoded(written: str) -> str:
    try:
        return str(json.loads(f'"{written}"'))
    except ValueError:
        return ""
