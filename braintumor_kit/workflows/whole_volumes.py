"""What a model says of a volume, from what it says of its slices."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from braintumor_kit.data.dataset import BadImage
from braintumor_kit.evaluation.certainty import Limits
from braintumor_kit.workflows.named import Named, volumes_among
from braintumor_kit.workflows.predict import Prediction, as_json, predictions


@dataclass(frozen=True)
class VolumePrediction:
    """What the slices of a volume come to.

    Probabilities are means over the slices that are not flagged as unlike the training, such as those at a volume's
    ends; over all, where the volume itself is flagged: where more than half of its slices are.

    Attributes:
        summary: the answer, in the form of a single picture's; `ood_score` is the median of the slices' scores.
        slices: that could be read.
        used: of which the means are taken.
        peaks: for each class the slice that it is likeliest on, from 1, and how likely.
    """

    summary: Prediction
    slices: int
    used: int
    peaks: tuple[tuple[int, float], ...]


def with_volumes(
    results: Sequence[Prediction | BadImage], named: Sequence[Named], limits: Limits | None
) -> Iterator[Prediction | BadImage | VolumePrediction]:
    """Puts what each volume's slices come to behind the last of them.

    Args:
        results: one for each of `named`, in their order.
    """
    places = volumes_among(named)
    last = {inside[-1]: (name, inside) for name, inside in places.items()}
    for at, result in enumerate(results):
        yield result
        if at in last:
            name, inside = last[at]
            pairs = [
                (found, named[place].place + 1) for place in inside if isinstance(found := results[place], Prediction)
            ]
            if pairs:
                slices, numbers = zip(*pairs, strict=True)
                yield of_volume(name, slices, numbers, limits)


def volume_json(volume: VolumePrediction, classes: Sequence[str]) -> dict[str, Any]:
    """An element of `predict --json`: what a picture's has, and what it was made of."""
    peaks = {
        name: {"slice": number, "probability": probability}
        for name, (number, probability) in zip(classes, volume.peaks, strict=True)
    }
    return {**as_json(volume.summary, classes), "slices": volume.slices, "slices_used": volume.used, "peaks": peaks}


def of_volume(
    name: str, slices: Sequence[Prediction], numbers: Sequence[int], limits: Limits | None
) -> VolumePrediction:
    """Puts the answers for a volume's slices together.

    Args:
        name: of the volume.
        slices: what was said of those that could be read, at least one.
        numbers: of each, its number in the volume, from 1.
    """
    given = np.array([one.probabilities for one in slices], dtype=np.float64)
    scores = [one.ood_score for one in slices if one.ood_score is not None]
    median = np.median(scores, keepdims=True) if scores else None
    known = ~np.array([bool(one.out_of_distribution) for one in slices])
    flagged = (
        median is not None and limits is not None and limits.threshold is not None and median[0] > limits.threshold
    )
    used = known if known.any() and not flagged else np.ones(len(slices), dtype=bool)
    verdict = None
    if limits is not None:
        calibrated = np.array([one.calibrated for one in slices], dtype=np.float64)
        verdict = limits.verdict(calibrated[used].mean(axis=0, keepdims=True), median)
    (summary,) = predictions([name], given[used].mean(axis=0, keepdims=True), verdict)
    return VolumePrediction(summary, len(slices), int(used.sum()), _peaks(given, used, numbers))


def _peaks(
    given: NDArray[np.float64], used: NDArray[np.bool_], numbers: Sequence[int]
) -> tuple[tuple[int, float], ...]:
    candidates = np.where(used[:, np.newaxis], given, -1.0)
    return tuple((numbers[at], float(given[at, column])) for column, at in enumerate(candidates.argmax(axis=0)))
