"""The tables of a journal: what they are, and what they hold for a job and for who only reads them."""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from workersai.batch.files import DamageError
from workersai.batch.values import Progress

TABLES = """
CREATE TABLE job (name TEXT PRIMARY KEY, value TEXT NOT NULL, checksum INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE requests (
    number INTEGER PRIMARY KEY, reference TEXT NOT NULL, request TEXT NOT NULL, metadata TEXT, batched INTEGER NOT NULL,
    checksum INTEGER NOT NULL
);
CREATE TABLE work (
    number INTEGER PRIMARY KEY, batched INTEGER NOT NULL, tries INTEGER NOT NULL DEFAULT 0, part INTEGER, place INTEGER
);
CREATE INDEX work_by_part ON work (part, batched, number);
CREATE TABLE parts (
    id INTEGER PRIMARY KEY, state TEXT NOT NULL, request_id TEXT, most_cost REAL NOT NULL,
    prompt_tokens INTEGER, completion_tokens INTEGER, cost REAL
);
CREATE TABLE results (
    number INTEGER PRIMARY KEY, completion TEXT, error TEXT,
    prompt_tokens INTEGER, completion_tokens INTEGER, cost REAL, checksum INTEGER NOT NULL
);
"""

UNCLEAR_CALLS = "unclear_calls"
"""The fact that counts single calls without a known cost, and what they may have cost: ``[calls, dollars]``."""


@dataclass(frozen=True)
class Row:
    """A request as the journal has it."""

    number: int
    reference: str
    request: str
    metadata: str | None
    batched: bool
    """Whether it may go in a batch, and not only as a single call."""
    tries: int = 0

    @property
    def checksum(self) -> int:
        """The checksum of what was requested."""
        return checksum(self.number, self.reference, self.request, self.metadata)


Stored = tuple[Row, str | None, str | None]
"""A row that has a result, with its completion or its error."""


def checksum(*values: str | int | None) -> int:
    """A number that changes if one of the values does. SQLite notices broken pages, but no other byte in a text."""
    return zlib.crc32(json.dumps(values).encode())


def checked_row(row: Row, kept: int) -> Row:
    """The row, if it is still as it was written.

    Raises:
        DamageError: it was damaged since.
    """
    if row.checksum != kept:
        raise DamageError(f"row {row.number + 1:,} is not as it was written")
    return row


def stored(db: sqlite3.Connection, after: int) -> Iterator[Stored]:
    """The rows after that number that have a result, in order.

    Raises:
        DamageError: one of them is damaged.
    """
    for number, completion, error, kept, *row, of_row in db.execute(
        "SELECT results.number, completion, error, results.checksum, reference, request, metadata, batched, "
        "requests.checksum FROM results LEFT JOIN requests USING (number) WHERE results.number > ? "
        "ORDER BY results.number",
        (after,),
    ):
        if kept != checksum(number, completion, error):
            raise DamageError(f"the result of row {number + 1:,} is not as it was written")
        yield checked_row(Row(number, *row), of_row), completion, error


def fact(db: sqlite3.Connection, name: str, default: Any = None) -> Any:
    """A fact of the job, by its name.

    Raises:
        DamageError: it is damaged.
    """
    kept = db.execute("SELECT value, checksum FROM job WHERE name = ?", (name,)).fetchone()
    if kept is None:
        return default
    if kept[1] != checksum(name, kept[0]):
        raise DamageError(f"{name!r} is not as it was written")
    return json.loads(kept[0])


def check_pages(db: sqlite3.Connection) -> None:
    """Fails if the database is not whole.

    Raises:
        DamageError: SQLite says so.
    """
    found = db.execute("PRAGMA quick_check(1)").fetchone()
    if found is None or found[0] != "ok":
        raise DamageError(f"SQLite says: {' '.join(str(found and found[0]).split())}")


def check_complete(db: sqlite3.Connection) -> None:
    """Fails if rows are missing.

    Raises:
        DamageError: some are, of a job whose requests were read to their end.
    """
    digest = fact(db, "digest")
    if digest is None:
        return
    counts = [
        db.execute(query).fetchone()[0]
        for query in (
            "SELECT count(*) FROM requests",
            "SELECT count(*) FROM (SELECT number FROM results UNION SELECT number FROM work)",
        )
    ]
    if counts != [digest[0]] * 2:
        raise DamageError(
            f"of {digest[0]:,} rows, it has {counts[0]:,} requests, and {counts[1]:,} that are done or to be done"
        )


def counted(db: sqlite3.Connection) -> Progress:
    """The progress, from the tables."""

    def row(query: str) -> Sequence[Any]:
        found: Sequence[Any] = db.execute(query).fetchone()
        return found

    answered, failed, *own = row(
        "SELECT count(completion), count(error), sum(prompt_tokens), sum(completion_tokens), sum(cost) FROM results"
    )
    of_parts = row("SELECT sum(prompt_tokens), sum(completion_tokens), sum(cost) FROM parts")
    prompt, completion, cost = ((one or 0) + (other or 0) for one, other in zip(own, of_parts, strict=True))
    # A batch that was being sent when its process ended is unclear as well; so is the price of one without its usage.
    unclear = row(
        "SELECT sum(most_cost) FROM parts WHERE state IN ('sending', 'unclear') OR (state = 'done' AND cost IS NULL)"
    )
    return Progress(
        rows=row("SELECT count(*) FROM requests")[0],
        answered=answered,
        failed=failed,
        parts=row("SELECT count(*) FROM parts WHERE state = 'sent'")[0],
        prompt_tokens=prompt,
        completion_tokens=completion,
        cost_usd=float(cost),
        unclear_parts=row("SELECT count(*) FROM parts WHERE state = 'unclear'")[0],
        unclear_cost_usd=float(unclear[0] or 0.0) + float(fact(db, UNCLEAR_CALLS, (0, 0.0))[1]),
        ready=bool(row("SELECT count(*) FROM job WHERE name = 'ready'")[0]),
    )
