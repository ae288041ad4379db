"""From the rows of a table to requests, and from results to the rows of another."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from workersai.batch import BatchRequest, BatchResult
from workersai.batch.templates import Template
from workersai.commands.tables import Columns, Row
from workersai.errors import BadRequestError
from workersai.protocol.values import Message

_ASKED = ("prompt", "messages")
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
        kept = {name: _plain(_cell(row, name)) for name in names}
        for name in (self.answer, f"{self.answer}_error", f"{self.answer}_finish_reason"):
            if name in kept:
                raise BadRequestError(f"it has a column {name!r}: name the answers otherwise with --answer-column.")
        for name, value in kept.items():
            if value is not None:
                self.kinds[name] = _common(self.kinds.get(name), _KINDS.get(type(value), "json"))
            else:
                self.kinds.setdefault(name, "")
        return kept

    def columns(self) -> list[tuple[str, str]]:
        """The columns of the answers' table."""
        kept = [(name, kind or "string") for name, kind in self.kinds.items()]
        properties = {} if self.nests or self.schema is None else self.schema.get("properties", {})
        fields = [(f"{self.answer}.{name}", _kind_of(schema)) for name, schema in properties.items()]
        own = [(self.answer, "string"), *fields, (f"{self.answer}_error", "string")]
        return [*kept, *own, (f"{self.answer}_finish_reason", "string")]


def answers(results: Iterable[BatchResult], columns: Columns, answer: str, *, structured: bool) -> Iterator[Row]:
    """The rows of the answers' table."""
    fields = [name for name, _ in columns if name.startswith(f"{answer}.")]
    for result in results:
        row = dict(result.request.metadata)
        completion = result.completion
        if completion is not None:
            value = _parsed(completion.text) if structured else completion.text
            row[answer] = value
            row[f"{answer}_finish_reason"] = completion.finish_reason
            for name in fields:
                row[name] = value.get(name.removeprefix(f"{answer}.")) if isinstance(value, dict) else None
        if result.error is not None:
            row[f"{answer}_error"] = str(result.error)
        yield row


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:  # cut off; the finish reason says so
        return text


def _cell(row: Row, name: str) -> Any:
    if name not in row:
        raise BadRequestError(f"it has no column {name!r}; its columns: {', '.join(map(str, row))}.")
    return row[name]


def _told(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _plain(value: Any) -> Any:
    """A value as JSON can hold it: dates and the like as text, what is no number as null."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _common(one: str | None, other: str) -> str:
    """A type that the values of both fit."""
    if not one or one == other:
        return other
    return "number" if {one, other} == {"integer", "number"} else "json"


def _kind_of(schema: Any) -> str:
    kind = schema.get("type") if isinstance(schema, Mapping) else None
    return kind if kind in ("integer", "number", "boolean", "string") else "json"
