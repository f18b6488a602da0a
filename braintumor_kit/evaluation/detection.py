"""Whether tumours are found at all, whatever they are called, and what becomes of that where no answer is given."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from braintumor_kit.contracts.classes import canonical_class
from braintumor_kit.evaluation.class_sets import HEALTHY, TUMOUR, TUMOURS
from braintumor_kit.evaluation.intervals import mean_intervals


def detection(
    labels: NDArray[np.int64],
    probabilities: NDArray[np.float64],
    units: Sequence[str],
    classes: Sequence[str],
    abstain: NDArray[np.bool_] | None = None,
) -> dict[str, Any] | None:
    """Tumour or none, by slice.

    A slice is `called_tumour` where the likeliest class is any tumour: of tumours the sensitivity, of healthy slices
    the share of false alarms. With abstention a slice is answered or not, and three shares sum to 1: of tumours
    `found`, `missed` and `abstained`, of healthy slices `cleared`, `false_alarm` and `abstained`. `not_missed` and
    `not_alarmed` are what is left without the wrong ones.

    Args:
        labels: class numbers (N,).
        probabilities: (N, K).
        units: what intervals resample, (N,): patients, or slices.
        classes: names of the K classes.
        abstain: where no answer is given, (N,); None where nobody settled that.

    Returns:
        By "tumours" and "healthy": `n`, and the shares with their 95 % intervals (`found_ci` and so on; None of one
        unit); of a kind that does not occur None. None altogether where the classes do not tell tumours from none.
    """
    known = [canonical_class(name) for name in classes]
    tumour = np.array([name == TUMOUR or name in TUMOURS for name in known])
    healthy = np.array([name == HEALTHY for name in known])
    if not (tumour.any() and healthy.any() and (tumour | healthy).all()):
        return None
    called = tumour[probabilities.argmax(axis=1)]
    names = np.asarray(units, dtype=object)
    return {
        kind: _shares(called[chosen], names[chosen], None if abstain is None else abstain[chosen], words)
        for kind, chosen, words in (
            ("tumours", tumour[labels], ("found", "missed", "not_missed")),
            ("healthy", healthy[labels], ("false_alarm", "cleared", "not_alarmed")),
        )
    }


def _shares(
    called: NDArray[np.bool_],
    units: NDArray[np.object_],
    abstain: NDArray[np.bool_] | None,
    words: tuple[str, str, str],
) -> dict[str, Any] | None:
    if not len(called):
        return None
    columns = {"called_tumour": called}
    if abstain is not None:
        tumour, healthy, not_wrong = words
        wrong = ~abstain & (called if tumour == "false_alarm" else ~called)
        columns |= {tumour: called & ~abstain, healthy: ~called & ~abstain, "abstained": abstain, not_wrong: ~wrong}
    values = np.column_stack(list(columns.values())).astype(np.float64)
    intervals = mean_intervals(values, list(units))
    shares: dict[str, Any] = {"n": len(called)}
    for name, share, interval in zip(columns, values.mean(axis=0), intervals, strict=True):
        shares |= {name: float(share), f"{name}_ci": interval}
    return shares
