"""How sure a model's answers are: calibrated probabilities, pictures unlike its training, answers better not given."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from braintumor_kit.errors import InputError
from braintumor_kit.evaluation.calibration import COLDEST, HOTTEST, fit_temperature, scaled
from braintumor_kit.evaluation.outliers import Features, OutlierDetector
from braintumor_kit.files import read_arrays, read_json, whole, write_json

VALUES, ARRAYS = "certainty.json", "certainty.npz"
_LARGEST = 64_000_000


class Verdict(NamedTuple):
    """What to make of a model's answers.

    Attributes:
        calibrated: probabilities, (N, K).
        scores: how unlike the training each picture is, (N,); None where nobody can tell.
        unlike: whether that is more than the threshold, (N,); None where nobody can tell.
        abstain: whether the answer is better not given, (N,).
    """

    calibrated: NDArray[np.float64]
    scores: NDArray[np.float64] | None
    unlike: NDArray[np.bool_] | None
    abstain: NDArray[np.bool_]


class Limits(NamedTuple):
    """What calibrated probabilities and scores are held against, wherever they were computed.

    Attributes:
        temperature: that they were calibrated by.
        abstain_below: calibrated probability of the answer below which it is better not given.
        threshold: score from which a picture is flagged; None where nobody can tell.
    """

    temperature: float
    abstain_below: float
    threshold: float | None

    def verdict(self, calibrated: NDArray[np.float64], scores: NDArray[np.float64] | None) -> Verdict:
        """What to make of answers, from calibrated probabilities (N, K) and scores (N,)."""
        unlike = None if scores is None or self.threshold is None else scores > self.threshold
        unsure = calibrated.max(axis=1) < self.abstain_below
        return Verdict(calibrated, scores, unlike, np.asarray(unsure if unlike is None else unsure | unlike))


@dataclass(frozen=True)
class Certainty:
    """What validation slices taught of a model's certainty.

    Attributes:
        temperature: that calibrates its probabilities.
        abstain_below: calibrated probability of the answer below which it is better not given.
        detector: of pictures unlike its training; None where the model has no layers to look at.
        threshold: score from which a picture is flagged.
        rates: what shares of validation slices are flagged and abstained from by construction.
        slices: of validation.
    """

    temperature: float
    abstain_below: float
    detector: OutlierDetector | None
    threshold: float
    rates: Mapping[str, float]
    slices: int

    def calibrated(self, probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
        """Calibrated probabilities (N, K)."""
        return scaled(probabilities, self.temperature)

    @property
    def detects(self) -> bool:
        """Whether it can tell pictures unlike the training."""
        return self.detector is not None

    @property
    def limits(self) -> Limits:
        """What its calibrated probabilities and scores are held against."""
        return Limits(self.temperature, self.abstain_below, self.threshold if self.detects else None)

    def verdict(self, probabilities: NDArray[np.floating[Any]], features: Features) -> Verdict:
        """What to make of answers, from their probabilities (N, K) and what the watched layers make of the pictures:
        better not given are those of unlike pictures, and where no class is likely enough."""
        calibrated = self.calibrated(probabilities.astype(np.float64))
        scores = self.detector.scores(features) if self.detector and features else None
        return self.limits.verdict(calibrated, scores)


def fit_certainty(
    labels: NDArray[np.int64],
    probabilities: NDArray[np.float64],
    units: Sequence[str],
    features: tuple[Features, Features] | None,
    false_alarms: float,
    abstain: float,
) -> Certainty:
    """Learns a model's certainty from validation slices.

    Args:
        labels, probabilities: of validation, (N,) and (N, K).
        units: the patient of each, or the slice itself where no patient is known, (N,).
        features: of training slices and of validation slices.
        false_alarms: share of validation slices that may be flagged as unlike the training.
        abstain: share of validation slices that are too unsure to be answered.
    """
    temperature = fit_temperature(labels, probabilities, units)
    sure = scaled(probabilities, temperature).max(axis=1)
    detector, threshold = None, float("inf")
    if features is not None:
        detector = OutlierDetector.fitted(*features)
        threshold = float(np.quantile(detector.scores(features[1]), 1 - false_alarms))
    rates = {"false_alarms": false_alarms, "abstain": abstain}
    return Certainty(temperature, float(np.quantile(sure, abstain)), detector, threshold, rates, len(labels))


def save_certainty(certainty: Certainty, folder: Path) -> None:
    """Writes `certainty.json` and, where pictures can be told apart, `certainty.npz`.

    Raises:
        WorkError: where they cannot be written.
    """
    values: dict[str, Any] = {
        "temperature": certainty.temperature,
        "abstain_below": certainty.abstain_below,
        "ood_threshold": certainty.threshold if certainty.detector else None,
        **certainty.rates,
        "fitted_on": "validation",
        "n": certainty.slices,
    }
    if certainty.detector is not None:
        with whole(folder / ARRAYS) as beside, beside.open("wb") as file:
            arrays: dict[str, Any] = certainty.detector.arrays()
            np.savez(file, **{name: value.astype(np.float32) for name, value in arrays.items()})
    write_json(folder / VALUES, values)


def load_certainty(folder: Path) -> Certainty | None:
    """What a run kept of its model's certainty; None where it kept nothing.

    Raises:
        InputError: where the files are damaged.
    """
    if not (folder / VALUES).is_file():
        return None
    values = read_json(folder / VALUES)
    try:
        detector = _detector(folder / ARRAYS) if values["ood_threshold"] is not None else None
        threshold = float("inf") if detector is None else float(values["ood_threshold"])
        rates = {name: float(values[name]) for name in ("false_alarms", "abstain")}
        temperature, below = float(values["temperature"]), float(values["abstain_below"])
        known = detector is None or math.isfinite(threshold)
        if not (COLDEST * 0.99 <= temperature <= HOTTEST * 1.01 and 0 <= below <= 1 and known):
            raise ValueError("a temperature or threshold that none can be")
        return Certainty(temperature, below, detector, threshold, rates, int(values["n"]))
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{folder / VALUES} or {ARRAYS} beside it is damaged: {error}.") from error


def _detector(path: Path) -> OutlierDetector:
    arrays = read_arrays(path, _LARGEST, "the file", "damaged")
    if any(array.dtype != np.float32 for array in arrays.values()):
        raise ValueError("values that are no numbers of 32 bits")
    return OutlierDetector.of_arrays({name: array.astype(np.float64) for name, array in arrays.items()})
