"""The journal of a job: one SQLite file with its requests, the batches that were sent, and the results.

Whatever is known only to this process would be lost with it, so each step is written down before the next is taken.
A request is in ``requests`` for good. It is in ``work`` until it has a result, there with the batch (``part``) and the
place in it that it was sent in; then it is in ``results``.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

from workersai.batch.database import Database
from workersai.batch.files import reading
from workersai.batch.tables import UNCLEAR_CALLS, Row, Stored, checked_row, checksum, counted, stored
from workersai.batch.values import Progress

_ROWS = (
    "SELECT number, reference, request, metadata, work.batched, tries, checksum FROM work JOIN requests USING (number)"
)


@dataclass(frozen=True)
class Outcome:
    """What a row ended with: a completion or an error, as text, and what it cost where that is known."""

    number: int
    completion: str | None = None
    error: str | None = None
    tokens: tuple[int | None, int | None] = (None, None)
    cost: float | None = None


class Journal(Database):
    """A journal: its rows, the batches that were sent, and the results."""

    def clear(self) -> None:
        """Forgets everything, of a job whose requests were not read to their end, or that got no answer."""
        for table in ("job", "requests", "work", "parts", "results"):
            self._db.execute(f"DELETE FROM {table}")  # noqa: S608 - one of these names

    def add(self, rows: Sequence[Row]) -> None:
        """Takes rows in."""
        self._db.executemany(
            "INSERT INTO requests VALUES (?, ?, ?, ?, ?, ?)",
            [(row.number, row.reference, row.request, row.metadata, row.batched, row.checksum) for row in rows],
        )
        self._db.executemany(
            "INSERT INTO work (number, batched) VALUES (?, ?)", [(row.number, row.batched) for row in rows]
        )

    def batched(self) -> int:
        """How many rows are to go in a batch, and were not sent yet."""
        return int(self._value("SELECT count(*) FROM work WHERE part IS NULL AND batched"))

    def call_all(self) -> None:
        """Lets the rows that were not sent yet go as single calls."""
        self._db.execute("UPDATE work SET batched = 0 WHERE part IS NULL")

    def waiting(self, *, batched: bool, after: int = -1) -> Generator[Row, None, None]:
        """The rows after that number that were not sent yet, in order."""
        return self._rows(
            f"{_ROWS} WHERE part IS NULL AND work.batched = ? AND number > ? ORDER BY number",
            (batched, after),
        )

    def open_part(self, numbers: Sequence[int], most_cost: float) -> int:
        """Notes that these rows are about to be sent as a batch, which may cost so much, and numbers it."""
        cursor = self._db.execute("INSERT INTO parts (state, most_cost) VALUES ('sending', ?)", (most_cost,))
        part = cursor.lastrowid
        self._db.executemany(
            "UPDATE work SET part = ?, place = ? WHERE number = ?",
            [(part, place, number) for place, number in enumerate(numbers)],
        )
        return int(part or 0)

    def sent(self, part: int, request_id: str) -> None:
        """Notes the id that the service gave a batch."""
        self._db.execute("UPDATE parts SET state = 'sent', request_id = ? WHERE id = ?", (request_id, part))

    def take_back(self, part: int, *, state: str) -> None:
        """Lets the rows of a batch be sent again: one that was ``refused``, or of which that is ``unclear``."""
        self._db.execute("UPDATE parts SET state = ? WHERE id = ?", (state, part))
        self._db.execute("UPDATE work SET part = NULL, place = NULL WHERE part = ?", (part,))

    def parts(self, state: str) -> list[tuple[int, str, float]]:
        """The batches in a state, each with the id that the service gave it, and what it may cost."""
        found = self._all("SELECT id, request_id, most_cost FROM parts WHERE state = ?", (state,))
        return [(int(part), str(request_id), float(cost)) for part, request_id, cost in found]

    def rows_of(self, part: int) -> list[Row]:
        """The rows of a batch, by their places."""
        return list(
            self._rows(
                f"{_ROWS} WHERE part = ? ORDER BY place",
                (part,),
            )
        )

    def finish_part(self, part: int, tokens: tuple[int | None, int | None], cost: float | None) -> None:
        """Notes that a batch has ended, and what it cost; rows of it that have no result are sent again."""
        self._db.execute(
            "UPDATE parts SET state = 'done', prompt_tokens = ?, completion_tokens = ?, cost = ? WHERE id = ?",
            (*tokens, cost, part),
        )
        self._db.execute(
            "UPDATE work SET part = NULL, place = NULL, tries = tries + 1 WHERE part = ?",
            (part,),
        )

    def finish(self, outcomes: Sequence[Outcome]) -> None:
        """Keeps what rows ended with; nothing more is to be done for them."""
        self._db.executemany(
            "INSERT OR REPLACE INTO results VALUES (?, ?, ?, ?, ?, ?, ?)",
            [
                (out.number, *texts, *out.tokens, out.cost, checksum(out.number, *texts))
                for out in outcomes
                for texts in [(out.completion, out.error)]
            ],
        )
        self._db.executemany("DELETE FROM work WHERE number = ?", [(out.number,) for out in outcomes])

    def ask_failed_again(self) -> None:
        """Takes the rows that ended with an error up again; what was paid for them stays counted, as a part's."""
        self._db.execute(
            "INSERT INTO parts (state, most_cost, prompt_tokens, completion_tokens, cost) "
            "SELECT 'done', 0, sum(prompt_tokens), sum(completion_tokens), total(cost) FROM results "
            "WHERE error IS NOT NULL AND prompt_tokens IS NOT NULL GROUP BY error IS NOT NULL"
        )
        self._db.execute(
            "INSERT INTO work (number, batched) SELECT number, batched FROM results JOIN requests USING (number) "
            "WHERE error IS NOT NULL"
        )
        self._db.execute("DELETE FROM results WHERE error IS NOT NULL")

    def results(self, after: int = -1) -> Generator[Stored, None, None]:
        """The rows after that number that have a result, in order."""
        with reading(self.path):
            yield from stored(self._db, after)

    def progress(self) -> Progress:
        """How far the job is, counted from the tables."""
        with reading(self.path):
            return counted(self._db)

    def got_nothing(self) -> bool:
        """Whether no request has an answer, and none can have been billed."""
        kept = self._value("SELECT count(*) FROM results WHERE completion IS NOT NULL OR prompt_tokens IS NOT NULL")
        sent = self._value("SELECT count(*) FROM parts WHERE state <> 'refused'")
        return not (kept or sent or self.fact(UNCLEAR_CALLS, (0, 0.0))[0])

    def _rows(self, query: str, values: Sequence[Any]) -> Generator[Row, None, None]:
        with reading(self.path):
            for *row, kept in self._db.execute(query, values):
                yield checked_row(Row(*row), kept)
