"""The file of a journal: who can read it, and what happens if it is damaged, deleted or replaced."""

from __future__ import annotations

import os
import shutil
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support import Serve, asked_text, connection
from tests.workersai.batch.conftest import QUICK, JobDriver
from tests.workersai.batch.test_jobs import BOTH, batches_at, by_index, echo
from workersai import Client, errors
from workersai.batch import BatchResult, notes_of, progress_of, results_of
from workersai.local import LocalServer
from workersai.local.engine import GenerationRequest
from workersai.local.scripted import Answer, Gate

ROWS = 60
posix_only = pytest.mark.skipif(sys.platform == "win32", reason="an open file can't be removed there")


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


@pytest.fixture
def open_umask() -> Any:
    """No bit of a mode is taken away."""
    before = os.umask(0)
    yield
    os.umask(before)


@posix_only
def test_only_its_owner_can_read_any_file_of_a_journal(serve: Serve, tmp_path: Path, open_umask: None) -> None:
    with (
        Client(**connection(serve(echo))) as client,
        client.batch(["a", "b"], journal=tmp_path / "job", **QUICK) as job,
    ):
        next(job)
        modes = {path.name: mode(path) for path in tmp_path.iterdir()}
    assert modes == dict.fromkeys(("job", "job-wal", "job-shm", "job-lock"), 0o600)
    assert mode(tmp_path / "job") == 0o600


@posix_only
def test_the_lock_of_a_journal_follows_no_link(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "job-lock").symlink_to(tmp_path / "victim")
    with Client(**connection(serve("never"))) as client, pytest.raises(errors.JournalError, match="can't be opened"):
        list(client.batch(["a"], journal=tmp_path / "job"))
    assert not (tmp_path / "victim").exists()


