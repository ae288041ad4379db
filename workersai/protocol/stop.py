"""Stop strings, applied here: ``stop`` is not in the service's schema, and is never sent (wire.md#options).

Strategy: Knuth-Morris-Pratt. Each stop string knows how much of its beginning the text ends with, so that each
character is looked at once, however long the stop strings are and wherever the text is cut. The longest such beginning
is what must be held back. While there is none, the text is searched for the first characters alone, in C.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence


class StopFilter:
    """Passes text on up to the first stop string, also where one is split over pieces.

    It holds back only a tail that may still grow into a stop string: at most the longest stop string less one
    character, and nothing while the text can't be the beginning of one.
    """

    def __init__(self, stop: Sequence[str]) -> None:
        self._matches = [_Match(each) for each in stop]
        self._firsts = re.compile("|".join(re.escape(each[0]) for each in stop))
        self._held = _Queue()
        self.hit = False
        """Whether a stop string has come: the answer is over."""

    def feed(self, text: str) -> str:
        """The part of the text so far that may be shown, and was not shown yet."""
        if not self._matches:
            return text
        if self.hit:
            return ""
        before = self._held.length
        self._held.append(text)
        end, matched = self._search(text)
        self.hit = end is not None
        if end is None:
            return self._held.take(self._held.length - matched)
        shown = self._held.take(before + end - matched)
        self._held = _Queue()
        return shown

    def flush(self) -> str:
        """What was held back, once no more text can come."""
        return self._held.take(self._held.length)

    def _search(self, text: str) -> tuple[int | None, int]:
        """Where the first stop string ends in the text, with its length; or how much of one the text ends with."""
        at, matched = 0, max(match.length for match in self._matches)
        while at < len(text):
            if not matched:
                first = self._firsts.search(text, at)
                if first is None:
                    break
                at = first.start()
            for match in self._matches:
                match.take(text[at])
            at += 1
            # Of stop strings that overlap, the one that ends first: so it is wherever the text was cut into pieces.
            found = [match.length for match in self._matches if match.is_whole]
            if found:
                return at, max(found)
            matched = max(match.length for match in self._matches)
        return None, matched


class _Match:
    """How much of the beginning of a stop string the text ends with."""

    def __init__(self, stop: str) -> None:
        self._stop = stop
        self._shorter = [0, 0]  # by a matched length, the next shorter one with which it ends
        for character in stop[1:]:
            self._shorter.append(self._longer(self._shorter[-1], character))
        self.length = 0

    @property
    def is_whole(self) -> bool:
        return self.length == len(self._stop)

    def take(self, character: str) -> None:
        self.length = self._longer(self.length, character)

    def _longer(self, length: int, character: str) -> int:
        while length and self._stop[length] != character:
            length = self._shorter[length]
        return length + (self._stop[length] == character)


class _Queue:
    """Text that is taken from its beginning, in a time in proportion to what is taken."""

    def __init__(self) -> None:
        self.length = 0
        self._pieces: deque[str] = deque()
        self._taken = 0  # of the first piece

    def append(self, text: str) -> None:
        self.length += len(text)
        self._pieces.append(text)

    def take(self, count: int) -> str:
        self.length -= count
        taken: list[str] = []
        while self._pieces and (count or not self._pieces[0]):
            part = self._pieces[0][self._taken : self._taken + count]
            taken.append(part)
            count -= len(part)
            self._taken += len(part)
            if self._taken == len(self._pieces[0]):
                self._pieces.popleft()
                self._taken = 0
        return "".join(taken)


def before_stop(text: str, stop: Sequence[str]) -> tuple[str, bool]:
    """The part of a whole text before the first stop string, and whether there was one."""
    stops = StopFilter(stop)
    return stops.feed(text) + stops.flush(), stops.hit
