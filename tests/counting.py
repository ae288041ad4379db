"""Work counted in operations, which are the same on any machine."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from typing import Any, ClassVar


def operations(do: Callable[[], object]) -> int:
    """How many functions are called, of Python and of C: the same on any machine."""
    calls = 0

    def count_one(_frame: object, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    gc.disable()  # its callbacks would be counted
    sys.setprofile(count_one)
    try:
        do()
    finally:
        sys.setprofile(None)
        gc.enable()
    return calls


class CopyCounter(str):
    """A text that counts the characters that slicing it and adding to it copies."""

    __slots__ = ()
    copied: ClassVar[int] = 0

    def _counted(self, text: str) -> CopyCounter:
        CopyCounter.copied += len(text)
        return CopyCounter(text)

    def __getitem__(self, key: Any) -> CopyCounter:
        return self._counted(str.__getitem__(self, key))

    def __add__(self, other: str) -> CopyCounter:
        return self._counted(str.__add__(self, other))

    def __radd__(self, other: str) -> CopyCounter:
        return self._counted(str.__add__(other, self))


class ComparisonCounter(str):
    """A text that counts how often it is compared."""

    __slots__ = ()
    compared: ClassVar[int] = 0

    def __eq__(self, other: object) -> bool:
        ComparisonCounter.compared += 1
        return str.__eq__(self, other)

    __hash__ = str.__hash__
