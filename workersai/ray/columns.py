"""Answers and errors -> the new columns of a table, each of one type also where all of it is null."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import pyarrow as pa

from workersai.checks import shown
from workersai.errors import BadRequestError, ConfigurationError, WorkersAIError
from workersai.protocol.values import Completion

Outcome = Completion | WorkersAIError
_NAMES_OF_USAGE = 2


@dataclass(frozen=True)
class Columns:
    """The names of the new columns; its fields are arguments of :class:`workersai.ray.AskModel`, and told there.

    Raises:
        BadRequestError: one can't be right, or two are the same.
    """

    answer_column: str
    error_column: str
    finish_reason_column: str | None
    usage_columns: tuple[str, str] | None

    def __post_init__(self) -> None:
        for argument in ("answer_column", "error_column", "finish_reason_column"):
            value = getattr(self, argument)
            if not _is_name(value) and not (value is None and argument == "finish_reason_column"):
                raise BadRequestError(f"{argument} must be the name of a column, not {shown(value)}.")
        usage: Any = self.usage_columns
        if usage is not None and not (
            isinstance(usage, list | tuple) and len(usage) == _NAMES_OF_USAGE and all(map(_is_name, usage))
        ):
            raise BadRequestError(f"usage_columns must be two names of columns, not {shown(usage)}.")
        names = [name for _, name in self._named()]
        if len(set(names)) < len(names):
            raise BadRequestError(f"The new columns need names of their own; got {', '.join(map(repr, names))}.")

    def check(self, table: pa.Table) -> None:
        """Fails where a new column would take the place of another.

        Raises:
            ConfigurationError: it would.
        """
        for argument, name in self._named():
            if name in table.column_names:
                raise ConfigurationError(f"The Dataset has a column {name!r} already: give another name as {argument}.")

    def added(self, table: pa.Table, outcomes: Sequence[Outcome]) -> pa.Table:
        """The table with the new columns, one outcome for each row."""
        for (_, name), values in zip(self._named(), self._values(outcomes), strict=True):
            table = table.append_column(name, values)
        return table

    def _named(self) -> Iterator[tuple[str, str]]:
        for field in fields(self):
            value = getattr(self, field.name)
            for name in [value] if isinstance(value, str) else value or ():
                yield field.name, name

    def _values(self, outcomes: Sequence[Outcome]) -> Iterator[pa.Array]:
        answers = [outcome if isinstance(outcome, Completion) else None for outcome in outcomes]
        yield pa.array([answer and answer.text for answer in answers], pa.string())
        errors = [outcome if isinstance(outcome, WorkersAIError) else None for outcome in outcomes]
        yield pa.array([error and f"{type(error).__name__}: {error}" for error in errors], pa.string())
        if self.finish_reason_column is not None:
            yield pa.array([answer and answer.finish_reason for answer in answers], pa.string())
        if self.usage_columns is not None:
            usages = [answer and answer.usage for answer in answers]
            yield pa.array([usage and usage.prompt_tokens for usage in usages], pa.int64())
            yield pa.array([usage and usage.completion_tokens for usage in usages], pa.int64())


def _is_name(value: object) -> bool:
    return isinstance(value, str) and bool(value)
