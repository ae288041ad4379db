"""The plots of the README."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from benchmarks.plan import ALONE, FAMILIES, OURS, PEERS, WIRE, rates, times
from benchmarks.report import Results

AT_ONCE = (16, 100, 500, 1_000)
_COLORS = {
    "langchain-cloudflare": "tab:blue",
    "langchain-cloudflare on aiohttp": "tab:cyan",
    "langchain-openai": "tab:green",
    "llama-index-llms-openai": "tab:purple",
}
PIECES = {500: "", 2_000: " of 2,000", 32_000: " of 32,000"}


def draw(results: Results, folder: Path) -> None:
    """Throughput against concurrency, and the cost of a piece against the length of its stream."""
    matplotlib: Any = importlib.import_module("matplotlib")
    matplotlib.use("Agg")
    pyplot: Any = importlib.import_module("matplotlib.pyplot")
    figure, axes = pyplot.subplots(1, len(FAMILIES), figsize=(11, 4.2), sharey=True, layout="constrained")
    for axis, family in zip(axes, FAMILIES, strict=True):
        found = [results[f"async calls, {at_once:,} at once, cold"] for at_once in AT_ONCE]
        aim = [rates(row[ALONE[family]], row[WIRE[False]]) for row in found]
        axis.plot(AT_ONCE, aim, "--", color="gray", label="aim: the framework alone, plus httpx on aiohttp")
        for name in (OURS[family], *PEERS[family]):
            axis.plot(AT_ONCE, [row[name] or None for row in found], "o-", label=name, **_style(name))
        axis.set(title=family, xscale="log", xlabel="calls at once, from a cold start", yscale="log")
        axis.set_xticks(AT_ONCE, labels=[f"{at_once:,}" for at_once in AT_ONCE], minor=False)
        axis.minorticks_off()
        axis.grid(visible=True, alpha=0.3)
        axis.legend(fontsize=8)
    axes[0].set_ylabel("answers a second")
    figure.savefig(folder / "throughput.png", dpi=110)

    figure, axes = pyplot.subplots(1, len(FAMILIES), figsize=(11, 3.8), sharey=True, layout="constrained")
    for axis, family in zip(axes, FAMILIES, strict=True):
        found = [results[f"a piece of a stream{of}, async"] for of in PIECES.values()]
        aim = [times(row[ALONE[family]], row[WIRE[False]]) for row in found]
        axis.plot(list(PIECES), aim, "--", color="gray", label="aim")
        for name in (OURS[family], *PEERS[family]):
            points = [(pieces, row[name]) for pieces, row in zip(PIECES, found, strict=True) if name in row]
            axis.plot(*zip(*points, strict=True), "o-", label=name, **_style(name))
        axis.set(title=family, xscale="log", xlabel="pieces of the stream")
        axis.set_ylim(bottom=0)
        axis.set_xticks(list(PIECES), labels=[f"{pieces:,}" for pieces in PIECES])
        axis.minorticks_off()
        axis.grid(visible=True, alpha=0.3)
        axis.legend(fontsize=8)
    axes[0].set_ylabel("µs a piece, async")
    figure.savefig(folder / "stream.png", dpi=110)


def _style(name: str) -> dict[str, Any]:
    if name in OURS.values():
        return {"linewidth": 2.5, "color": "tab:orange"}
    return {"color": _COLORS[name]}
