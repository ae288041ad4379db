"""The results of bulk work as a section of the page."""

from __future__ import annotations

from typing import TypedDict

Numbers = dict[str, float]
"""What one process measured."""


class Pair(TypedDict):
    """A job by calls beside a plain loop of the same calls: rows a second, and µs of processor time a row."""

    server: str
    at_once: int
    rows: int
    job_rate: float
    plain_rate: float
    job_us: float
    plain_us: float


class Killed(TypedDict):
    """What became of the jobs of one mode that were killed; ``again``: how often a row was asked once more."""

    mode: str
    rows: int
    seconds: float
    jobs: int
    kills: dict[str, int]
    missing: int
    twice: int
    wrong: int
    left: int
    unclear: int
    again: int
    most_again: int


class Bulk(TypedDict):
    """What a run found, and on what: ``load`` before and after it; of each job the smaller one first."""

    day: str
    machine: str
    load: tuple[float, float]
    jobs: dict[str, list[Numbers]]
    pairs: list[Pair]
    killed: list[Killed]


_SERVERS = {"local": "the local server", "leaner": "the server of the other benchmarks"}
_BY = {"batch": "batches", "calls": "calls"}


def section(bulk: Bulk) -> str:
    """The part of the page."""
    return "\n".join(
        [
            "## Bulk work",
            "",
            f"Written by `make bench-bulk` on {bulk['day']}: {bulk['machine']}.",
            "",
            _EXPLAINED.format(*bulk["load"]),
            _jobs(bulk["jobs"]),
            "",
            _pairs(bulk["pairs"]),
            "",
            _killed(bulk["killed"]),
            "",
        ]
    )


def _head(*columns: str) -> list[str]:
    return [f"| {' | '.join(columns)} |", f"| --- {'| --- ' * (len(columns) - 1)}|"]


def _jobs(jobs: dict[str, list[Numbers]]) -> str:
    lines = _head(
        "",
        "rows",
        "rows/s",
        "reading and checking (rows/s)",
        "processor time of the client (µs a row)",
        "memory at the start (MiB)",
        "after 1,000 results",
        "peak",
        "journal (bytes a row)",
    )
    for title, sizes in jobs.items():
        for found in sizes:
            rows, reading = found["rows"], found["reading"]
            cells = [
                f"{rows:,.0f}",
                f"{rows / found['seconds']:,.0f}",
                f"{rows / reading:,.0f}" if reading else "",
                f"{1e6 * found['cpu'] / rows:,.0f}",
                *(f"{found[name]:.0f}" for name in ("begun_mib", "first_mib", "peak_mib")),
                f"{found['journal'] / rows:,.0f}",
            ]
            lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _pairs(pairs: list[Pair]) -> str:
    lines = _head(
        "calls",
        "at once",
        "by a job (rows/s)",
        "by a plain loop",
        "ratio",
        "processor time by a job (µs a row)",
        "by a plain loop",
    )
    lines += [
        f"| {pair['rows']:,} of {_SERVERS[pair['server']]} | {pair['at_once']} | {pair['job_rate']:,.0f} "
        f"| {pair['plain_rate']:,.0f} | {pair['job_rate'] / pair['plain_rate']:.2f} | {pair['job_us']:,.0f} "
        f"| {pair['plain_us']:,.0f} |"
        for pair in pairs
    ]
    return "\n".join(lines)


def _killed(killed: list[Killed]) -> str:
    columns = [f"{told['jobs']} jobs of {told['rows']:,} rows by {_BY[told['mode']]}" for told in killed]
    rows = {
        "killed": [sum(told["kills"].values()) for told in killed],
        **{f"killed {moment}": [told["kills"][moment] for told in killed] for moment in killed[0]["kills"]},
        "rows without an answer": [told["missing"] for told in killed],
        "rows with two": [told["twice"] for told in killed],
        "wrong answers": [told["wrong"] for told in killed],
        "rows left in the journal": [told["left"] for told in killed],
        "batches that it calls unclear": [told["unclear"] for told in killed],
        "rows that the server was asked for again": [told["again"] for told in killed],
        "as many as the kills explain": [told["most_again"] for told in killed],
    }
    lines = _head("", *columns)
    lines += [f"| {title} | {' | '.join(f'{count:,}' for count in counts)} |" for title, counts in rows.items()]
    return "\n".join(lines)


_EXPLAINED = """\
Measured is the client, in a process of its own, together with the local server and a script, in another: they share
two cores, and the service itself is slower. The client's results are counted and checked, not held; a prompt has
about 85 characters, an answer 75. `rate_limit` is None and `poll_interval` 0.1, so that nothing waits for the clock.
The machine is shared: its load was {:.2f} before the run and {:.2f} after it, the run's own processes counted. Rates
differ by two times and more from one run to the next; processor time and memory differ less.

- **rows/s** is from the first request that is read to the last result that is handed over, with the journal on disk.
- **memory** is the resident memory of the client's process: after its imports, after the first 1,000 results, and at
  the most until the end.
- **a plain loop** is that many tasks that call `AsyncClient.run`, without a job or a journal; medians of 3 repeats,
  interleaved with the job's. The local server takes more of a call's time than the client does; the server of the other
  benchmarks takes next to none.
- **killed** by `SIGKILL`, at random moments, up to three times a job, which is then begun again with the same journal.
  How often each row was asked, the server counts. A batch is unclear where the process ended while sending it; a job by
  calls repeats at most the 32 calls that were under way.
"""
