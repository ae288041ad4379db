"""Stop strings, applied here: ``stop`` is not in the service's schema, and is never sent (wire page, "Requests")."""

from __future__ import annotations

from collections.abc import Sequence


class StopFilter:
    """Passes text on up to the first stop string, also where one is split over pieces.

    It holds back only a tail that may still grow into a stop string: at most the longest stop string less one
    character, and nothing while the text can't be the beginning of one.
    """

    def __init__(self, stop: Sequence[str]) -> None:
        self._stop = tuple(stop)
        self._held = ""
        self.hit = False
        """Whether a stop string has come: the answer is over."""

    def feed(self, text: str) -> str:
        """The part of the text so far that may be shown, and was not shown yet."""
        if not self._stop:
            return text
        if self.hit:
            return ""
        text = self._held + text
        # Of stop strings that overlap, the one that ends first: so it is wherever the text was cut into pieces.
        found = [(at + len(stop), at) for stop in self._stop if (at := text.find(stop)) >= 0]
        if found:
            self.hit = True
            self._held = ""
            return text[: min(found)[1]]
        keep = self._length_to_hold(text)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def flush(self) -> str:
        """What was held back, once no more text can come."""
        held, self._held = self._held, ""
        return held

    def _length_to_hold(self, text: str) -> int:
        longest = min(max(map(len, self._stop)) - 1, len(text))
        for length in range(longest, 0, -1):
            if any(stop.startswith(text[-length:]) for stop in self._stop):
                return length
        return 0


def before_stop(text: str, stop: Sequence[str]) -> tuple[str, bool]:
    """The part of a whole text before the first stop string, and whether there was one."""
    stops = StopFilter(stop)
    return stops.feed(text) + stops.flush(), stops.hit
