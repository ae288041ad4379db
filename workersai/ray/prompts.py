"""The rows of a table -> what the model is asked, by a template or by a column that holds it."""

from __future__ import annotations

import string
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa

from workersai.errors import BadRequestError
from workersai.protocol.request import Input
from workersai.protocol.values import Message

_TWICE = "A brace that stands for itself is written twice."


@dataclass(frozen=True)
class Prompts:
    """How the prompt of a row is made.

    Args:
        template: A text in which ``{column}`` stands for the row's value; None where ``column`` holds the prompt.
        column: The column with the prompt: a text, or a conversation.
        system: The text of a system message that comes first.

    Raises:
        BadRequestError: one of them can't be right; it names the argument of :class:`workersai.ray.AskModel`.
    """

    template: str | None
    column: str
    system: str | None

    def __post_init__(self) -> None:
        for name, value in (("prompt", self.template), ("column", self.column), ("system", self.system)):
            if value is not None and not (isinstance(value, str) and value):
                raise BadRequestError(f"{name} must be a string, and not empty; got {value!r:.80}.")
        if self.template is not None and not any(name for _, name in self._parts):
            raise BadRequestError(
                "prompt names no column, so that each row would be asked the same: write {column} where a row's value "
                "is to stand."
            )

    @cached_property
    def _parts(self) -> list[tuple[str, str | None]]:
        """The template cut up: each text with the name of the column whose value follows it."""
        return _parts_of(self.template or "")

    def inputs(self, table: pa.Table) -> list[Input | BadRequestError]:
        """What is asked for each row, or why it can't be.

        Raises:
            BadRequestError: the table lacks a column.
        """
        argument = "column" if self.template is None else "prompt"
        names = [self.column] if self.template is None else list(dict.fromkeys(name for _, name in self._parts if name))
        for name in names:
            if name not in table.column_names:
                has = ", ".join(map(repr, table.column_names)) or "none"
                raise BadRequestError(f"{argument}: the Dataset has no column {name!r}; it has {has}.")
        columns = [table.column(name).to_pylist() for name in names]
        return [self._input(dict(zip(names, values, strict=True))) for values in zip(*columns, strict=True)]

    def _input(self, row: Mapping[str, Any]) -> Input | BadRequestError:
        for name, value in row.items():
            if value is None:
                return BadRequestError(f"The row has no value in the column {name!r}.")
        asked: Any = row[self.column] if self.template is None else self._filled(row)
        if not isinstance(asked, str | list):
            return BadRequestError(f"A prompt is a text or a list of messages, not {type(asked).__name__}.")
        if self.system is None:
            return asked
        messages = [Message("user", asked)] if isinstance(asked, str) else asked
        return [Message("system", self.system), *messages]

    def _filled(self, row: Mapping[str, Any]) -> str:
        return "".join(text + (str(row[name]) if name else "") for text, name in self._parts)


def _parts_of(template: str) -> list[tuple[str, str | None]]:
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        raise BadRequestError(f"prompt: {error}. {_TWICE}") from None
    for _, name, spec, conversion in parts:
        if name is not None and (not name or spec or conversion):
            shown = f"{{{name}{'!' + conversion if conversion else ''}{':' + spec if spec else ''}}}"
            raise BadRequestError(f"prompt: {shown} is not the name of a column alone. {_TWICE}")
    return [(text, name) for text, name, _, _ in parts]
