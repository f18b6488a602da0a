"""`btkit predict`: class probabilities for picture files, prepared as the run prepared its own."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from braintumor_kit.data.dataset import BadImage
from braintumor_kit.evaluation.certainty import Certainty
from braintumor_kit.evaluation.outliers import Features
from braintumor_kit.model.infer import Predictor
from braintumor_kit.model.precision import PRECISIONS, resolve_precision
from braintumor_kit.workflows.named import FilePictures, Named
from braintumor_kit.workflows.pictures import Pictures, read_batch
from braintumor_kit.workflows.trained import Trained


@dataclass(frozen=True)
class Prediction:
    """What the model says of one picture.

    Attributes:
        path: as the user would name it.
        probabilities: of each class, in the order of the classes.
        calibrated: the same after calibration; None where the model has none.
        ood_score: how unlike the training it is; None where nobody can tell.
        out_of_distribution: whether that is more than the threshold.
        abstain: whether the answer is better not given.
    """

    path: str
    probabilities: tuple[float, ...]
    calibrated: tuple[float, ...] | None = None
    ood_score: float | None = None
    out_of_distribution: bool | None = None
    abstain: bool | None = None


def predict(trained: Trained, named: Sequence[Named], precision: str = "float32") -> Iterator[Prediction | BadImage]:
    """Predictions in the order of the pictures; a `BadImage` in the place of one that cannot be read."""
    watch = trained.certainty is not None and trained.certainty.detects
    predictor = Predictor(trained.model, PRECISIONS[resolve_precision(precision)], watch)
    pictures = FilePictures(named, trained.pixels)
    for start in range(0, len(named), predictor.batch_size):
        places = range(start, min(start + predictor.batch_size, len(named)))
        yield from _predict_batch(predictor, trained.certainty, pictures, places)


def as_json(prediction: Prediction, classes: Sequence[str]) -> dict[str, Any]:
    """One element of `predict --json`; what nobody can tell of a model is null."""
    probabilities = dict(zip(classes, prediction.probabilities, strict=True))
    calibrated = prediction.calibrated and dict(zip(classes, prediction.calibrated, strict=True))
    return {
        "path": prediction.path,
        "predicted": max(probabilities, key=probabilities.__getitem__),
        "probabilities": probabilities,
        "calibrated": calibrated,
        "out_of_distribution": prediction.out_of_distribution,
        "ood_score": prediction.ood_score,
        "abstain": prediction.abstain,
    }


def _predict_batch(
    predictor: Predictor, certainty: Certainty | None, pictures: Pictures, places: Sequence[int]
) -> list[Prediction | BadImage]:
    good, pixels, bad = read_batch(pictures, places)
    paths = [pictures.items[place].id for place in good]
    given = answers(paths, *predictor.observed(pixels), certainty) if good else []
    said = dict(zip(good, given, strict=True))
    unread = iter(bad)
    return [said[place] if place in said else next(unread) for place in places]


def answers(
    paths: Sequence[str], rows: NDArray[np.float32], features: Features, certainty: Certainty | None
) -> list[Prediction]:
    """What a model said of some pictures, with its certainty.

    Args:
        rows: probabilities, (N, classes).
        features: what `Predictor.observed` gives beside them.
    """
    if certainty is None:
        return [Prediction(path, tuple(row)) for path, row in zip(paths, rows.tolist(), strict=True)]
    found = certainty.verdict(rows, features)
    return [
        Prediction(
            path,
            tuple(rows[at].tolist()),
            tuple(found.calibrated[at].tolist()),
            None if found.scores is None else float(found.scores[at]),
            None if found.unlike is None else bool(found.unlike[at]),
            bool(found.abstain[at]),
        )
        for at, path in enumerate(paths)
    ]
