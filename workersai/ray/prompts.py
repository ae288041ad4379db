"""The rows of a table -> what the model is asked, by a template or by a column that holds it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa

from workersai.batch.templates import Template
from workersai.checks import shown
from workersai.errors import BadRequestError
from workersai.protocol.request import Input
from workersai.protocol.values import Message


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
                raise BadRequestError(f"{name} must be a string, and not empty; got {shown(value)}.")
        _ = self._template

    @cached_property
    def _template(self) -> Template | None:
        return None if self.template is None else Template(self.template, "prompt")

    def inputs(self, table: pa.Table) -> list[Input | BadRequestError]:
        """What is asked for each row, or why it can't be.

        Raises:
            BadRequestError: the table lacks a column.
        """
        argument = "column" if self.template is None else "prompt"
        names = [self.column] if self._template is None else self._template.columns
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
        asked: Any
        if self._template is None:
            asked = row[self.column]
        else:
            asked = self._template.filled({name: str(value) for name, value in row.items()})
        if not isinstance(asked, str | list):
            return BadRequestError(f"A prompt is a text or a list of messages, not {type(asked).__name__}.")
        if self.system is None:
            return asked
        messages = [Message("user", asked)] if isinstance(asked, str) else asked
        return [Message("system", self.system), *messages]
