"""What is measured, what it is compared with, and what it is to reach."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmarks.subjects import CORE, LANGCHAIN, LLAMAINDEX

OURS = {LANGCHAIN: "ChatWorkersAI", LLAMAINDEX: "WorkersAI"}
ALONE = {LANGCHAIN: "LangChain alone", LLAMAINDEX: "LlamaIndex alone"}
TOGETHER = {LANGCHAIN: "LangChain over httpx", LLAMAINDEX: "LlamaIndex over httpx"}
PEERS = {
    LANGCHAIN: ("langchain-cloudflare", "langchain-cloudflare on aiohttp", "langchain-openai"),
    LLAMAINDEX: ("llama-index-llms-openai",),
}
FAMILIES = (LANGCHAIN, LLAMAINDEX)
WIRE = {True: "httpx", False: "httpx on aiohttp"}  # whether the call is a sync one
TRANSPORT = "workersai"

Aim = Callable[[float, float], float]  # of the framework's own part, and of the wire's


def rates(alone: float, wire: float) -> float:
    """The rate of both one after the other."""
    return 1 / (1 / alone + 1 / wire)


def times(alone: float, wire: float) -> float:
    """The time of both one after the other."""
    return alone + wire


def above_wire(alone: float, _: float) -> float:
    """The framework's own part: the wire's is taken off what is measured."""
    return alone


@dataclass(frozen=True)
class Measure:
    """One row of the results.

    ``value`` names the number that counts. ``target`` is what ours has to be of the aim: at least where a higher
    number is better, at most otherwise. ``limit`` bounds the number itself. ``fresh`` takes a new process each time;
    ``own`` is asked of the transport alone.
    """

    title: str
    method: str
    unit: str
    value: str
    args: Mapping[str, Any] = field(default_factory=dict)
    higher: bool = False
    sync: bool | None = None
    aim: Aim | None = None
    target: float | None = None
    limit: float | None = None
    fresh: bool = False
    peers: bool = True
    over_wire: bool = False
    own: bool = False
    most_repeats: int = 25


def _calls(at_once: int, *, warm: bool, quick: bool) -> Measure:
    most = {16: 600, 100: 1_000, 500: 1_500, 1_000: 2_000}[at_once] // (2 if quick else 1)
    return Measure(
        f"async calls, {at_once:,} at once, {'warm' if warm else 'cold'}",
        "calls",
        "calls/s",
        "per_second",
        {"at_once": at_once, "most": most, "seconds": 1 if quick else 4, "warm": warm},
        higher=True,
        sync=False,
        aim=rates,
        target=0.8,
        most_repeats=3,
    )


def _threads(at_once: int) -> Measure:
    return Measure(
        f"sync calls, {at_once} threads (LangChain: `batch`)",
        "threads",
        "calls/s",
        "per_second",
        {"at_once": at_once, "most": 400},
        higher=True,
        sync=True,
        aim=rates,
        most_repeats=3,
    )


def _both(title: str, method: str, target: float, aim: Aim, args: Mapping[str, Any], *, over: bool) -> list[Measure]:
    return [
        Measure(
            f"{title}, {'sync' if sync else 'async'}",
            method,
            "µs",
            "us",
            {**args, "sync": sync},
            sync=sync,
            aim=aim,
            target=target,
            over_wire=over,
        )
        for sync in (True, False)
    ]


def _long_streams(pieces: int) -> list[Measure]:
    return [
        Measure(
            f"a piece of a stream of {pieces:,}, {'sync' if sync else 'async'}",
            "piece",
            "µs",
            "us",
            {"pieces": pieces, "sync": sync},
            sync=sync,
            peers=pieces < _LONG,
            most_repeats=2,
        )
        for sync in (True, False)
    ]


def measures(*, quick: bool) -> list[Measure]:
    """All rows, or those that show most in a minute."""
    calls = [
        _calls(at_once, warm=warm, quick=quick)
        for at_once in ((16, 500) if quick else (16, 100, 500, 1_000))
        for warm in ((False,) if quick else (False, True))
    ]
    at_once, pieces = (100, 50) if quick else (300, 200)
    streams = Measure(
        f"{at_once} streams at once, of {pieces} pieces",
        "streams",
        "pieces/s",
        "per_second",
        {"at_once": at_once, "pieces": pieces, "seconds": 1 if quick else 10},
        higher=True,
        sync=False,
        aim=rates,
        target=0.9,
        most_repeats=3,
    )
    common = [
        *calls,
        streams,
        *_both("a piece of a stream", "piece", 1.2, times, {"pieces": 200 if quick else 500}, over=False),
        *_both("one call", "call", 1.2, times, {"times": 20 if quick else 40}, over=False),
        *_both("first piece, over httpx", "first", 1.2, above_wire, {"times": 20 if quick else 40}, over=True),
    ]
    if quick:
        return common
    return [
        *common,
        *(measure for pieces in (2_000, 32_000) for measure in _long_streams(pieces)),
        *(_threads(at_once) for at_once in (1, 4, 16, 64)),
        Measure(
            "1,000 streams: open at once",
            "open_streams",
            "",
            "open",
            _OPEN,
            higher=True,
            limit=1_000,
            fresh=True,
            most_repeats=1,
        ),
        Measure(
            "1,000 streams: memory of each", "open_streams", "KiB", "kib", _OPEN, limit=40, fresh=True, most_repeats=1
        ),
        Measure(
            "making a model, the first",
            "making",
            "µs",
            "first_us",
            {"times": 20},
            limit=1_000,
            fresh=True,
            most_repeats=3,
        ),
        Measure("making a model", "making", "µs", "us", {"times": 20}, limit=1_000, fresh=True, most_repeats=3),
        Measure("checking the window of 20,000 tokens", "window", "µs", "us", {"times": 20}, limit=1_000, own=True),
        Measure("import, over the framework's core", "imports", "ms", "ms", limit=150, fresh=True, most_repeats=3),
        Measure("the same, memory", "imports", "MiB", "mib", fresh=True, most_repeats=3),
    ]


_LONG = 10_000  # pieces; some of the peers take minutes over it
_OPEN = {"at_once": 1_000, "seconds": 20}


def beside(family: str) -> list[str]:
    """What is imported before an import is measured."""
    return [CORE[family]] if family in CORE else ["httpx", "pydantic"]
