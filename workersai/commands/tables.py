"""Tables as files: JSONL, CSV and Parquet, read and written a few rows at a time."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from workersai.commands.cells import Changes, Columns
from workersai.commands.replacing import check_part, replacing
from workersai.commands.writers import Rows, pyarrow, write_csv, write_jsonl, write_parquet
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
        kinds: dict[str, tuple[Callable[[], Iterator[Row]], Callable[[BinaryIO, Columns, Rows, Changes], None]]] = {
            ".jsonl": (self._read_jsonl, write_jsonl),
            ".ndjson": (self._read_jsonl, write_jsonl),
            ".csv": (self._read_csv, write_csv),
            ".parquet": (self._read_parquet, write_parquet),
        }
        if path.suffix.lower() not in kinds:
            raise ConfigurationError(f"{path}: a table is a .jsonl, .csv or .parquet file.")
        self._read, self._write = kinds[path.suffix.lower()]
        self.nests = path.suffix.lower() in (".jsonl", ".ndjson")
        """Whether a cell may hold an object."""
        if path.suffix.lower() == ".parquet":
            pyarrow()

    def rows(self) -> Iterator[Row]:
        """The rows, in order.

        Raises:
            BadRequestError: the file can't be read, or a line of it; it is told which.
        """
        try:
            yield from self._read()
        except (OSError, UnicodeDecodeError) as error:
            raise BadRequestError(f"{self.path} can't be read: {_reason(error)}.") from None

    def write(self, columns: Columns, rows: Rows, changes: Changes) -> None:
        """Writes all rows; the file is there when it is whole.

        A value that the format can't hold is written in a form that it can, which ``changes`` says.

        Raises:
            BadRequestError: it can't be written.
        """
        try:
            with replacing(self.path) as file:
                self._write(file, columns, rows, changes)
        except OSError as error:
            raise BadRequestError(f"{self.path} can't be written: {_reason(error)}.") from None

    def check_writable(self) -> None:
        """Fails now if it could not be written in the end.

        Raises:
            BadRequestError: its folder is missing or read-only, or something else has its name.
        """
        folder = self.path.parent
        if not folder.is_dir() or not os.access(folder, os.W_OK):
            raise BadRequestError(
                f"{self.path} can't be written: check that its folder is there, and may be written to."
            )
        if self.path.is_dir():
            raise BadRequestError(f"{self.path} can't be written: it is a folder.")
        check_part(self.path)

    def _read_jsonl(self) -> Iterator[Row]:
        with self.path.open(encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield self._object(line, number)

    def _object(self, line: str, number: int) -> Row:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise BadRequestError(f"{self.path}, line {number:,}: it is not JSON ({error}).") from None
        if not isinstance(row, dict):
            raise BadRequestError(f"{self.path}, line {number:,}: a row is an object, not {type(row).__name__}.")
        return row

    def _read_csv(self) -> Iterator[Row]:
        csv.field_size_limit(2**31 - 1)
        with self.path.open(encoding="utf-8-sig", newline="") as lines:
            reader = csv.DictReader(lines, strict=True)
            try:
                _named_once(self.path, reader.fieldnames or ())
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
        arrow = pyarrow()
        try:
            with arrow.parquet.ParquetFile(self.path) as file:
                _named_once(self.path, file.schema_arrow.names)
                for batch in file.iter_batches(batch_size=_AT_ONCE):
                    yield from batch.to_pylist()
        except (arrow.ArrowException, ValueError, OverflowError) as error:  # the last: times that Python doesn't know
            raise BadRequestError(f"{self.path} can't be read: {_reason(error)}.") from None


def _named_once(path: Path, names: Sequence[str]) -> None:
    """Fails if two columns have one name: a row holds only the last of them."""
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise BadRequestError(f"{path}: two columns are named {twice[0]!r}. Rename one of them.")


def _reason(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8"
    return str(getattr(error, "strerror", None) or error)
