"""95 % intervals by bootstrap over patients (over slices where patients are not known).

Slices of one patient are alike, so resampling slices would claim more certainty than there is. Every headline figure
is a function of the confusion matrix, and the confusion matrix of a resample is the sum of its patients' matrices:
one matrix product gives them all (Efron and Tibshirani 1993, chapter 6, percentile interval). Means over slices are
likewise a function of the patients' sums and numbers of slices.
"""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000
LEVEL = 0.95
TAILS = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)
_AT_ONCE = 4_000_000
"""Weights held at once, 64 MB with their copy in float64, however many samples there are."""

Figure = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""Confusion matrices (..., K, K), true class in rows, to one figure each (...)."""


def units_of(groups: Sequence[str | None], names: Iterable[object]) -> list[str]:
    """What is resampled: the patient of each slice, or the slice itself, by its name, where no patient is known."""
    return [
        f"group {group}" if group is not None else f"slice {name}" for group, name in zip(groups, names, strict=True)
    ]


def confusion_matrices(
    labels: NDArray[np.int64], predicted: NDArray[np.int64], units: Sequence[str], classes: int
) -> NDArray[np.float64]:
    """One confusion matrix a unit (patient or slice), (units, K, K), true class in rows."""
    _, number = np.unique(np.asarray(units, dtype=object).astype(str), return_inverse=True)
    matrices = np.zeros((number.max() + 1, classes, classes))
    np.add.at(matrices, (number, labels, predicted), 1.0)
    return matrices


def bootstrap(matrices: NDArray[np.float64], figures: dict[str, Figure], seed: int = 0) -> dict[str, list[float]]:
    """`[low, high]` of each figure over resampled units.

    Where every unit is right in all its slices no resample can be wrong, and the interval would have no width. The
    lower bound is then Clopper and Pearson's for n of n units, (alpha / 2) ** (1 / n).
    """
    units, classes = len(matrices), matrices.shape[1]
    resampled = _resampled(matrices.reshape(units, -1), np.random.default_rng(seed)).reshape(-1, classes, classes)
    whole = matrices.sum(axis=0)
    if whole.trace() == whole.sum():
        return {name: [_low_of_all(units), 1.0] for name in figures}
    return {name: [float(value) for value in np.quantile(figure(resampled), TAILS)] for name, figure in figures.items()}


def paired_bootstrap(
    first: NDArray[np.float64], second: NDArray[np.float64], figures: dict[str, Figure], seed: int = 0
) -> dict[str, list[float]]:
    """`[low, high]` of the difference, first less second, of each figure, both over the same resampled units.

    Args:
        first, second: of either model, one confusion matrix a unit, (units, K, K), in the same order.
    """
    units, classes = len(first), first.shape[1]
    both = np.stack([first, second], axis=1).reshape(units, -1)
    resampled = _resampled(both, np.random.default_rng(seed)).reshape(-1, 2, classes, classes)
    differences = {name: figure(resampled[:, 0]) - figure(resampled[:, 1]) for name, figure in figures.items()}
    return {name: [float(bound) for bound in np.quantile(values, TAILS)] for name, values in differences.items()}


def mean_intervals(values: NDArray[np.float64], units: Sequence[str], seed: int = 0) -> list[list[float] | None]:
    """`[low, high]` of the mean of each column of values (N, K) over resampled units.

    Where all values of a column are 0, or all are 1, the bound inside is Clopper and Pearson's for n of n units.
    One unit alone says nothing of how units differ: there is no interval then, None.

    Args:
        values: of N slices.
        units: the patient (or slice) that each value is of, (N,).

    Raises:
        ValueError: where there are no values, or not as many units as values.
    """
    if len(values) == 0 or len(values) != len(units):
        raise ValueError(f"{len(values)} values of {len(units)} units: expected as many, and at least one.")
    _, number = np.unique(np.asarray(units, dtype=object).astype(str), return_inverse=True)
    sums = np.zeros((number.max() + 1, values.shape[1] + 1))
    np.add.at(sums, number, np.column_stack([values, np.ones(len(values))]))
    if len(sums) == 1:
        return [None] * values.shape[1]
    resampled = _resampled(sums, np.random.default_rng(seed))
    means = resampled[:, :-1] / resampled[:, -1:]
    return [_interval(*columns, len(sums)) for columns in zip(values.T, means.T, strict=True)]


def _interval(values: NDArray[np.float64], resampled: NDArray[np.float64], units: int) -> list[float]:
    low = _low_of_all(units)
    if (values == 1).all():
        return [low, 1.0]
    if (values == 0).all():
        return [0.0, 1.0 - low]
    return [float(bound) for bound in np.quantile(resampled, TAILS)]


def _low_of_all(units: int) -> float:
    """Clopper and Pearson's lower bound for n of n."""
    return float(TAILS[0] ** (1 / units))


def _resampled(matrices: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.float64]:
    units = len(matrices)
    step = max(1, _AT_ONCE // units)
    parts = [
        random.multinomial(units, np.full(units, 1 / units), size=min(step, RESAMPLES - start)) @ matrices
        for start in range(0, RESAMPLES, step)
    ]
    return np.concatenate(parts)
