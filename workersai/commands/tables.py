"""Tables as files: JSONL, CSV and Parquet, read and written a few rows at a time."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

from workersai.errors import BadRequestError, ConfigurationError

Row = dict[str, Any]

_AT_ONCE = 1_000  # rows


class Table:
    """A file of rows, whose kind its name tells.

    CSV is read and written with Python's own library, so that ``007`` stays the text that it is; Parquet with pyarrow.

    Raises:
        ConfigurationError: it is of no known kind, or pyarrow is not installed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        kinds: dict[str, tuple[Callable[[], Iterator[Row]], Callable[[Path, Columns, Iterable[Row]], None]]] = {
            ".jsonl": (self._read_jsonl, _write_jsonl),
            ".ndjson": (self._read_jsonl, _write_jsonl),
            ".csv": (self._read_csv, _write_csv),
            ".parquet": (self._read_parquet, _write_parquet),
        }
        if path.suffix.lower() not in kinds:
            raise ConfigurationError(f"{path}: a table is a .jsonl, .csv or .parquet file.")
        self._read, self._write = kinds[path.suffix.lower()]
        self.nests = path.suffix.lower() in (".jsonl", ".ndjson")
        """Whether a cell may hold an object."""
        if path.suffix.lower() == ".parquet":
            _pyarrow()

    def rows(self) -> Iterator[Row]:
        """The rows, in order.

        Raises:
            BadRequestError: the file can't be read, or a line of it; it is told which.
        """
        try:
            yield from self._read()
        except (OSError, UnicodeDecodeError) as error:
            raise BadRequestError(f"{self.path} can't be read: {_reason(error)}.") from None

    def write(self, columns: Columns, rows: Iterable[Row]) -> None:
        """Writes all rows; the file is there when it is whole.

        Raises:
            BadRequestError: it can't be written.
        """
        part = self.path.with_name(f"{self.path.name}.part")
        try:
            self._write(part, columns, rows)
            part.replace(self.path)
        except OSError as error:
            raise BadRequestError(f"{self.path} can't be written: {_reason(error)}.") from None
        finally:
            with suppress(OSError):
                part.unlink()

    def check_writable(self) -> None:
        """Fails now where it could not be written in the end.

        Raises:
            BadRequestError: its folder is not there, or may not be written to.
        """
        folder = self.path.parent
        if not folder.is_dir() or not os.access(folder, os.W_OK):
            raise BadRequestError(
                f"{self.path} can't be written: check that its folder is there, and may be written to."
            )

    def _read_jsonl(self) -> Iterator[Row]:
        with self.path.open(encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield self._object(line, number)

    def _object(self, line: str, number: int) -> Row:
        try:
            row = json.loads(line)
        except ValueError as error:
            raise BadRequestError(f"{self.path}, line {number:,}: it is not JSON ({error}).") from None
        if not isinstance(row, dict):
            raise BadRequestError(f"{self.path}, line {number:,}: a row is an object, not {type(row).__name__}.")
        return row

    def _read_csv(self) -> Iterator[Row]:
        csv.field_size_limit(2**31 - 1)
        with self.path.open(encoding="utf-8-sig", newline="") as lines:
            reader = csv.DictReader(lines, strict=True)
            try:
                for row in reader:
                    if None in row or None in row.values():
                        raise BadRequestError(
                            f"{self.path}, line {reader.line_num:,}: it has {'more' if None in row else 'fewer'} cells "
                            "than the header."
                        )
                    yield row
            except csv.Error as error:
                raise BadRequestError(f"{self.path}, line {reader.line_num:,}: {error}.") from None

    def _read_parquet(self) -> Iterator[Row]:
        arrow = _pyarrow()
        try:
            with arrow.parquet.ParquetFile(self.path) as file:
                for batch in file.iter_batches(batch_size=_AT_ONCE):
                    yield from batch.to_pylist()
        except arrow.ArrowInvalid as error:
            raise BadRequestError(f"{self.path} can't be read: {error}.") from None


Columns = Sequence[tuple[str, str]]
"""The columns of a table to write: name and type (``string``, ``integer``, ``number``, ``boolean`` or ``json``)."""


def _write_jsonl(path: Path, columns: Columns, rows: Iterable[Row]) -> None:
    names = [name for name, _ in columns]
    with path.open("w", encoding="utf-8") as lines:
        for row in rows:
            told = {name: row.get(name) for name in names}
            lines.write(json.dumps(told, ensure_ascii=False, default=str) + "\n")


def _write_csv(path: Path, columns: Columns, rows: Iterable[Row]) -> None:
    names = [name for name, _ in columns]
    with path.open("w", encoding="utf-8", newline="") as lines:
        writer = csv.writer(lines)
        writer.writerow(names)
        writer.writerows([_text(row.get(name)) for name in names] for row in rows)


def _write_parquet(path: Path, columns: Columns, rows: Iterable[Row]) -> None:
    arrow = _pyarrow()
    types = {"integer": arrow.int64(), "number": arrow.float64(), "boolean": arrow.bool_()}
    schema = arrow.schema([(name, types.get(kind, arrow.string())) for name, kind in columns])
    source = iter(rows)
    with arrow.parquet.ParquetWriter(path, schema) as writer:
        while some := list(islice(source, _AT_ONCE)):
            told = [{name: _cell(row.get(name), kind) for name, kind in columns} for row in some]
            writer.write_table(arrow.Table.from_pylist(told, schema))


def _cell(value: Any, kind: str) -> Any:
    """A value as a column of a type has it; None for one of another type."""
    fits: dict[str, type | tuple[type, ...]] = {"integer": int, "number": (int, float), "boolean": bool}
    if kind in fits:
        return value if isinstance(value, fits[kind]) and (kind == "boolean" or not isinstance(value, bool)) else None
    return None if value is None else _text(value)


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _reason(error: OSError | UnicodeDecodeError) -> str:
    return "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error.strerror or error)


def _pyarrow() -> Any:
    try:
        import pyarrow as pa  # noqa: PLC0415 - an extra
        import pyarrow.parquet  # noqa: PLC0415
    except ImportError:
        raise ConfigurationError(
            "Parquet needs pyarrow, which is not installed: pip install 'workersai[batch]'"
        ) from None
    return pa
