"""How often the parts of a regular expression are repeated, without running it."""

from __future__ import annotations

import re

# In turn: what is escaped, a set of characters, the begin and the end of a group, a counted repetition, other signs of
# repetition, any character.
_TOKEN = re.compile(
    r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|(?P<open>\()|(?P<close>\))|\{(?P<least>\d+)(?:,(?P<most>\d*))?\}|(?P<sign>[?*+])|.",
    re.DOTALL,
)
# So many digits are more than any bound; Python itself refuses to read more than 4,300.
_MOST_DIGITS = 12


def repetitions(pattern: str) -> int:
    """How often the part that is repeated most is: ``(a{1,5}b){2,3}`` repeats ``a`` 15 times."""
    # For each group that is open: how often the part in it that is repeated most is.
    open_groups = [1]
    inner = 1  # of what stands directly before the place
    for token in _TOKEN.finditer(pattern):
        if token["open"]:
            open_groups.append(1)
            inner = 1
        elif token["close"]:
            inner = open_groups.pop() if len(open_groups) > 1 else inner
        elif token["least"]:
            inner *= max(1, _number(token["least"]), _number(token["most"] or ""))
        elif not token["sign"]:
            inner = 1
        open_groups[-1] = max(open_groups[-1], inner)
    return max(open_groups)


def _number(digits: str) -> int:
    return int(digits[:_MOST_DIGITS]) if digits else 0