def remove(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


def remove_the_database(folder: Path) -> None:
    (folder / "job").unlink()


def rename(folder: Path) -> None:
    (folder / "job").rename(folder / "other")


def replace(folder: Path) -> None:
    (folder / "mine").write_text("precious")
    (folder / "mine").replace(folder / "job")


def move(folder: Path) -> None:
    (folder / "a").rename(folder / "b")


def interfere(folder: Path, what: Callable[[Path], None], at: int) -> Callable[[GenerationRequest], Answer]:
    """A script that does it while it answers that row."""

    def script(request: GenerationRequest) -> Answer:
        if asked_text(request) == str(at):
            what(folder)
        return Answer(echo(request))

    return script


@posix_only
@BOTH
@pytest.mark.parametrize("what", [remove, remove_the_database, rename, replace])
def test_a_journal_taken_away_stops_the_job_and_loses_no_answer(
    jobs: JobDriver, serve: Serve, tmp_path: Path, mode: str, what: Callable[[Path], None]
) -> None:
    server = serve(interfere(tmp_path, what, at=20))
    options: dict[str, Any] = {"mode": mode, "part_size": 10, "concurrency": 4, "max_retries": 0}
    with pytest.raises(
        errors.JournalError, match=r"while the job ran, so the job was stopped\. No answer is lost"
    ) as caught:
        jobs.run(server, map(str, range(ROWS)), journal=tmp_path / "job", **options)
    restored = tmp_path / ("job.restored-1" if what is replace else "job")
    assert f"restored as {restored}." in str(caught.value)
    answered = len(batches_at(server)) * 10 if mode == "batch" else len(server.requests)
    assert answered <= (40 if mode == "calls" else ROWS)
    with_answers = {result.index for result in results_of(restored)}
    if mode == "calls":
        assert len(with_answers) == answered
    assert restored.stat().st_mode & 0o077 == 0
    results = by_index(jobs.run(server, None, journal=restored, **options))
    assert [result.text for result in results] == [f"you said {number}" for number in range(ROWS)]
    again = len(batches_at(server)) * 10 if mode == "batch" else len(server.requests)
    assert again == ROWS
    if what is replace:
        assert (tmp_path / "job").read_text() == "precious"
    names = {path.name for path in tmp_path.iterdir()}
    assert names <= {"job", "job.restored-1", "other"}, names


@posix_only
def test_a_journal_whose_folder_is_moved_has_all_answers_there(jobs: JobDriver, serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    server = serve(interfere(tmp_path, move, at=20))
    options: dict[str, Any] = {"mode": "calls", "concurrency": 4, **QUICK}
    with pytest.raises(errors.JournalError, match="was moved or renamed while the job ran"):
        jobs.run(server, map(str, range(ROWS)), journal=tmp_path / "a" / "job", **options)
    answered = len(server.requests)
    assert answered < ROWS
    assert len(list(results_of(tmp_path / "b" / "job"))) == answered
    results = by_index(jobs.run(server, None, journal=tmp_path / "b" / "job", **options))
    assert [result.text for result in results] == [f"you said {number}" for number in range(ROWS)]
    assert len(server.requests) == ROWS


@posix_only
def test_a_journal_that_cannot_be_restored_is_said_to_be_lost(jobs: JobDriver, serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    server = serve(interfere(tmp_path / "a", shutil.rmtree, at=20))
    with pytest.raises(errors.JournalError, match=r"can't be restored.* are lost unless"):
        jobs.run(server, map(str, range(ROWS)), journal=tmp_path / "a" / "job", mode="calls", concurrency=4)
    assert len(server.requests) < ROWS


@posix_only
def test_a_journal_deleted_while_its_rows_are_read_has_sent_nothing(serve: Serve, tmp_path: Path) -> None:
    def rows() -> Any:
        yield from map(str, range(600))
        (tmp_path / "job").unlink()
        yield from map(str, range(600))

    server = serve("never")
    with Client(**connection(server)) as client, pytest.raises(errors.JournalError, match="Nothing was sent"):
        list(client.batch(rows(), journal=tmp_path / "job", **QUICK))
    assert server.requests == []


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A journal whose job was stopped: it has answers, and rows to be sent."""
    path, gate = tmp_path_factory.mktemp("damaged") / "job", Gate()
    script = lambda request: Answer("a" * 400, hold={0: gate} if asked_text(request) == "60-" else {})  # noqa: E731
    with LocalServer(script) as server, Client(**connection(server)) as client:
        with client.batch([f"{n}-" for n in range(100)], journal=path, mode="calls", concurrency=1, **QUICK) as job:
            for _ in range(50):
                next(job)
        gate.open()
    return path


def read(path: Path) -> list[BatchResult]:
    progress_of(path)
    notes_of(path)
    return list(results_of(path))


changes = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=40)
cuts = st.floats(0, 1, exclude_max=True)


@settings(deadline=None)
@given(changes=changes, cut=st.none() | cuts, zeroed=st.none() | cuts)
def test_a_damaged_journal_is_an_error_or_gives_what_was_written(
    journal: Path, changes: list[tuple[float, int]], cut: float | None, zeroed: float | None
) -> None:
    content = bytearray(journal.read_bytes())
    for place, byte in changes:
        content[int(place * len(content))] = byte
    if zeroed is not None:
        start = int(zeroed * len(content))
        content[start : start + 4096] = bytes(len(content[start : start + 4096]))
    if cut is not None:
        del content[int(cut * len(content)) :]
    with TemporaryDirectory() as folder:
        damaged = Path(folder) / "job"
        damaged.write_bytes(content)
        try:
            found = read(damaged)
        except errors.JournalError:
            return
        # Cut to nothing, it is one that a job is just making.
        assert found == read(journal) or not content


DAMAGES = {
    "a text that is no JSON": "UPDATE results SET completion = '{' WHERE number = 7",
    "a value of another type": "UPDATE results SET completion = 5 WHERE number = 7",
    "bytes": "UPDATE results SET completion = x'ff00' WHERE number = 7",
    "a text that is not UTF-8": "UPDATE results SET completion = CAST(x'ff' AS TEXT) WHERE number = 7",
    "another answer": "UPDATE results SET completion = replace(completion, 'aaa', 'aab') WHERE number = 7",
    "an answer of another row": "UPDATE results SET completion = (SELECT error FROM results LIMIT 1) WHERE number = 7",
    "a result that is missing": "DELETE FROM results WHERE number = 7",
    "a request that is missing": "DELETE FROM requests WHERE number = 7",
    "another request": "UPDATE requests SET request = replace(request, '7-', '8-') WHERE number = 7",
    "work that is missing": "DELETE FROM work WHERE number = (SELECT max(number) FROM work)",
    "other facts": "UPDATE job SET value = replace(value, '1', '2')",
    "a table that is missing": "DROP TABLE results",
    "a column that is missing": "ALTER TABLE results RENAME COLUMN completion TO other",
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_whatever_is_wrong_in_a_journal_is_an_error_of_the_journal(
    serve: Serve, journal: Path, tmp_path: Path, damage: str
) -> None:
    damaged = tmp_path / "job"
    shutil.copy(journal, damaged)
    with sqlite3.connect(damaged) as db:
        db.execute(damage)
    db.close()
    with pytest.raises(errors.JournalError, match="It is damaged"):
        read(damaged)
    server = serve("never")
    with Client(**connection(server)) as client, pytest.raises(errors.JournalError, match="It is damaged"):
        list(client.batch(journal=damaged, **QUICK))
    assert server.requests == []
