"""Which collections the pictures seem to come from: by file format and size, framing, brightness, and known slices.

A property divides the pictures where it has two clear humps: two normal distributions fitted to it lie at least two
deviations apart (Ashman's D, Ashman et al. 1994). What is proposed are pictures that were made or handled alike, to be
looked at and, where they are collections indeed, held out one at a time.
"""

from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.mixture import GaussianMixture

from braintumor_kit.audit.balance import SMALLEST, common, cramers_v, form
from braintumor_kit.audit.subject import Subject

TWO_HUMPS = 2.0
MATCHED, UNMATCHED = "in the index", "not in the index"


def propose(subject: Subject) -> list[str]:
    """The proposed collection of each sample, in words."""
    properties = [_known(subject), common(form(subject)), *_measured(subject)]
    told_apart = [values for values in properties if len(set(values)) > 1]
    if not told_apart:
        return ["all"] * len(subject.samples)
    return common([", ".join(filter(None, parts)) for parts in zip(*told_apart, strict=True)])


def described(subject: Subject, collections: list[str]) -> dict[str, Any]:
    """The proposed collections, the commonest first, with how much they tell of the class (Cramer's V)."""
    numbers = Counter(zip(collections, (sample.label for sample in subject.samples), strict=True))
    rows = [
        {"name": name, "n": count, "by_class": {label: numbers[name, label] for label in subject.classes}}
        for name, count in Counter(collections).most_common()
    ]
    table = np.array([[numbers[str(row["name"]), label] for label in subject.classes] for row in rows])
    return {"proposed": rows, "cramers_v_with_class": cramers_v(table)}


def _known(subject: Subject) -> list[str]:
    if subject.recovered is None:
        return [""] * len(subject.samples)
    return [MATCHED if place >= 0 else UNMATCHED for place in subject.recovered.matches.place]


def _measured(subject: Subject) -> list[list[str]]:
    """Framing and brightness, each divided where it has two humps."""
    records = subject.records
    margin = 100 * records["margins"].mean(axis=1)
    brightness = records["thumbnail"].reshape(len(records), -1).mean(axis=1)
    return [
        _divided(margin, "margins below {:.0f} %", "margins from {:.0f} %"),
        _divided(brightness, "mean grey below {:.0f}", "mean grey from {:.0f}"),
    ]


def _divided(values: NDArray[np.floating[Any]], low: str, high: str) -> list[str]:
    """Words for each value, by the side of the valley that it lies on; all alike where there is none."""
    column = values.reshape(-1, 1).astype(np.float64)
    if len(column) < 20 or column.std() == 0:
        return [""] * len(column)
    fitted = GaussianMixture(2, random_state=0).fit(column)
    means, variances = fitted.means_.ravel(), fitted.covariances_.ravel()
    apart = abs(means[0] - means[1]) * (2 / variances.sum()) ** 0.5
    if apart < TWO_HUMPS or fitted.weights_.min() < SMALLEST:
        return [""] * len(column)
    between = np.linspace(means.min(), means.max(), 200).reshape(-1, 1)
    valley = float(between[fitted.score_samples(between).argmin(), 0])
    return [low.format(valley) if value < valley else high.format(valley) for value in column[:, 0]]
