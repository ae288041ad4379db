"""From the rows of a table to requests, and from results to the rows of another."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from typing import Any

from workersai.batch import BatchRequest, BatchResult
from workersai.batch.templates import Template
from workersai.commands.cells import DEEPEST, Changes, Columns, is_deep
from workersai.commands.tables import Row
from workersai.errors import BadRequestError
from workersai.protocol.values import Message

_ASKED = ("prompt", "messages")
_INFINITY = "Infinity"
_KINDS = {bool: "boolean", int: "integer", float: "number", str: "string"}


@dataclass
class Prompts:
    """What is asked of each row.

    Args:
        template: The prompt, with ``{column}`` where a cell is to stand; ``{{`` is a brace.
        column: The column that holds it, in place of a template. With neither, it is ``prompt`` or ``messages``.
        system: What each prompt is preceded by.
        id_column: The column that names the rows; by default ``external_reference`` where there is one.
        keep: The columns that are to stand beside the answers; None for all of them.
        answer: The column of the answers.
        nests: Whether the table of the answers may hold objects.
        schema: What each answer is an object of.

    Raises:
        BadRequestError: the template is none.
    """

    template: str | None = None
    column: str | None = None
    system: str | None = None
    id_column: str | None = None
    keep: Sequence[str] | None = None
    answer: str = "answer"
    nests: bool = True
    schema: Mapping[str, Any] | None = None
    kinds: dict[str, str] = field(default_factory=dict)
    """The columns that were kept so far, and the type of each."""
    changes: Changes = field(default_factory=Changes)
    """What JSON can't hold of the columns that were kept, and the form that it was kept in."""

    def __post_init__(self) -> None:
        if self.template is not None and self.column is not None:
            raise BadRequestError("Give either --prompt or --prompt-column, not both.")
        self._template = None if self.template is None else Template(self.template, "--prompt")

    def requests(self, rows: Iterable[Row], limit: int | None) -> Iterator[BatchRequest]:
        """The requests of the first rows.

        Raises:
            BadRequestError: a row lacks a column, or has one of the name of the answers.
        """
        for number, row in enumerate(islice(rows, limit), 1):
            try:
                yield self._request(row)
            except BadRequestError as error:
                raise BadRequestError(f"Row {number:,}: {error.message}") from None

    def _request(self, row: Row) -> BatchRequest:
        asked = self._asked(row)
        if self.system is not None:
            told = [Message("user", asked)] if isinstance(asked, str) else asked
            asked = [{"role": "system", "content": self.system}, *told]
        name = self.id_column or ("external_reference" if row.get("external_reference") is not None else None)
        reference = None if name is None else str(_cell(row, name))
        return BatchRequest(asked, reference, metadata=self._kept(row))

    def _asked(self, row: Row) -> Any:
        if self._template is not None:
            return self._template.filled({name: _told(_cell(row, name)) for name in self._template.columns})
        if self.column is not None:
            return _told(_cell(row, self.column))
        for name in _ASKED:
            if row.get(name) is not None:
                return row[name]
        raise BadRequestError(
            "it has neither a prompt nor messages: say with --prompt-column which column is the prompt, or write one "
            f"with --prompt, as in 'Summarise: {{text}}'. Its columns: {', '.join(map(str, row))}."
        )

    def _kept(self, row: Row) -> Row:
        names = [name for name in row if name not in _ASKED] if self.keep is None else self.keep
        kept: Row = {}
        for name in names:
            cell = _cell(row, name)
            if is_deep(cell):
                raise BadRequestError(
                    f"its column {name!r} nests more than {DEEPEST} lists and objects. Name the columns to keep "
                    "without it: --keep."
                )
            kept[name] = self._plain(name, cell)
        for name in self._reserved & kept.keys():
            raise BadRequestError(f"it has a column {name!r}: name the answers otherwise with --answer-column.")
        for name, value in kept.items():
            if value is not None:
                self.kinds[name] = _common(self.kinds.get(name), _KINDS.get(type(value), "json"))
            else:
                self.kinds.setdefault(name, "")
        return kept

    @cached_property
    def _reserved(self) -> frozenset[str]:
        """The names of the columns that are added."""
        return frozenset((*self._own_columns(), *(name for name, _ in self.fields())))

    def _own_columns(self) -> tuple[str, str, str]:
        return self.answer, f"{self.answer}_error", f"{self.answer}_finish_reason"

    def _plain(self, column: str, value: Any) -> Any:
        """A value as JSON can hold it: dates and the like as text."""
        if value is None or isinstance(value, str | bool | int):
            return value
        if isinstance(value, float):
            return self._plain_number(column, value)
        if isinstance(value, Mapping):
            return {str(name): self._plain(column, inner) for name, inner in value.items()}
        if isinstance(value, list | tuple):
            return [self._plain(column, inner) for inner in value]
        return self._plain_bytes(column, value) if isinstance(value, bytes) else str(value)

    def _plain_number(self, column: str, value: float) -> float | str | None:
        if math.isfinite(value):
            return value
        if math.isnan(value):
            self.changes.note(column, "NaN, which JSON can't hold, is kept as null")
            return None
        self.changes.note(column, f"infinity, which JSON can't hold, is kept as the text {_INFINITY}")
        return _INFINITY if value > 0 else f"-{_INFINITY}"

    def _plain_bytes(self, column: str, value: bytes) -> str:
        try:
            return value.decode()
        except UnicodeDecodeError:
            self.changes.note(column, "bytes that are not UTF-8 are kept as escapes, as in \\xff")
            return value.decode(errors="backslashreplace")

    def columns(self) -> Columns:
        """The columns of the answers' table."""
        kept = [(name, kind or "string") for name, kind in self.kinds.items()]
        answer, error, finish_reason = self._own_columns()
        own = "string" if self.schema is None else "object"
        return [*kept, (answer, own), *self.fields(), (error, "string"), (finish_reason, "string")]

    def fields(self) -> Columns:
        """The columns for the properties of the answers; none if the table holds objects."""
        if self.nests or self.schema is None:
            return []
        properties = self.schema.get("properties")
        if not isinstance(properties, Mapping):
            return []
        return [(f"{self.answer}.{name}", _kind_of(schema)) for name, schema in properties.items()]


@dataclass(frozen=True)
class AnswerColumns:
    """How answers become cells.

    Args:
        answer: The column of the answers.
        fields: The columns for properties of structured answers.
        structured: Whether each answer is an object.
    """

    answer: str
    fields: Sequence[str] = ()
    structured: bool = False


def answers(results: Iterable[BatchResult], columns: AnswerColumns, changes: Changes) -> Iterator[Row]:
    """The rows of the answers' table."""
    answer = columns.answer
    for result in results:
        row = dict(result.request.metadata)
        completion = result.completion
        if completion is not None:
            value = _parsed(completion.text, answer, changes) if columns.structured else completion.text
            row[answer] = value
            row[f"{answer}_finish_reason"] = completion.finish_reason
            for name in columns.fields:
                row[name] = value.get(name.removeprefix(f"{answer}.")) if isinstance(value, dict) else None
        if result.error is not None:
            row[f"{answer}_error"] = str(result.error)
        yield row


def _parsed(text: str, column: str, changes: Changes) -> Any:
    """The value of a structured answer; its text as it is, if it is no JSON, or none that can be written again."""

    def keep_text(number: str) -> str:
        changes.note(column, "numbers that JSON can't hold, or that are too large, are kept as text")
        return number

    def number(text: str) -> float | str:
        value = float(text)
        return value if math.isfinite(value) else keep_text(text)

    try:
        value = json.loads(text, parse_float=number, parse_constant=keep_text)
        if not is_deep(value):
            return value
    except RecursionError:
        pass
    except ValueError:  # cut off, as the finish reason says, or an integer of thousands of digits
        return text
    changes.note(column, f"an answer that nests more than {DEEPEST} lists and objects is kept as text")
    return text


def _cell(row: Row, name: str) -> Any:
    if name not in row:
        raise BadRequestError(f"it has no column {name!r}; its columns: {', '.join(map(str, row))}.")
    return row[name]


def _told(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _common(one: str | None, other: str) -> str:
    """A type that the values of both fit."""
    if not one or one == other:
        return other
    return "number" if {one, other} == {"integer", "number"} else "json"


def _kind_of(schema: Any) -> str:
    kind = schema.get("type") if isinstance(schema, Mapping) else None
    return kind if kind in ("integer", "number", "boolean", "string") else "json"
