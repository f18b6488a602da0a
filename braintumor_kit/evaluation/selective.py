"""Answering only where the model is sure: risk against coverage (Geifman and El-Yaniv 2017, arXiv 1705.08500)."""

import numpy as np
from numpy.typing import NDArray


def risk_coverage(
    labels: NDArray[np.int64], probabilities: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Share of wrong answers among the surest n slices, for n = 1 .. N.

    Slices that are equally sure are answered together, so that their order says nothing.

    Returns:
        Coverage and risk, (N,) each, from the surest slices to all.
    """
    confidence = probabilities.max(axis=1)
    wrong = (probabilities.argmax(axis=1) != labels).astype(float)
    order = np.argsort(-confidence, kind="stable")
    coverage = np.arange(1, len(labels) + 1) / len(labels)
    risk = wrong[order].cumsum() / np.arange(1, len(labels) + 1)
    last_of_ties = np.searchsorted(-confidence[order], -confidence[order], side="right") - 1
    return coverage, risk[last_of_ties]


def area_under_risk_coverage(labels: NDArray[np.int64], probabilities: NDArray[np.float64]) -> float:
    """Mean risk over all coverages; 0 where nothing is wrong, the error rate where confidence says nothing."""
    return float(risk_coverage(labels, probabilities)[1].mean())
