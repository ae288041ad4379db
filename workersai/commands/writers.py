"""The writers of tables: rows to JSONL, CSV and Parquet, each value in a form that the format can hold."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import Any, BinaryIO

from workersai.commands.cells import Changes, Columns, Misfit, csv_cell, json_line, typed_cell, unique_names
from workersai.errors import ConfigurationError

Rows = Callable[[], Iterable[Mapping[str, Any]]]
"""The rows to write; called again if they must be written again in another form."""

_AT_ONCE = 1_000  # rows
_BYTE_ORDER_MARK = "\ufeff"


def write_jsonl(file: BinaryIO, columns: Columns, rows: Rows, _: Changes) -> None:
    """Writes JSON Lines, which hold every value: a half of a surrogate pair as its escape."""
    names = [name for name, _ in columns]
    file.writelines(json_line({name: row.get(name) for name in names}).encode() + b"\n" for row in rows())


def write_csv(file: BinaryIO, columns: Columns, rows: Rows, changes: Changes) -> None:
    """Writes CSV: a text as it is, nothing for None, any other value as JSON."""
    names = unique_names((name for name, _ in columns), nul=True)
    if names[0].startswith(_BYTE_ORDER_MARK):  # which a reader takes for the file's own
        names[0] = f"\\ufeff{names[0][1:]}"
    lines = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
    try:
        writer = csv.writer(lines)
        writer.writerow(names)
        for row in rows():
            writer.writerow([csv_cell(row.get(name), name, kind, changes) for name, kind in columns])
    finally:
        lines.detach()


def write_parquet(file: BinaryIO, columns: Columns, rows: Rows, changes: Changes) -> None:
    """Writes Parquet. A column with a value that its type can't hold becomes one of texts."""
    kinds = [kind for _, kind in columns]
    while misfits := _write_typed(
        file, [(name, kind) for (name, _), kind in zip(columns, kinds, strict=True)], rows, changes
    ):
        for place in misfits:
            changes.note(
                columns[place][0],
                f"not every value is a 64-bit {kinds[place]}, so that the column is text"
                if kinds[place] != "boolean"
                else "not every value is a boolean, so that the column is text",
            )
            kinds[place] = "object"  # whose form is said
        file.seek(0)
        file.truncate()


def _write_typed(file: BinaryIO, columns: Columns, rows: Rows, changes: Changes) -> set[int]:
    """Writes the rows, and returns the places of columns that can't hold them; what was written is of no use then."""
    arrow = pyarrow()
    known = {"integer": arrow.int64(), "number": arrow.float64(), "boolean": arrow.bool_()}
    types = [known.get(kind, arrow.string()) for _, kind in columns]
    names = unique_names((name for name, _ in columns), nul=False)
    schema = arrow.schema(list(zip(names, types, strict=True)))
    misfits: set[int] = set()
    source = iter(rows())
    with arrow.parquet.ParquetWriter(file, schema) as writer:
        while some := list(islice(source, _AT_ONCE)):
            cells = [_cells(some, name, kind, changes) for name, kind in columns]
            misfits |= {place for place, column in enumerate(cells) if column is None}
            if not misfits:
                arrays = [arrow.array(column, kind) for column, kind in zip(cells, types, strict=True)]
                writer.write_table(arrow.Table.from_arrays(arrays, schema=schema))
    return misfits


def _cells(rows: Iterable[Mapping[str, Any]], name: str, kind: str, changes: Changes) -> list[Any] | None:
    try:
        return [typed_cell(row.get(name), name, kind, changes) for row in rows]
    except Misfit:
        return None


def pyarrow() -> Any:
    """Pyarrow, which an extra brings.

    Raises:
        ConfigurationError: it isn't installed.
    """
    try:
        import pyarrow as pa  # noqa: PLC0415 - an extra
        import pyarrow.parquet  # noqa: PLC0415
    except ImportError:
        raise ConfigurationError(
            "Parquet needs pyarrow, which is not installed: pip install 'workersai[batch]'"
        ) from None
    return pa
