"""`btkit predict`: class probabilities for picture files, prepared as the run prepared its own."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from braintumor_kit.contracts import ImageError, InputError
from braintumor_kit.contracts.pictures import PICTURE_SUFFIXES, has_suffix, is_junk, read_picture
from braintumor_kit.data.dataset import BadImage
from braintumor_kit.data.pixels import prepare
from braintumor_kit.model.infer import Predictor
from braintumor_kit.model.precision import PRECISIONS, resolve_precision
from braintumor_kit.recipe.tables import PixelsTable
from braintumor_kit.runs import is_run
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
    for start in range(0, len(paths), predictor.batch_size):
        yield from _predict_batch(predictor, trained.pixels, paths[start : start + predictor.batch_size])


def pictures_in(arguments: Sequence[str]) -> list[Path]:
    """The files that the user means: those named, and every picture below the folders named, in order of name.

    Raises:
        InputError: where an argument does not exist or a folder holds no picture.
    """
    found: list[Path] = []
    for argument in arguments:
        path = Path(argument)
        if is_run(argument):
            raise InputError(f"'{argument}' is a run; name it first, before the images.")
        if path.is_dir():
            inside = sorted(_below(path))
            if not inside:
                raise InputError(f"folder '{argument}' holds no picture ({', '.join(sorted(PICTURE_SUFFIXES))}).")
            found += inside
        elif path.exists():
            found.append(path)
        else:
            raise InputError(f"'{argument}' does not exist; name images, folders of images, or a run before them.")
    return found


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


def _below(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        inside = path.relative_to(folder).parts
        if has_suffix(path.name, PICTURE_SUFFIXES) and path.is_file() and not any(is_junk(part) for part in inside):
            yield path


def _predict_batch(predictor: Predictor, pixels: PixelsTable, paths: Sequence[Path]) -> list[Prediction | BadImage]:
    read = [_read(path, pixels) for path in paths]
    good = [picture for picture in read if not isinstance(picture, BadImage)]
    rows = iter(predictor(np.stack(good)) if good else np.zeros((0, 0)))
    return [
        picture if isinstance(picture, BadImage) else Prediction(str(path), tuple(float(p) for p in next(rows)))
        for path, picture in zip(paths, read, strict=True)
    ]


def _read(path: Path, pixels: PixelsTable) -> NDArray[np.uint8] | BadImage:
    try:
        return prepare(read_picture(path), pixels)
    except ImageError as error:
        return BadImage(str(path), str(error))
