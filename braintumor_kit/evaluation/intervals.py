"""95 % intervals by bootstrap over patients (over slices where patients are not known).

Slices of one patient are alike, so resampling slices would claim more certainty than there is. Every headline figure
is a function of the confusion matrix, and the confusion matrix of a resample is the sum of its patients' matrices:
one matrix product gives them all (Efron and Tibshirani 1993, chapter 6, percentile interval).
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000
LEVEL = 0.95
_AT_ONCE = 4_000_000
"""Weights held at once, 64 MB with their copy in float64, however many samples there are."""

Figure = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""Confusion matrices (..., K, K), true class in rows, to one figure each (...)."""


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
        low = float(((1 - LEVEL) / 2) ** (1 / units))
        return {name: [low, 1.0] for name in figures}
    tails = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    return {name: [float(value) for value in np.quantile(figure(resampled), tails)] for name, figure in figures.items()}


def _resampled(matrices: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.float64]:
    units = len(matrices)
    step = max(1, _AT_ONCE // units)
    parts = [
        random.multinomial(units, np.full(units, 1 / units), size=min(step, RESAMPLES - start)) @ matrices
        for start in range(0, RESAMPLES, step)
    ]
    return np.concatenate(parts)
