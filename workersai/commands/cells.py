"""The cells of a table: what a format can hold, and the text form of what it can't."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

Columns = list[tuple[str, str]]
"""The columns of a table to write: name and kind.

A kind is ``string``, ``integer``, ``number``, ``boolean``, ``json`` (anything), or ``object`` (JSON text by design).
"""

DEEPEST = 200
"""Levels of lists and objects in one value; Python's JSON reads more, but not on every version and every thread."""

_NESTED = "lists and objects are written as JSON text"
_ESCAPED = "characters that the format can't hold are written as escapes, as in \\ud800"
_LEAST_INTEGER, _MOST_INTEGER = -(2**63), 2**63 - 1


class Misfit(Exception):  # noqa: N818 - a signal inside this package
    """A value that a typed column can't hold."""


class Changes:
    """Values that were written in another form than they had: what changed, once for each column."""

    def __init__(self) -> None:
        self._by_column: dict[str, list[str]] = {}

    def note(self, column: str, change: str) -> None:
        """Notes that values of a column were changed."""
        changes = self._by_column.setdefault(column, [])
        if change not in changes:
            changes.append(change)

    def warnings(self) -> list[str]:
        """One line for each column."""
        return [f"Warning: column {column!r}: {'; '.join(changes)}." for column, changes in self._by_column.items()]


def escaped(text: str, *, nul: bool = False) -> str:
    """A text in which halves of surrogate pairs, which UTF-8 can't hold, are escapes; also NUL, if asked for."""
    text = text.encode("utf-8", "backslashreplace").decode()
    return text.replace("\0", "\\u0000") if nul else text


def json_line(value: Any) -> str:
    """A value as JSON on one line, which UTF-8 can hold."""
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value)
    return text


def unique_names(names: Iterable[str], *, nul: bool) -> list[str]:
    """The names of columns as a file can hold them; names that would become equal are numbered."""
    seen: set[str] = set()
    unique: list[str] = []
    for name in names:
        base = free = escaped(name, nul=nul)
        number = 2
        while free in seen:
            free, number = f"{base}_{number}", number + 1
        seen.add(free)
        unique.append(free)
    return unique


def csv_cell(value: Any, column: str, kind: str, changes: Changes) -> str:
    """A value as a text; nothing for None."""
    return "" if value is None else _as_text(value, column, kind, changes, nul=True, typed=False)


def typed_cell(value: Any, column: str, kind: str, changes: Changes) -> Any:
    """A value as a typed column holds it.

    Raises:
        Misfit: the column can't hold it.
    """
    if value is None:
        return None
    if kind == "boolean":
        if not isinstance(value, bool):
            raise Misfit
        return value
    if kind == "integer":
        return _as_integer(value)
    if kind == "number":
        return _as_number(value)
    return _as_text(value, column, kind, changes, nul=False, typed=True)


def is_deep(value: Any) -> bool:
    """Whether lists and objects are nested deeper than :data:`DEEPEST`."""
    level, depth = [value], 0
    while level and depth < DEEPEST:
        inner: list[Any] = []
        for each in level:
            if isinstance(each, dict):
                inner += each.values()
            elif isinstance(each, list | tuple):
                inner += each
        level, depth = [each for each in inner if isinstance(each, dict | list | tuple)], depth + 1
    return bool(level)


def _as_text(value: Any, column: str, kind: str, changes: Changes, *, nul: bool, typed: bool) -> str:
    if isinstance(value, str):
        text = value
    else:
        if kind != "object" and isinstance(value, dict | list):
            changes.note(column, _NESTED)
        elif kind != "object" and typed:
            changes.note(column, "values that are not text are written as JSON text")
        text = json_line(value)
    written = escaped(text, nul=nul)
    if written != text:
        changes.note(column, _ESCAPED)
    return written


def _as_integer(value: Any) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not _LEAST_INTEGER <= value <= _MOST_INTEGER:
        raise Misfit
    return value


def _as_number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Misfit
    try:
        number = float(value)
    except OverflowError:
        raise Misfit from None
    if number != value:  # an integer that a float rounds
        raise Misfit
    return number
