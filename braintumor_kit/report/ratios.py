"""The figure of a benchmark: how many times btkit is better than each peer."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from braintumor_kit.report.style import INK, QUIET, TEST, TRAIN, VALIDATION, figure

COLOURS = {"fit": TRAIN, "inference": TEST, "explain": VALIDATION}
TICKS = (0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


def draw_ratios(path: Path, bench: Mapping[str, Any]) -> None:
    """Bars of the ratios on a logarithmic axis, with what is promised.

    Args:
        bench: the content of `bench.json`.
    """
    rows = bench["rows"][::-1]
    machine = bench["machine"]
    with figure(path, 10, 1.6 + 0.3 * len(rows)) as drawn:
        axes = drawn.subplots()
        for place, row in enumerate(rows):
            colour = COLOURS.get(row["name"].split("/")[0], QUIET)
            axes.barh(place, row["ratio"] - 1, left=1, color=colour, height=0.7)
            axes.text(max(row["ratio"], 1) * 1.04, place, f"{row['ratio']:.2f}", va="center", fontsize=9, color=INK)
            if row["at_least"] is not None:
                axes.plot([row["at_least"]] * 2, [place - 0.42, place + 0.42], color=INK, linewidth=1.5)
        axes.set_yticks(range(len(rows)), [f"{row['name']}   /   {row['peer']}" for row in rows], fontsize=9)
        axes.set_xscale("log")
        highest = max((row["ratio"] for row in rows), default=1)
        lowest = min((row["ratio"] for row in rows), default=1)
        axes.set_xlim(min(0.7, 0.9 * lowest), max(2, 1.4 * highest))
        ticks = [tick for tick in TICKS if axes.get_xlim()[0] <= tick <= axes.get_xlim()[1]]
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
        axes.axvline(1, color=QUIET, linewidth=1)
        axes.set_xlabel("times better than the peer; short black lines: at least promised")
        device = machine["gpu"] or f"{machine['cores']} cores, {machine['processor']}"
        axes.set_title(f"btkit beside its peers on {device}")
