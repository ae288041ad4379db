"""The results as tables."""

from __future__ import annotations

import os
import platform
import sys
from datetime import datetime, timezone
from importlib import metadata
from typing import TypedDict

from benchmarks.plan import ALONE, FAMILIES, OURS, PEERS, TOGETHER, TRANSPORT, WIRE, Measure

Results = dict[str, dict[str, float]]
"""The median of each measure, by its title and its subject."""


class Run(TypedDict):
    """What a run found, and on what."""

    day: str
    machine: str
    repeats: int
    results: Results


_PACKAGES = (
    "httpx",
    "httpcore",
    "aiohttp",
    "httpx-aiohttp",
    "pydantic",
    "langchain-core",
    "langchain-cloudflare",
    "langchain-openai",
    "openai",
    "llama-index-core",
    "llama-index-llms-openai",
)


def aim_of(measure: Measure, found: dict[str, float], family: str) -> float | None:
    """What the framework's own part and the wire's add up to."""
    if measure.aim is None or measure.sync is None:
        return None
    return measure.aim(found[ALONE[family]], found[WIRE[measure.sync]])


def ours_of(measure: Measure, found: dict[str, float], subject: str) -> float | None:
    """A subject's number; without the wire's where the measure says so."""
    value = found.get(subject)
    if value is None or not measure.over_wire or measure.sync is None:
        return value
    return value - found[WIRE[measure.sync]]


