"""`btkit predict`: class probabilities for picture files, prepared as the run prepared its own."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from braintumor_kit.data.dataset import BadImage
from braintumor_kit.model.infer import Predictor
from braintumor_kit.model.precision import PRECISIONS, resolve_precision
from braintumor_kit.workflows.pictures import FilePictures, Pictures, read_batch
from braintumor_kit.workflows.trained import Trained


@dataclass(frozen=True)
class Prediction:
    """What the model says of one picture.

    Attributes:
        path: as the user would name it.
        probabilities: of each class, in the order of the classes.
    """

    path: str
    probabilities: tuple[float, ...]


def predict(trained: Trained, paths: Sequence[Path], precision: str = "float32") -> Iterator[Prediction | BadImage]:
    """Predictions in the order of the pictures; a `BadImage` in the place of one that cannot be read."""
    predictor = Predictor(trained.model, PRECISIONS[resolve_precision(precision)])
    pictures = FilePictures(paths, trained.pixels)
    for start in range(0, len(paths), predictor.batch_size):
        yield from _predict_batch(predictor, pictures, range(start, min(start + predictor.batch_size, len(paths))))


def as_json(prediction: Prediction, classes: Sequence[str]) -> dict[str, Any]:
    """One element of `predict --json`. Certainty beyond the probabilities is not known yet, so it is null."""
    probabilities = dict(zip(classes, prediction.probabilities, strict=True))
    return {
        "path": prediction.path,
        "predicted": max(probabilities, key=probabilities.__getitem__),
        "probabilities": probabilities,
        "out_of_distribution": None,
        "ood_score": None,
        "abstain": None,
    }


def _predict_batch(predictor: Predictor, pictures: Pictures, places: Sequence[int]) -> list[Prediction | BadImage]:
    good, pixels, bad = read_batch(pictures, places)
    rows = predictor(pixels).tolist() if good else []
    said = {place: Prediction(pictures.items[place].id, tuple(row)) for place, row in zip(good, rows, strict=True)}
    unread = iter(bad)
    return [said[place] if place in said else next(unread) for place in places]
