"""What an evaluation leaves: slices, what was said of them, and the files that tell of both."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from braintumor_kit.files import make_folder, write_csv, write_json
from braintumor_kit.locks import alone, inside
from braintumor_kit.report import figures


@dataclass(frozen=True)
class Judged:
    """Slices that models are judged on.

    Attributes:
        name: of the split or source.
        ids, groups: of each slice, (N,).
        classes: that are told apart.
        labels: numbers among `classes`, (N,).
    """

    name: str
    ids: Sequence[str]
    groups: Sequence[str | None]
    classes: Sequence[str]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class Answers:
    """What a model says of examined slices, in the classes that both have: probabilities as they come and calibrated,
    (N, K), which pictures are unlike its training, and which are better not answered, (N,); None where nobody can
    tell."""

    plain: NDArray[np.float64]
    calibrated: NDArray[np.float64] | None
    unlike: NDArray[np.bool_] | None
    abstain: NDArray[np.bool_] | None


def write_results(folder: Path, judged: Judged, given: Answers, results: dict[str, Any]) -> None:
    """Writes `metrics.json`, `predictions.csv`, the figures and, where they were asked for, `comparison.json` and
    `robustness.json`. One process at a time: none leaves files of two beside each other.

    Raises:
        InputError: where another process writes there for longer than half a minute.
        WorkError: where the folder cannot be written.
    """
    with alone(inside(make_folder(folder)), folder, wait=30.0):
        _write_results(folder, judged, given, results)


def _write_results(folder: Path, judged: Judged, given: Answers, results: dict[str, Any]) -> None:
    classes = judged.classes
    for name, value in results.items():
        write_json(folder / f"{name}.json", value)
    kinds = {"p": given.plain, **({} if given.calibrated is None else {"c": given.calibrated})}
    numbers = np.hstack(list(kinds.values()))
    write_csv(
        folder / "predictions.csv",
        ("id", "group", "label", "predicted", *(f"{kind}_{name}" for kind in kinds for name in classes), "unlike"),
        (
            (
                judged.ids[place],
                judged.groups[place],
                classes[judged.labels[place]],
                classes[int(given.plain[place].argmax())],
                *(f"{value:.9g}" for value in numbers[place]),
                None if given.unlike is None else bool(given.unlike[place]),
            )
            for place in range(len(judged.ids))
        ),
    )
    figures.reliability_diagram(folder / "reliability.png", judged.labels, given.plain, given.calibrated, judged.name)
    figures.risk_coverage_curve(folder / "risk_coverage.png", judged.labels, given.plain, judged.name)
    if "robustness" in results:
        figures.robustness_curves(folder / "robustness.png", results["robustness"])
