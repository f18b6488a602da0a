"""What runs recorded of the slices that they report on: two held against each other, several taken together. No data
are read."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix

from braintumor_kit.contracts import InputError
from braintumor_kit.evaluation.detection import detection
from braintumor_kit.evaluation.intervals import units_of
from braintumor_kit.evaluation.metrics import HEADLINES, evaluate, spread
from braintumor_kit.evaluation.paired import compare
from braintumor_kit.runs import Run, refuse_sweep, table_of
from braintumor_kit.workflows.evaluation_folder import Answers, Judged

COLUMNS = ("id", "split", "group", "label", "predicted")
"""Of `predictions.csv`, beside the probabilities."""

Rows = Mapping[str, Mapping[str, str]]
"""Of a run's `predictions.csv`, by the slice's id."""


def against(first: Run, second: Run) -> dict[str, Any]:
    """A paired comparison of what two runs recorded of the test slices (else validation) that both have; of a
    cross-validation every slice counts, as judged by the model that did not see it.

    Raises:
        InputError: where they have no such slices in common, or call them differently.
    """
    rows = [_rows(run) for run in (first, second)]
    part = "test" if all(_of_part(table, "test") for table in rows) else "validation"
    reported = [_of_part(table, part) for table in rows]
    ids = sorted(reported[0].keys() & reported[1].keys())
    if not ids:
        raise InputError(f"'{first.folder}' and '{second.folder}' have no {part} slice in common.")
    _check_labels((first, second), rows, ids)
    classes = sorted({table[id][key] for table in rows for id in ids for key in ("label", "predicted")})
    labels, one, two = (
        np.array([classes.index(table[id][key]) for id in ids], dtype=np.int64)
        for table, key in ((rows[0], "label"), (rows[0], "predicted"), (rows[1], "predicted"))
    )
    groups = [rows[0][id]["group"] or None for id in ids]
    over = "patients" if any(groups) else "slices"
    return {"split": part, "interval_over": over, **compare(labels, one, two, units_of(groups, ids), len(classes))}


def together(runs: Sequence[Run]) -> tuple[Judged, Answers, dict[str, Any]]:
    """An ensemble: the mean of the probabilities that runs recorded of one and the same test slices (Lakshminarayanan,
    Pritzel and Blundell 2017, arXiv 1612.01474). Of cross-validations the folds are the same too, so that the networks
    that judge a slice were trained inside of one outer training part.

    Returns:
        The test slices, what is said of them, and results by name: `metrics`, with what each run reaches alone under
        `members` and, of cross-validations, `folds` and `over_folds`; `comparison`, paired, of all with the first.

    Raises:
        InputError: where a run is named twice, has not finished, or has other test slices, folds, labels or classes
            than the first.
    """
    for place, run in enumerate(runs):
        refuse_sweep(run)
        if any(run.folder.resolve() == other.folder.resolve() for other in runs[:place]):
            raise InputError(f"run '{run.folder}' is named twice: it would count for two.")
    classes = _classes(runs)
    rows = [_of_part(_rows(run, classes), "test") for run in runs]
    first, ids = rows[0], list(rows[0])
    if not ids:
        raise InputError(f"'{runs[0].folder}' has no test slices, and only of these do runs speak together.")
    _check_slices(runs, rows)
    _check_labels(runs, rows, ids)
    labels = np.array([classes.index(first[id]["label"]) for id in ids], dtype=np.int64)
    groups = [first[id]["group"] or None for id in ids]
    units = units_of(groups, ids)
    each = [_numbers(run, table, ids, "p", classes) for run, table in zip(runs, rows, strict=True)]
    plain = np.mean(each, axis=0)
    calibrated = None
    if all(f"c_{name}" in table[ids[0]] for table in rows for name in classes):
        kinds = [_numbers(run, table, ids, "c", classes) for run, table in zip(runs, rows, strict=True)]
        calibrated = np.mean(kinds, axis=0)
    judged = Judged(f"test, {len(runs)} runs together", ids, groups, classes, labels)
    folds = [first[id].get("fold", "") for id in ids]
    metrics = {
        "source": judged.name,
        **(evaluate(labels, plain, groups, classes, calibrated) or {}),
        "out_of_distribution": None,
        "detection": detection(labels, plain, units, classes),
        "left_out": 0,
        "members": [_alone(run, labels, numbers) for run, numbers in zip(runs, each, strict=True)],
        **_by_fold(labels, plain, groups, classes, calibrated, folds),
    }
    if warnings := [run.warning for run in runs if run.warning]:
        metrics["warning"] = "; ".join(warnings)
    comparison = compare(labels, plain.argmax(axis=1), each[0].argmax(axis=1), units, len(classes))
    over = {"split": "test", "interval_over": metrics["interval_over"]}
    return judged, Answers(plain, calibrated, None, None), {"metrics": metrics, "comparison": {**over, **comparison}}


def _classes(runs: Sequence[Run]) -> tuple[str, ...]:
    known = [tuple(run.record.get("classes") or ()) for run in runs]
    for run, classes in zip(runs, known, strict=True):
        if classes != known[0] or not classes:
            raise InputError(
                f"'{run.folder}' tells {', '.join(classes) or 'nothing'} apart, '{runs[0].folder}' "
                f"{', '.join(known[0]) or 'nothing'}."
            )
    return known[0]


def _rows(run: Run, classes: Sequence[str] = ()) -> Rows:
    columns = (*COLUMNS, *(f"p_{name}" for name in classes))
    return {row["id"]: row for row in table_of(run, "predictions.csv", columns)}


def _of_part(rows: Rows, part: str) -> Rows:
    return {id: row for id, row in rows.items() if row["split"] == part}


def _check_labels(runs: Sequence[Run], rows: Sequence[Rows], ids: Sequence[str]) -> None:
    for run, table in zip(runs, rows, strict=True):
        other = next((id for id in ids if rows[0][id]["label"] != table[id]["label"]), None)
        if other is not None:
            raise InputError(f"'{runs[0].folder}' and '{run.folder}' give slice '{other}' different labels.")


def _check_slices(runs: Sequence[Run], rows: Sequence[Rows]) -> None:
    """Holds every run to the first's test slices, each in the same fold."""
    cure = (
        "their networks were not kept from the same patients. Train both with one [split] seed, and vary seed and "
        "[split] validation_seed."
    )
    for run, table in zip(runs, rows, strict=True):
        if table.keys() != rows[0].keys():
            lone = min(table.keys() ^ rows[0].keys())
            one = run if lone in table else runs[0]
            other = runs[0] if lone in table else run
            raise InputError(f"'{one.folder}' tests slice '{lone}', '{other.folder}' does not: {cure}")
        moved = next((id for id, row in table.items() if row.get("fold") != rows[0][id].get("fold")), None)
        if moved is not None:
            raise InputError(f"'{runs[0].folder}' and '{run.folder}' test slice '{moved}' in different folds: {cure}")


