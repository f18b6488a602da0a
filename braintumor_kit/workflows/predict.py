"""`btkit predict`: class probabilities for picture files, prepared as the run prepared its own."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from braintumor_kit.data.dataset import BadImage
from braintumor_kit.evaluation.certainty import Certainty, Verdict
from braintumor_kit.evaluation.outliers import Features
from braintumor_kit.workflows.answering import Answerer, Answering
from braintumor_kit.workflows.named import FilePictures, Named
from braintumor_kit.workflows.pictures import Pictures, read_batch


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


def predict(trained: Answering, named: Sequence[Named], precision: str = "float32") -> Iterator[Prediction | BadImage]:
    """Predictions in the order of the pictures; a `BadImage` in the place of one that cannot be read."""
    answerer = trained.answerer(precision)
    pictures = FilePictures(named, trained.pixels)
    for start in range(0, len(named), answerer.batch_size):
        places = range(start, min(start + answerer.batch_size, len(named)))
        yield from _predict_batch(answerer, pictures, places)


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


def _predict_batch(answerer: Answerer, pictures: Pictures, places: Sequence[int]) -> list[Prediction | BadImage]:
    good, pixels, bad = read_batch(pictures, places)
    paths = [pictures.items[place].id for place in good]
    given = predictions(paths, *answerer(pixels)) if good else []
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
    return predictions(paths, rows, None if certainty is None else certainty.verdict(rows, features))


def predictions(paths: Sequence[str], rows: NDArray[np.floating[Any]], found: Verdict | None) -> list[Prediction]:
    """Answers, put together from probabilities (N, classes) and what to make of them."""
    if found is None:
        return [Prediction(path, tuple(row)) for path, row in zip(paths, rows.tolist(), strict=True)]
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
