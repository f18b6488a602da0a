"""A cross-validation: a run a fold, and the figures of all slices, each judged by the model that did not see it."""

import shutil
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from braintumor_kit.contracts import InputError
from braintumor_kit.engines.engine import Engine
from braintumor_kit.engines.local import LocalEngine
from braintumor_kit.evaluation.detection import detection
from braintumor_kit.evaluation.intervals import units_of
from braintumor_kit.evaluation.metrics import evaluate, spread
from braintumor_kit.files import make_folder, read_json, write_csv, write_json
from braintumor_kit.progress import Reporter, log_to
from braintumor_kit.recipe.load import Recipe
from braintumor_kit.report import figures
from braintumor_kit.runs import Run, fold_runs, save_recipe, start_record, table_of, update_record, versions
from braintumor_kit.tracking.tracker import tracked
from braintumor_kit.workflows.ending import ending_recorded
from braintumor_kit.workflows.fold_work import TrainFold
from braintumor_kit.workflows.material import Material, all_leaks
from braintumor_kit.workflows.part import is_begun
from braintumor_kit.workflows.report import write_report
from braintumor_kit.workflows.results import pooled_results
from braintumor_kit.workflows.unchanged import FOLLOWED, described, split_digests


def begin(
    run: Run, recipe: Recipe, text: str, materials: Sequence[Material], argv: list[str], started: datetime
) -> None:
    """Writes what is known of a cross-validation before its first fold is trained."""
    save_recipe(run, text, recipe.resolved())
    _write_split(run, materials)
    start_record(run, argv, recipe.tables.seed, started, _description(recipe, materials))


def _write_split(run: Run, materials: Sequence[Material]) -> None:
    samples, splits = materials[0].dataset.samples, [material.split for material in materials]
    write_csv(
        run.folder / "split.csv",
        ("id", "label", "group", "split", "fold"),
        (
            (sample.id, sample.label, sample.group, "test", _tested_in(splits, place))
            for place, sample in enumerate(samples)
        ),
    )


def _description(recipe: Recipe, materials: Sequence[Material]) -> dict[str, Any]:
    return {
        **described(recipe),
        "folds": len(materials),
        "classes": list(materials[0].dataset.classes),
        "samples": len(materials[0].dataset.samples),
        "data_digest": materials[0].dataset.digest,
        "split_digests": split_digests(materials),
        "leaks": leaks.as_json() if (leaks := all_leaks(materials)) else None,
        "reported_on": "test",
    }


def _tested_in(splits: Sequence[Sequence[str]], place: int) -> int:
    return next(number for number, split in enumerate(splits, start=1) if split[place] == "test")


def cross_validate(
    run: Run,
    recipe: Recipe,
    text: str,
    materials: Sequence[Material],
    argv: list[str],
    reporter: Reporter,
    engine: Engine | None = None,
) -> None:
    """Trains the folds that are not finished, and pools what the models say of the slices that they did not see.

    Args:
        engine: trains several at a time, where it has room; None trains one after the other in this process.

    Raises:
        WorkError: where the work fails on the way; finished folds stay.
    """
    engine = engine or LocalEngine(None, reporter)
    with log_to(run.folder), tracked(run, recipe.tables.mlflow, reporter.say, True) as tracker, ending_recorded(run):
        update_record(run, status="running", ended=None, reason=None)
        _follow_changes(run, recipe, materials)
        tracker.begin()
        digests = tuple(split_digests(materials))
        work = TrainFold(run.folder, recipe, text, tuple(argv), digests, (materials, reporter))
        for number, _ in engine.each(work, _unfinished(run, digests, reporter)):
            reporter.say(f"fold-{number} is trained", "fold", fold=number)
        _pool(run, materials, reporter)
        update_record(run, results=pooled_results(run))
        if recipe.tables.report:
            write_report(Run(run.folder))


