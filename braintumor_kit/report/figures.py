"""The figures of a run folder."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from braintumor_kit.evaluation.metrics import ECE_BINS, reliability
from braintumor_kit.evaluation.selective import risk_coverage
from braintumor_kit.report.style import INK, MANY, QUIET, SEQUENTIAL, TEST, TRAIN, VALIDATION, bare, figure

FEW = 10
"""Bins of fewer slices say little; they are drawn hollow."""

LONGEST_NAME = 24
"""Letters of a class beside a matrix; more would leave no room for it."""

_CURVES = {
    "accuracy": ("accuracy", TEST, "o"),
    "ece": ("ECE", TRAIN, "s"),
    "ece_calibrated": ("ECE, calibrated", VALIDATION, "^"),
}
CURVES = {"loss": "Loss", "accuracy": "Accuracy", "learning_rate": "Learning rate"}
"""Columns of `history.csv` that are drawn, with their titles."""

_MARKS = "os^vDP*X"

ROLES = {"validation": "validation (selected the model)", "test": "test (reported only)", "train": "training"}


def learning_curves(path: Path, history: Sequence[Mapping[str, float]], best_epoch: int) -> None:
    """Loss, accuracy and learning rate over epochs; the epoch whose weights were kept is marked.

    Args:
        history: rows of `history.csv`.
    """
    with figure(path, 9, 3.2) as drawn:
        for axes, name in zip(drawn.subplots(1, 3), CURVES, strict=True):
            _learning_curve(axes, name, history, best_epoch)


def learning_curve(path: Path, name: str, history: Sequence[Mapping[str, float]], best_epoch: int) -> None:
    """One of `CURVES` by itself, for pages."""
    with figure(path, 3.6, 2.7) as drawn:
        _learning_curve(drawn.subplots(), name, history, best_epoch)


def _learning_curve(axes: Axes, name: str, history: Sequence[Mapping[str, float]], best_epoch: int) -> None:
    epochs = [row["epoch"] for row in history]
    axes.set_title(CURVES[name])
    if name == "learning_rate":
        axes.plot(epochs, [row["learning_rate"] for row in history], color=INK, marker=".")
        _ticks_of_rates(axes, sorted({row["learning_rate"] for row in history}))
    else:
        axes.plot(epochs, [row[name] for row in history], color=TRAIN, marker=".", label="training")
        axes.plot(epochs, [row[f"val_{name}"] for row in history], color=VALIDATION, marker=".", label="validation")
    if name == "loss":
        axes.legend()
        axes.annotate("kept", (best_epoch, 1), xycoords=("data", "axes fraction"), fontsize=8, color=QUIET)
    axes.axvline(best_epoch, color=QUIET, linestyle=":", linewidth=1)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(True)


def _ticks_of_rates(axes: Axes, rates: Sequence[float]) -> None:
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")  # the style sets no mathematics, powers of ten included
    axes.yaxis.set_minor_formatter("{x:g}" if rates[-1] < 10 * rates[0] else "")
    if len(rates) == 1:
        axes.set_ylim(rates[0] / 2, rates[0] * 2)
    if len(rates) <= 6:  # the few rates themselves say more than powers of ten
        axes.set_yticks(rates, [f"{value:.2g}" for value in rates])
        axes.minorticks_off()


def curves_together(path: Path, column: str, histories: Mapping[str, Sequence[Mapping[str, float]]]) -> None:
    """One column of several histories, a line each, told apart by colour and mark.

    Args:
        histories: rows of `history.csv` by name.
    """
    with figure(path, 4.6, 3.2) as drawn:
        axes = drawn.subplots()
        for place, (name, history) in enumerate(histories.items()):
            colour, marker = MANY[place % len(MANY)], _MARKS[place % len(_MARKS)]
            epochs = [row["epoch"] for row in history]
            axes.plot(epochs, [row[column] for row in history], color=colour, marker=marker, markersize=4, label=name)
        axes.set_title(CURVES[column.removeprefix("val_")] + (" on validation" if column.startswith("val_") else ""))
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(True)
        if len(histories) <= 10:
            axes.legend(fontsize=8)


def confusion_matrices(path: Path, metrics: Mapping[str, Any]) -> None:
    """Counts and row shares, validation and test side by side, the last of them by patient too where patients are
    known; `metrics` is the content of `metrics.json`."""
    parts = [part for part in ("validation", "test") if metrics.get(part)]
    panels = [(ROLES[part], "n", metrics[part]) for part in parts]
    if by_patient := metrics[parts[-1]]["by_group"]:
        panels.append((f"{parts[-1]}, by patient", "patients", by_patient))
    labels = metrics[parts[0]]["labels"]
    size = 0.85 * len(labels) + 1.6
    with figure(path, size * len(panels), size * 0.92) as drawn:
        for axes, (title, counted, shown) in zip(np.atleast_1d(drawn.subplots(1, len(panels))), panels, strict=True):
            _confusion(axes, np.array(shown["confusion_matrix"]), labels)
            axes.set_title(f"{title}\naccuracy {shown['accuracy']:.3f}, {counted} = {shown['n']}")


def _confusion(axes: Axes, counts: NDArray[np.int64], labels: Sequence[str]) -> None:
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap=SEQUENTIAL, vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        colour = "white" if shares[row, column] > 0.6 else INK
        text = f"{count}\n{shares[row, column]:.0%}"
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=8)
    names = [name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…" for name in labels]
    axes.set_xticks(range(len(labels)), names, rotation=30, ha="right")
    axes.set_yticks(range(len(labels)), names)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")


def reliability_diagram(
    path: Path,
    labels: NDArray[np.int64],
    probabilities: NDArray[np.float64],
    calibrated: NDArray[np.float64] | None,
    part: str,
) -> None:
    """Accuracy over confidence in 15 bins, before and after calibration, and how many slices stand in each."""
    series = [(probabilities, TEST, "o", "as it comes")]
    if calibrated is not None:
        series.append((calibrated, VALIDATION, "s", "calibrated"))
    with figure(path, 4.2, 4.4) as drawn:
        curve, bars = drawn.subplots(2, 1, height_ratios=(3, 1), sharex=True)
        curve.plot([0, 1], [0, 1], color=QUIET, linestyle="--", linewidth=1)
        for number, (values, colour, marker, name) in enumerate(series):
            count, confidence, correct = reliability(labels, values)
            filled, few = count > 0, (count > 0) & (count < FEW)
            curve.plot(confidence[filled], correct[filled], color=colour, linewidth=1)
            curve.plot(confidence[filled & ~few], correct[filled & ~few], marker, color=colour, label=name)
            curve.plot(confidence[few], correct[few], marker, color=colour, markerfacecolor="white")
            width = 0.9 / ECE_BINS / len(series)
            left = np.arange(ECE_BINS) / ECE_BINS + 0.05 / ECE_BINS + number * width
            bars.bar(left, count, width=width, align="edge", color=colour)
        curve.set_ylabel("accuracy")
        curve.set_title(
            f"Reliability, {ROLES.get(part, part)}\ndashed: perfect; hollow: fewer than {FEW} slices", fontsize=10
        )
        curve.set_xlim(0, 1.02)
        curve.legend()
        bars.set_yscale("symlog")
        bars.yaxis.set_major_formatter("{x:g}")
        bars.set_ylabel("slices")
        bars.set_xlabel("confidence (top probability)")


def risk_coverage_curve(path: Path, labels: NDArray[np.int64], probabilities: NDArray[np.float64], part: str) -> None:
    """Share of wrong answers among the surest slices, over the share of slices that are answered."""
    coverage, risk = risk_coverage(labels, probabilities)
    with figure(path, 4.2, 3.2) as drawn:
        axes = drawn.subplots()
        axes.step(coverage, risk, where="post", color=TEST)
        axes.axhline(risk[-1], color=QUIET, linestyle="--", linewidth=1)
        axes.set_title(f"Risk and coverage, {ROLES.get(part, part)}\ndashed: when every slice is answered", fontsize=10)
        axes.set_xlabel("share of slices answered, the surest first")
        axes.set_ylabel("share of them wrong")
        axes.set_xlim(0, 1)
        axes.set_ylim(0, max(0.02, 1.1 * float(risk.max())))
        axes.grid(True)


def robustness_curves(path: Path, robustness: Mapping[str, Any]) -> None:
    """Accuracy and calibration error over severity, a small chart a corruption, on one scale.

    Args:
        robustness: the content of `robustness.json`.
    """
    corruptions, clean = robustness["corruptions"], robustness["clean"]
    with figure(path, 9, 4.6) as drawn:
        grid = drawn.subplots(2, -(-len(corruptions) // 2), sharex=True, sharey=True).ravel()
        for axes, (name, rows) in zip(grid, corruptions.items(), strict=False):
            severities = [0, *(row["severity"] for row in rows)]
            for key, (said, colour, marker) in _CURVES.items():
                values = [clean[key], *(row[key] for row in rows)]
                if None not in values:
                    axes.plot(severities, values, color=colour, marker=marker, markersize=4, label=said)
            axes.set_title(name.replace("_", " "), fontsize=10)
            axes.set_ylim(0, 1.02)
            axes.grid(True)
        grid[0].legend(fontsize=8)
        drawn.supxlabel("severity; 0: as it is", fontsize=10)


def sample_sheet(path: Path, pictures: NDArray[np.uint8], classes: Sequence[str]) -> None:
    """Slices as the network sees them, a row a class.

    Args:
        pictures: uint8 (classes, columns, S, S, C); black where a class has fewer.
    """
    rows, columns = pictures.shape[:2]
    with figure(path, 1.35 * columns + 0.5, 1.35 * rows + 0.2) as drawn:
        grid = drawn.subplots(rows, columns, squeeze=False)
        for (row, column), axes in np.ndenumerate(grid):
            picture = pictures[row, column]
            axes.imshow(picture if picture.shape[-1] == 3 else picture[..., 0], cmap="gray", vmin=0, vmax=255)
            bare(axes)
        for row, name in enumerate(classes):
            grid[row, 0].set_ylabel(name)
