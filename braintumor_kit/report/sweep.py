"""The figure of a sweep: the course of every trial, and what came of each value."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from braintumor_kit.report.style import INK, QUIET, TEST, TRAIN, figure

PANELS = 5
"""Keys that are drawn; more would be too small to read."""

WORDS = {"val_accuracy": "validation accuracy", "val_loss": "validation loss"}


def sweep_figure(
    path: Path,
    select: str,
    curves: Mapping[str, Sequence[Mapping[str, float]]],
    values: Mapping[str, Mapping[str, Any]],
    ranges: Mapping[str, bool],
    best: str | None,
) -> None:
    """Draws `sweep.png`.

    Args:
        select: the column of `history.csv` that selects.
        curves: rows of `history.csv`, by trial.
        values: of the keys that vary, by trial.
        ranges: keys whose values come of a range, and whether it is logarithmic; the others have each their place.
        best: the trial that is marked.
    """
    keys = list(next(iter(values.values()), {}))[:PANELS]
    with figure(path, 4.2 + 2.6 * len(keys), 3.4) as drawn:
        first, *others = drawn.subplots(1, 1 + len(keys), width_ratios=[1.5, *[1.0] * len(keys)], squeeze=False)[0]
        _courses(first, select, curves, best)
        reached = {name: _best(rows, select) for name, rows in curves.items() if rows}
        for axes, key in zip(others, keys, strict=True):
            _panel(axes, key, {name: (values[name][key], reached[name]) for name in reached}, best, ranges.get(key))


def _best(rows: Sequence[Mapping[str, float]], select: str) -> float:
    return (min if select == "val_loss" else max)(row[select] for row in rows)


def _courses(axes: Axes, select: str, curves: Mapping[str, Sequence[Mapping[str, float]]], best: str | None) -> None:
    for name, rows in curves.items():
        chosen = name == best
        axes.plot(
            [row["epoch"] for row in rows],
            [row[select] for row in rows],
            color=TEST if chosen else QUIET,
            linewidth=2.0 if chosen else 0.8,
            marker="." if len(rows) == 1 else None,
            zorder=3 if chosen else 2,
            label=f"{name}, the best" if chosen else None,
        )
    axes.set_title(WORDS[select].capitalize())
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if best in curves:
        axes.legend()


def _panel(
    axes: Axes, key: str, points: Mapping[str, tuple[Any, float]], best: str | None, logarithmic: bool | None
) -> None:
    """What trials reached over the values of one key; `logarithmic` is None of values that were listed."""
    names = list(dict.fromkeys(str(value) for value, _ in points.values()))
    for name, (value, reached) in points.items():
        chosen = name == best
        axes.plot(
            names.index(str(value)) if logarithmic is None else value, reached, "o", markersize=7 if chosen else 5,
            color=TEST if chosen else TRAIN, markeredgecolor=INK if chosen else "none", zorder=3 if chosen else 2,
        )  # fmt: skip
    if logarithmic is None:
        axes.set_xticks(range(len(names)), names)
        axes.set_xlim(-0.5, len(names) - 0.5)
    elif logarithmic:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")  # the style sets no mathematics, powers of ten included
        axes.xaxis.set_minor_formatter("")
    axes.set_title(key.rpartition(".")[2].replace("_", " "))
    axes.grid(axis="y")