def table(family: str, measures: list[Measure], results: Results) -> str:
    """One framework's part."""
    columns = [OURS[family], "aim", "ratio", "target", "together", "ratio", *PEERS[family]]
    lines = [f"| {family} | {' | '.join(columns)} |", f"| --- {'| --- ' * len(columns)}|"]
    for measure in (one for one in measures if not one.own):
        found = results[measure.title]
        ours, aim = ours_of(measure, found, OURS[family]), aim_of(measure, found, family)
        together = ours_of(measure, found, TOGETHER[family])
        peers = [ours_of(measure, found, peer) for peer in PEERS[family]]
        beside = "" if ours is None or not together else f"{ours / together:.2f}"
        cells = [_number(ours), _number(aim), *_judged(measure, ours, aim), _number(together), beside]
        cells += map(_number, peers)
        lines.append(f"| {measure.title}{f' ({measure.unit})' if measure.unit else ''} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _judged(measure: Measure, ours: float | None, aim: float | None) -> tuple[str, str]:
    """The ratio to the aim, and whether the target is reached."""
    ratio = None if ours is None or not aim else ours / aim
    shown = "" if ratio is None else f"{ratio:.2f}"
    if ours is None or (measure.limit is None and (measure.target is None or ratio is None)):
        return shown, ""
    bound, value = (measure.limit, ours) if measure.limit is not None else (measure.target or 0, ratio or 0)
    reached = value >= bound if measure.higher else value <= bound
    sign = "≥" if measure.higher else "≤"
    return shown, f"{sign} {bound:,g}: {'yes' if reached else '**no**'}"


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 10 else f"{value:.2g}"  # noqa: PLR2004


def machine() -> str:
    """What it was measured on, with the versions."""
    versions = (f"{name} {version}" for name in _PACKAGES if (version := _version(name)))
    python, cores = sys.version.split()[0], os.cpu_count()
    return f"Python {python}, {platform.machine()}, {cores} cores; {', '.join(versions)}"


def today() -> str:
    """The day."""
    return f"{datetime.now(timezone.utc):%Y-%m-%d}"


def run_of(results: Results, repeats: int) -> Run:
    """The results, with the day, the versions and the machine."""
    return Run(day=today(), machine=machine(), repeats=repeats, results=results)


def page(measures: list[Measure], run: Run) -> str:
    """The page of the repository."""
    results = run["results"]
    wires = [
        f"| {measure.title} ({measure.unit}) | {_number(found.get(WIRE[measure.sync]))} | "
        f"{_number(found.get(TRANSPORT))} |"
        for measure in measures
        if measure.sync is not None and (found := results[measure.title])
    ]
    return "\n".join(
        [
            "# Benchmarks",
            "",
            f"Written by `make bench` on {run['day']}: {run['machine']}.",
            "",
            _EXPLAINED.format(repeats=run["repeats"]),
            *(f"## {family}\n\n{table(family, measures, results)}\n" for family in FAMILIES),
            "## The transport alone",
            "",
            "| | httpx (sync), httpx on aiohttp (async) | `workersai` |",
            "| --- | --- | --- |",
            *wires,
            "",
            "Their first pieces are told whole.",
            "",
            *(
                f"{one.title}: {results[one.title][TRANSPORT]:,.0f} {one.unit} (≤ {one.limit:,.0f})."
                for one in measures
                if one.own
            ),
            _growth(results),
            "",
            _HELD,
        ]
    )


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _growth(results: Results) -> str:
    told = []
    for family in FAMILIES:
        for way in ("sync", "async"):
            short, long = (results[f"a piece of a stream{n}, {way}"] for n in ("", " of 32,000"))
            ours, alone = (long[name] / short[name] for name in (OURS[family], ALONE[family]))
            told.append(f"| {family}, {way} | {ours:.2f} | {alone:.2f} |")
    head = """
## A piece of a stream of 32,000 over one of 500

| | ours | the framework alone |
| --- | --- | --- |
"""
    return head + "\n".join(told)


_EXPLAINED = """\
Each subject runs in a process of its own, all of them against one loopback server in another. Shown are medians of up
to {repeats} repeats, interleaved over the subjects (of the peers where they are slow, 2). The machine is a small shared
one: repeats of a cell differ by up to 1.8 times, so that a ratio nearer to 1 than 1.5 shows nothing by itself.

- **aim**: the floors added up: a model of the framework's own classes that answers out of the air, and the wire: httpx
  for sync calls, httpx on the transport of aiohttp for async ones, which reads the body and nothing else.
- **together**: the same two floors measured in one process. Where what runs between two pieces pushes the other out of
  the processor's caches, they cost more than added up.
- **ratio**: ours over the aim.
- **calls**: that many tasks on one event loop, calling again and again; cold is with no connection open, warm after a
  call of each task; 0 is none within 4 seconds.
- **a piece of a stream**: processor time, of a stream whose pieces come one by one, 150 µs apart.
- **first piece**: the time until it, less that of the wire.
- Peers speak to the same server: `langchain-cloudflare` in Workers AI's shape, the OpenAI classes in OpenAI's.
"""

_HELD = """\
## What is not reached, and what holds it

**A piece of a stream** is within 1.2 of both floors in one process, and not of the two added up: the framework alone is
measured in a tight loop, with all of its code in the processor's caches, and a stream waits between two pieces. Of a
piece in LangChain, sync, a profile (2026-11-23, cProfile, in its own microseconds, which are more) shows 48 in `recv`,
about 50 in h11 and httpcore, 31 in the making of LangChain's two objects, and 21 of ours: 7 to split the bytes
into events, 7 to read one, the rest to pump the flow.

**The first piece** is sooner than over both floors in one process, but later than the framework's own part beyond
httpx: the request is checked, counted against the window and built in 45 µs, and what is received is translated. The
differences of two noisy times are the noisiest numbers of the page.

**A thousand calls at once** do not keep 0.8 of the rate at 100, and neither do the floors. It is the garbage
collector: of the time at 1,000 it takes 38 % in LangChain and 33 % in LlamaIndex (20 % and 6 % at 100), and as much of
the floors' (38 % and 32 %). A call in flight holds as many objects as one of httpx on aiohttp: 131 over a stream, to
its 124. Without the collector the rates were 2,099 and 2,107 in place of 1,295 and 1,387; with `gc.freeze()` after the
imports, 1,560 and 1,589. A library may not turn it off; a program may.
"""