def _numbers(run: Run, rows: Rows, ids: Sequence[str], kind: str, classes: Sequence[str]) -> NDArray[np.float64]:
    """Probabilities, (N, K)."""
    try:
        numbers = np.array([[float(rows[id][f"{kind}_{name}"]) for name in classes] for id in ids])
    except (TypeError, ValueError) as error:
        raise InputError(f"{run.folder / 'predictions.csv'} is damaged: {error}.") from error
    if not np.isfinite(numbers).all():
        raise InputError(f"{run.folder / 'predictions.csv'} is damaged: not every probability is a number.")
    return numbers


def _alone(run: Run, labels: NDArray[np.int64], numbers: NDArray[np.float64]) -> dict[str, Any]:
    """The headline figures of one run."""
    confusion = confusion_matrix(labels, numbers.argmax(axis=1), labels=range(numbers.shape[1])).astype(float)
    return {"run": run.folder.name, **{name: float(figure(confusion)) for name, figure in HEADLINES.items()}}


def _by_fold(
    labels: NDArray[np.int64],
    plain: NDArray[np.float64],
    groups: Sequence[str | None],
    classes: Sequence[str],
    calibrated: NDArray[np.float64] | None,
    folds: Sequence[str],
) -> dict[str, Any]:
    """As a cross-validation has it; nothing of single trainings."""
    if not all(folds):
        return {}
    by_fold = []
    for fold in sorted(set(folds), key=int):
        chosen = [place for place, name in enumerate(folds) if name == fold]
        kept = None if calibrated is None else calibrated[chosen]
        found = evaluate(labels[chosen], plain[chosen], [groups[place] for place in chosen], classes, kept)
        by_fold.append(found or {})
    return {"folds": by_fold, "over_folds": spread(by_fold)}
