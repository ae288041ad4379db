"""What is asked of any value, whoever gave it."""

from __future__ import annotations

import math
from typing import TypeGuard


def is_number(value: object) -> TypeGuard[float]:
    """Whether it is a finite number, and none that a float can't hold: JSON may have integers of hundreds of digits."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def shown(value: object) -> str:
    """A value as an error shows it: its beginning, whatever it is."""
    try:
        return f"{value!r:.80}"
    except ValueError:  # an int of thousands of digits has no repr
        return f"a huge {type(value).__name__}"