def _unfinished(run: Run, digests: Sequence[str], reporter: Reporter) -> list[int]:
    """The numbers of the folds that are still to be trained."""
    left = []
    for number, (fold, digest) in enumerate(zip(fold_runs(run), digests, strict=True), start=1):
        if is_begun(fold) and fold.record.get("split_digest") != digest:
            # Pooled with the others, it would be judged on slices that it was trained on.
            reporter.say(f"{fold.folder.name} was trained on another split and is trained anew")
            shutil.rmtree(fold.folder, ignore_errors=True)
        elif is_begun(fold) and fold.record.get("status") == "finished":
            reporter.say(f"{fold.folder.name} is finished and kept")
            continue
        left.append(number)
    return left


def _follow_changes(run: Run, recipe: Recipe, materials: Sequence[Material]) -> None:
    """As of one training: see `workflows/train.py`."""
    now = {**_description(recipe, materials), **versions()}
    keys = ("split_digests" if key == "split_digest" else key for key in FOLLOWED)
    if any(run.record.get(key) != now[key] for key in keys) or not (run.folder / "split.csv").is_file():
        _write_split(run, materials)
        update_record(run, **now)


def _pool(run: Run, materials: Sequence[Material], reporter: Reporter) -> None:
    """Writes `predictions.csv`, `metrics.json` and the figures of the whole."""
    classes = materials[0].dataset.classes
    rows = _pooled_rows(run, materials)
    header = list(rows[0])
    write_csv(run.folder / "predictions.csv", header, ([row[name] for name in header] for row in rows))
    labels = np.array([classes.index(row["label"]) for row in rows])
    probabilities, calibrated = (
        np.array([[float(row[f"{kind}_{name}"]) for name in classes] for row in rows]) for kind in "pc"
    )
    groups = [row["group"] or None for row in rows]
    units = units_of(groups, [row["id"] for row in rows])
    pooled = evaluate(labels, probabilities, groups, classes, calibrated)
    by_fold = [read_json(fold.folder / "metrics.json")["test"] for fold in fold_runs(run)]
    metrics = {
        "train": None,
        "validation": None,
        "test": pooled,
        "folds": by_fold,
        "over_folds": spread(by_fold),
        "detection": detection(labels, probabilities, units, classes),
        "selected_on": "validation",
        "reported_on": "test",
    }
    if leaks := all_leaks(materials):
        metrics["warning"] = f"the folds leak: {leaks.sentence}"
    write_json(run.folder / "metrics.json", metrics)
    _draw(make_folder(run.folder / "figures", parents=False), metrics, labels, probabilities, calibrated)
    reporter.say(f"pooled {len(rows)} slices of {len(by_fold)} folds")


def _pooled_rows(run: Run, materials: Sequence[Material]) -> list[dict[str, str]]:
    """The test rows of every fold's predictions, in the order of the data set, with the number of the fold."""
    found: dict[str, dict[str, str]] = {}
    for number, fold in enumerate(fold_runs(run), start=1):
        for row in table_of(fold, "predictions.csv"):
            if row["split"] == "test":
                found[row["id"]] = {**row, "fold": str(number)}
    samples = materials[0].dataset.samples
    lost = next((sample.id for sample in samples if sample.id not in found), None)
    if lost is not None:
        raise InputError(
            f"slice '{lost}' is in no fold's predictions.csv: one is damaged. Remove that fold's folder to have it "
            "trained anew."
        )
    return [found[sample.id] for sample in samples]


def _draw(
    folder: Path,
    metrics: Mapping[str, Any],
    labels: NDArray[np.int64],
    probabilities: NDArray[np.float64],
    calibrated: NDArray[np.float64],
) -> None:
    figures.confusion_matrices(folder / "confusion_matrix.png", metrics)
    figures.reliability_diagram(folder / "reliability.png", labels, probabilities, calibrated, "test")
    figures.risk_coverage_curve(folder / "risk_coverage.png", labels, probabilities, "test")
