"""A run as one page: what was trained on what, how good it is and what that is worth, and where the network looks."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from braintumor_kit.evaluation.metrics import HEADLINES
from braintumor_kit.report import figures
from braintumor_kit.report.caveats import caveats, reported_part
from braintumor_kit.report.page import drawing, embedded, rendered

Json = Mapping[str, Any]
Row = Mapping[str, str]

MISTAKES = "mistakes"
"""The folder of a run with the maps of its worst mistakes, made like `explanations/`."""

SHOWN = 12
"""Mistakes that are shown, those in which the network was surest."""

PARTS = {
    "train": "training", "validation": "validation", "test": "test", "held_out": "held out", "": "in no split",
}  # fmt: skip

WHERE_IT_LOOKS = {
    "pointing_game": "pointing game", "relevance_mass": "relevance in the mask", "relevance_rank": "top ranks in it",
    "iou": "IoU", "insertion_auc": "insertion", "deletion_auc": "deletion", "road": "ROAD",
    "outside_head": "outside of the head",
}  # fmt: skip
"""Figures of `explanation_metrics.json` that are shown, with their headings."""


@dataclass(frozen=True)
class Mistake:
    """A slice that the model took for another class.

    Attributes:
        id, group, label, predicted: of the slice; its patient where known.
        probability: of the class that it was taken for.
        overlay: the picture with its map; None where none was made.
        method: of the map.
    """

    id: str
    group: str
    label: str
    predicted: str
    probability: float
    overlay: Path | None = None
    method: str = ""


@dataclass(frozen=True)
class Told:
    """What a run left, as far as a page shows it.

    Attributes:
        name: of the run's folder.
        record, metrics: the content of `record.json` and `metrics.json`.
        split, predictions: rows of `split.csv` and `predictions.csv`.
        histories: rows of `history.csv`; of a cross-validation by the fold's name, of one training under "".
        mistakes: the worst.
        explained: the content of `explanation_metrics.json`.
        evaluations: the content of `metrics.json` of other judgements, by folder.
        summary, samples: the sheets of explained slices and of training slices.
        recipe: as given.
        linked: whether pages of the folds stand beside this one.
    """

    name: str
    record: Json
    metrics: Json
    split: Sequence[Row]
    predictions: Sequence[Row]
    histories: Mapping[str, Sequence[Mapping[str, float]]]
    mistakes: Sequence[Mistake]
    explained: Json | None
    evaluations: Mapping[str, Json]
    summary: Path | None
    samples: Path | None
    recipe: str
    linked: bool = False

    @property
    def part(self) -> str:
        """The split that is reported."""
        return reported_part(self.metrics)

    @cached_property
    def reported(self) -> list[Row]:
        """Predictions of that split."""
        return [row for row in self.predictions if row["split"] == self.part]

    @property
    def caveats(self) -> list[str]:
        """What its figures have to be read with."""
        return caveats(self.record, self.metrics, sum(not row.get("group") for row in self.reported))


def run_page(told: Told) -> str:
    """The page, as HTML."""
    judged = told.metrics[told.part]
    return rendered(
        "run.html",
        told=told,
        part=told.part,
        judged=judged,
        headlines=list(HEADLINES),
        caveats=told.caveats,
        counts=class_counts(told.split, told.record["classes"]),
        parts=PARTS,
        matrices=_matrices(told.metrics, told.part),
        curves=_curves(told),
        certainty=_certainty(told),
        mistakes=[(mistake, mistake.overlay and embedded(mistake.overlay)) for mistake in told.mistakes],
        wrong=sum(row["predicted"] != row["label"] for row in told.reported),
        looked_at=_where_it_looks(told.explained),
        looks=WHERE_IT_LOOKS,
        summary=told.summary and embedded(told.summary),
        samples=told.samples and embedded(told.samples),
        fold_links=[name for name in told.histories if name],
        seconds=sum(row["seconds"] for history in told.histories.values() for row in history),
        source={
            key: value
            for key, value in told.record["recipe"]["source"].items()
            if value is not None and value is not False
        },
    )


def class_counts(split: Sequence[Row], classes: Sequence[str]) -> dict[str, dict[str, tuple[int, int]]]:
    """Slices and known patients of each class in each split that has any; the whole under "all"."""
    slices: Counter[tuple[str, str]] = Counter()
    patients: dict[tuple[str, str], set[str]] = {}
    for row in split:
        for part in (row["split"], "all"):
            for name in (row["label"], "all"):
                slices[part, name] += 1
                if row.get("group"):
                    patients.setdefault((part, name), set()).add(row["group"])
    found = [part for part in (*PARTS, "all") if slices[part, "all"]]
    return {
        part: {name: (slices[part, name], len(patients.get((part, name), ()))) for name in (*classes, "all")}
        for part in found
    }


def _matrices(metrics: Json, part: str) -> list[dict[str, Any]]:
    """Confusion matrices to show: counts, shares of each row, and what they are of."""
    panels = [
        (PARTS[name], "slices", metrics[name]) for name in ("validation", "test", "held_out") if metrics.get(name)
    ]
    if by_patient := metrics[part]["by_group"]:
        panels.append((f"{PARTS[part]}, by patient", "patients", by_patient))
    found = []
    for title, unit, judged in panels:
        counts = np.array(judged["confusion_matrix"])
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        rows = [list(zip(*pair, strict=True)) for pair in zip(counts.tolist(), shares.tolist(), strict=True)]
        found.append({"title": title, "unit": unit, "n": judged["n"], "accuracy": judged["accuracy"], "rows": rows})
    return found


def _curves(told: Told) -> list[Markup]:
    histories = {name: rows for name, rows in told.histories.items() if rows}
    if not histories:
        return []
    if "" in histories:
        best = told.record.get("best_epoch", 0)
        return [
            drawing(
                partial(figures.learning_curve, name=name, history=histories[""], best_epoch=best),
                f"curve-{name}",
                f"{title} over {len(histories[''])} epochs; epoch {best} was kept. The table below has the numbers.",
            )
            for name, title in figures.CURVES.items()
        ]
    return validation_curves(histories, "fold")


def validation_curves(histories: Mapping[str, Sequence[Mapping[str, float]]], noun: str) -> list[Markup]:
    """Loss and accuracy on validation over epochs, a line each.

    Args:
        histories: rows of `history.csv` by name.
        noun: what a line is of.
    """
    return [
        drawing(
            partial(figures.curves_together, column=f"val_{name}", histories=histories),
            f"curve-val_{name}",
            f"{figures.CURVES[name]} on validation over epochs, a line a {noun}",
        )
        for name in ("loss", "accuracy")
    ]


def _certainty(told: Told) -> list[Markup]:
    """Reliability, and risk over coverage."""
    classes, rows = told.record["classes"], told.reported
    labels = np.array([classes.index(row["label"]) for row in rows])
    plain, calibrated = (_probabilities(rows, kind, classes) for kind in "pc")
    judged = told.metrics[told.part]
    error = f"calibration error {judged['ece']:.3f}"
    if judged.get("ece_calibrated") is not None:
        error += f", {judged['ece_calibrated']:.3f} after calibration"
    if plain is None:
        raise LookupError("predictions.csv lacks probabilities")
    return [
        drawing(
            partial(figures.reliability_diagram, labels=labels, probabilities=plain, calibrated=calibrated,
                    part=told.part),
            "reliability",
            f"Accuracy over confidence: {error}",
        ),
        drawing(
            partial(figures.risk_coverage_curve, labels=labels, probabilities=plain, part=told.part),
            "risk",
            f"Share of wrong answers over the share of slices answered; area {judged['aurc']:.3f}",
        ),
    ]  # fmt: skip


def _probabilities(rows: Sequence[Row], kind: str, classes: Sequence[str]) -> NDArray[np.float64] | None:
    columns = [f"{kind}_{name}" for name in classes]
    if not all(rows[0].get(name) for name in columns):
        return None
    return np.array([[float(row[name]) for name in columns] for row in rows])


def _where_it_looks(explained: Json | None) -> list[tuple[str, list[tuple[float | None, Any]], str]]:
    """A row a method: its name, figures with their intervals, and whether it passed randomisation."""
    if explained is None:
        return []
    words = {True: "passed", False: "failed", None: ""}
    rows = {**explained["methods"], **explained["baselines"]}
    return [
        (name, [(row.get(key), row.get(f"{key}_ci")) for key in WHERE_IT_LOOKS], words[row.get("randomisation_passed")])
        for name, row in rows.items()
    ]


def surest_first(probabilities: Sequence[float], ids: Sequence[str]) -> list[int]:
    """Which of some mistakes are shown, in order: of what the network said with which probability, and their ids."""
    return sorted(range(len(ids)), key=lambda number: (-probabilities[number], ids[number]))[:SHOWN]
