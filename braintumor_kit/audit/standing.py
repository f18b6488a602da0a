"""How much of a run's accuracy stands on leaked samples."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from braintumor_kit.audit.leaks import leaked
from braintumor_kit.audit.subject import Subject
from braintumor_kit.evaluation.intervals import mean_intervals


def standing(subject: Subject, predicted: Mapping[str, str]) -> dict[str, Any] | None:
    """Accuracy of a run on all of its test samples (else validation), on those with a partner in training or
    validation, and on the clean rest.

    The estimate is the difference between all and clean, of class recalls averaged over classes: leaked samples may
    be of easier classes, and that is no leak.

    Args:
        predicted: the class that the run predicts, by the sample's id.
    """
    part = subject.reported
    if part is None:
        return None
    known = np.array([sample.id in predicted for sample in subject.samples])
    here, tainted = subject.within(part) & known, leaked(subject, part)
    right = np.array([predicted.get(sample.id) == sample.label for sample in subject.samples], dtype=float)
    rows = {name: _row(subject, right, mask) for name, mask in (
        ("all", here), ("leaked", here & tainted), ("clean", here & ~tainted)
    )}  # fmt: skip
    if rows["all"] is None:
        return None
    return {"split": part, **rows, "balanced_accuracy_on_leaks": _difference(subject, right, here, here & ~tainted)}


def _row(subject: Subject, right: NDArray[np.float64], mask: NDArray[np.bool_]) -> dict[str, Any] | None:
    places = np.flatnonzero(mask)
    if not len(places):
        return None
    units = [f"component {number}" for number in subject.components[places]]
    return {
        "n": len(places),
        "by_class": dict(sorted(Counter(subject.samples[place].label for place in places.tolist()).items())),
        "accuracy": float(right[places].mean()),
        "accuracy_ci": mean_intervals(right[places, None], units)[0],
    }


def _difference(
    subject: Subject, right: NDArray[np.float64], whole: NDArray[np.bool_], clean: NDArray[np.bool_]
) -> float | None:
    """Mean recall over classes on all, less that on the clean ones; None where a class has no clean sample."""
    gaps = []
    for number in np.unique(subject.labels[whole]):
        of_class = subject.labels == number
        if not (clean & of_class).any():
            return None
        gaps.append(right[whole & of_class].mean() - right[clean & of_class].mean())
    return float(np.mean(gaps))
