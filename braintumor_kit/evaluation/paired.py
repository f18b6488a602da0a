"""Two models on the same slices: is one better, or was it luck?"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from braintumor_kit.evaluation.intervals import confusion_matrices, paired_bootstrap
from braintumor_kit.evaluation.metrics import HEADLINES


def compare(
    labels: NDArray[np.int64],
    first: NDArray[np.int64],
    second: NDArray[np.int64],
    units: Sequence[str],
    classes: int,
) -> dict[str, Any]:
    """Differences, first less second, with intervals, and McNemar's exact test.

    Intervals come from resampling units, the same ones for both models. McNemar's test (1947) takes slices for
    independent, which slices of one patient are not: where patients are known the intervals say more.

    Args:
        labels, first, second: true class and what either model says, (N,).
        units: the patient (or slice) of each, (N,).
    """
    matrices = [confusion_matrices(labels, predicted, units, classes) for predicted in (first, second)]
    intervals = paired_bootstrap(matrices[0], matrices[1], dict(HEADLINES))
    right = first == labels, second == labels
    only_first, only_second = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
    differing = only_first + only_second
    return {
        "n": len(labels),
        **{
            name: {
                "first": float(figure(matrices[0].sum(axis=0))),
                "second": float(figure(matrices[1].sum(axis=0))),
                "difference": float(figure(matrices[0].sum(axis=0)) - figure(matrices[1].sum(axis=0))),
                "difference_ci": intervals[name],
            }
            for name, figure in HEADLINES.items()
        },
        "mcnemar": {
            "only_first_right": only_first,
            "only_second_right": only_second,
            "p": float(binomtest(only_first, differing).pvalue) if differing else 1.0,
        },
    }
