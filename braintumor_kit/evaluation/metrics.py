"""The figures of `metrics.json`, from labels, groups and probabilities."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from braintumor_kit.evaluation.calibration import negative_log_likelihood
from braintumor_kit.evaluation.intervals import bootstrap, confusion_matrices, units_of
from braintumor_kit.evaluation.selective import area_under_risk_coverage

ECE_BINS = 15


def accuracy(confusion: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share on the diagonal, of confusion matrices (..., K, K)."""
    return np.trace(confusion, axis1=-2, axis2=-1) / confusion.sum(axis=(-2, -1))


def balanced_accuracy(confusion: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean recall over the classes that occur."""
    return _mean_where(recall(confusion), confusion.sum(axis=-1) > 0)


def macro_f1(confusion: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean F1 over the classes that occur."""
    return _mean_where(f1(confusion), confusion.sum(axis=-1) > 0)


def precision(confusion: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of each class (..., K); 0 where it is never predicted."""
    return _ratio(_diagonal(confusion), confusion.sum(axis=-2))


def recall(confusion: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of each class (..., K); 0 where it never occurs."""
    return _ratio(_diagonal(confusion), confusion.sum(axis=-1))


def f1(confusion: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of each class (..., K); 0 where it neither occurs nor is predicted."""
    return _ratio(2 * _diagonal(confusion), confusion.sum(axis=-1) + confusion.sum(axis=-2))


HEADLINES = {"accuracy": accuracy, "balanced_accuracy": balanced_accuracy, "macro_f1": macro_f1}
CALIBRATION = ("nll", "ece", "nll_calibrated", "ece_calibrated")


def evaluate(
    labels: NDArray[np.int64],
    probabilities: NDArray[np.float64],
    groups: Sequence[str | None],
    classes: Sequence[str],
    calibrated: NDArray[np.float64] | None = None,
) -> dict[str, Any] | None:
    """Every figure of one split.

    Args:
        labels: class numbers (N,).
        probabilities: (N, K), rows that sum to one.
        groups: the patient of each slice, None where not known.
        calibrated: the same after calibration, where there was one.

    Returns:
        The JSON value that `metrics.json` holds for a split; None for a split without samples.
    """
    if len(labels) == 0:
        return None
    units = units_of(groups, range(len(groups)))
    figures = _headlines(labels, probabilities.argmax(axis=1), units, len(classes))
    confusion = figures.pop("confusion")
    return {
        **figures,
        "interval_over": "patients" if any(group is not None for group in groups) else "slices",
        "auroc": auroc(labels, probabilities),
        "nll": negative_log_likelihood(labels, probabilities),
        "ece": expected_calibration_error(labels, probabilities),
        "nll_calibrated": None if calibrated is None else negative_log_likelihood(labels, calibrated),
        "ece_calibrated": None if calibrated is None else expected_calibration_error(labels, calibrated),
        "aurc": area_under_risk_coverage(labels, probabilities),
        "labels": list(classes),
        "confusion_matrix": confusion.astype(int).tolist(),
        "per_class": _per_class(confusion, classes),
        "by_group": _by_group(labels, probabilities, groups, len(classes)),
    }


def spread(by_fold: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Mean and standard deviation (of a sample) over folds, of each headline figure by slice and by patient, and of
    those of calibration; what one of the folds lacks is left out."""
    columns = {name: [fold[name] for fold in by_fold] for name in (*HEADLINES, *CALIBRATION)}
    if all(fold["by_group"] for fold in by_fold):
        columns |= {f"by_group_{name}": [fold["by_group"][name] for fold in by_fold] for name in HEADLINES}
    return {
        name: {"mean": float(np.mean(values)), "sd": float(np.std(values, ddof=1))}
        for name, values in columns.items()
        if None not in values
    }


def expected_calibration_error(labels: NDArray[np.int64], probabilities: NDArray[np.float64]) -> float:
    """Mean gap between confidence and accuracy over 15 bins of equal width (Guo et al. 2017, arXiv 1706.04599)."""
    count, confidence, correct = reliability(labels, probabilities)
    return float(np.abs(confidence - correct) @ count / count.sum())


def reliability(
    labels: NDArray[np.int64], probabilities: NDArray[np.float64], bins: int = ECE_BINS
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Slices, mean confidence and accuracy of each bin (0, 1/bins], .. of the top probability; 0 in empty bins."""
    top = probabilities.max(axis=1)
    right = (probabilities.argmax(axis=1) == labels).astype(float)
    place = np.clip(np.ceil(top * bins).astype(int) - 1, 0, bins - 1)
    count = np.bincount(place, minlength=bins).astype(float)
    confidence = _ratio(np.bincount(place, weights=top, minlength=bins).astype(float), count)
    return count, confidence, _ratio(np.bincount(place, weights=right, minlength=bins).astype(float), count)


def auroc(labels: NDArray[np.int64], probabilities: NDArray[np.float64]) -> float | None:
    """Area under the ROC curve, one class against the rest, mean over classes; None where a class does not occur."""
    classes = probabilities.shape[1]
    if len(np.unique(labels)) < classes:
        return None
    if classes == 2:
        return float(roc_auc_score(labels, probabilities[:, 1]))
    return float(np.mean([roc_auc_score(labels == number, probabilities[:, number]) for number in range(classes)]))


def _headlines(
    labels: NDArray[np.int64], predicted: NDArray[np.int64], units: Sequence[str], classes: int
) -> dict[str, Any]:
    matrices = confusion_matrices(labels, predicted, units, classes)
    confusion = matrices.sum(axis=0)
    figures: dict[str, Any] = {"n": len(labels), "confusion": confusion}
    intervals = bootstrap(matrices, dict(HEADLINES))
    for name, figure in HEADLINES.items():
        figures |= {name: float(figure(confusion)), f"{name}_ci": intervals[name]}
    return figures


def _by_group(
    labels: NDArray[np.int64], probabilities: NDArray[np.float64], groups: Sequence[str | None], classes: int
) -> dict[str, Any] | None:
    """Figures by patient: the mean of a patient's probabilities decides, the commonest label is the truth."""
    known = sorted({group for group in groups if group is not None})
    if not known:
        return None
    of_group = np.array([group if group is not None else "" for group in groups], dtype=object)
    members = [np.flatnonzero(of_group == group) for group in known]
    truth = np.array([np.bincount(labels[places], minlength=classes).argmax() for places in members])
    mean = np.array([probabilities[places].mean(axis=0) for places in members])
    figures = _headlines(truth, mean.argmax(axis=1), known, classes)
    figures["confusion_matrix"] = figures.pop("confusion").astype(int).tolist()
    return figures


def _per_class(confusion: NDArray[np.float64], classes: Sequence[str]) -> dict[str, dict[str, float | int]]:
    columns = zip(classes, precision(confusion), recall(confusion), f1(confusion), confusion.sum(axis=1), strict=True)
    return {
        name: {"precision": float(p), "recall": float(r), "f1": float(f), "support": int(n)}
        for name, p, r, f, n in columns
    }


def _diagonal(confusion: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.diagonal(confusion, axis1=-2, axis2=-1)


def _ratio(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.divide(part, whole, out=np.zeros_like(part, dtype=float), where=whole > 0)


def _mean_where(values: NDArray[np.float64], mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    return (values * mask).sum(axis=-1) / mask.sum(axis=-1)
