"""What the tables of a journal tell, to a job and to who only reads them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from workersai.batch.values import Progress


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


Stored = tuple[Row, str | None, str | None]
"""A row that has a result, with its completion or its error."""


def stored(db: sqlite3.Connection, after: int) -> Iterator[Stored]:
    """The rows after that number that have a result, in order."""
    for *row, completion, error in db.execute(
        "SELECT number, reference, request, metadata, batched, completion, error FROM results "
        "JOIN requests USING (number) WHERE number > ? ORDER BY number",
        (after,),
    ):
        yield Row(*row), completion, error


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
    return Progress(
        rows=row("SELECT count(*) FROM requests")[0],
        answered=answered,
        failed=failed,
        parts=row("SELECT count(*) FROM parts WHERE state = 'sent'")[0],
        prompt_tokens=prompt,
        completion_tokens=completion,
        cost_usd=float(cost),
        unclear_parts=row("SELECT count(*) FROM parts WHERE state = 'unclear'")[0],
        ready=bool(row("SELECT count(*) FROM job WHERE name = 'ready'")[0]),
    )
