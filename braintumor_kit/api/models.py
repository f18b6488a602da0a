"""`load`: a trained model with what its run knows of it, to predict and explain with."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from braintumor_kit.api.explaining import Explanation, explain_trained
from braintumor_kit.data.arrays import Images, prepared
from braintumor_kit.model.infer import Predictor
from braintumor_kit.model.precision import PRECISIONS, resolve_precision
from braintumor_kit.report.notebook import predictions_html
from braintumor_kit.workflows.predict import Prediction, answers, as_json
from braintumor_kit.workflows.trained import Trained, trained_of_argument

import keras  # isort: skip  (after what puts it on torch)


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a model says of some pictures.

    Attributes:
        classes: in the order of the columns.
        answers: one a picture, with its probabilities and what speaks against it.
        warning: what the model's figures have to be read with; None where nothing is known.
    """

    classes: tuple[str, ...]
    answers: tuple[Prediction, ...]
    warning: str | None = None

    def __len__(self) -> int:
        return len(self.answers)

    @property
    def predicted(self) -> tuple[str, ...]:
        """The likeliest class of each picture."""
        return tuple(self.classes[number] for number in self.probabilities.argmax(axis=1))

    @cached_property
    def probabilities(self) -> NDArray[np.float64]:
        """(N, classes), calibrated where the model's run fitted a calibration."""
        rows = [answer.calibrated or answer.probabilities for answer in self.answers]
        return np.array(rows, np.float64).reshape(len(rows), len(self.classes))

    @property
    def rows(self) -> list[dict[str, Any]]:
        """A row a picture, as `btkit predict --json` prints them."""
        return [as_json(answer, self.classes) for answer in self.answers]

    def _repr_html_(self) -> str:
        return predictions_html(self.rows, self.classes, self.warning)


@dataclass(frozen=True, eq=False)
class Model:
    """A trained model.

    Attributes:
        trained: the Keras model, and how pictures are prepared for it.
    """

    trained: Trained = field(repr=False)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of its outputs; "class_0", "class_1", .. where nobody said them."""
        return self.trained.classes

    @property
    def network(self) -> keras.Model:
        """Pictures (N, S, S, C) in 0..255 to probabilities."""
        return self.trained.model

    @property
    def folder(self) -> Path | None:
        """The run that it comes from; None of a file that stands in none."""
        return self.trained.run.folder if self.trained.run else None

    def predict(self, images: Images, precision: str = "float32") -> Predictions:
        """Class probabilities, with a caution where an answer had better not be used.

        Args:
            images: (N, H, W) or (N, H, W, 3), or a list of such pictures or of paths, of any sizes. They are prepared
                as the run prepared its own; uint8 is taken as 0..255, other numbers are stretched to it from each
                picture's own range.
            precision: of convolutions: "float32", "bfloat16" or "auto".

        Raises:
            InputError: where something is no picture.
        """
        certainty = self.trained.certainty
        dtype = PRECISIONS[resolve_precision(precision)]
        predictor = Predictor(self.trained.model, dtype, watch=certainty is not None and certainty.detects)
        slices, names = prepared(images, self.trained.pixels), _names(images)
        found: list[Prediction] = []
        for start in range(0, len(slices), predictor.batch_size):
            some = slice(start, start + predictor.batch_size)
            found += answers(names[some], *predictor.observed(slices[some]), certainty)
        return Predictions(self.classes, tuple(found), self.trained.warning)

    def explain(self, images: Images, method: str = "gradcam", **options: Any) -> Explanation:
        """Maps of where it looks.

        Args:
            images: as `predict` takes them.
            options: as `explain` has them: target, labels, layer, precision, align, plugins, and those of the method.

        Raises:
            InputError: where something does not fit.
        """
        return explain_trained(self.trained, prepared(images, self.trained.pixels), method, **options)

    def __repr__(self) -> str:
        return f"Model({str(self.folder or 'a file')!r}, classes={self.classes})"


def load(place: str | Path | None = None, *, runs: str | Path = "runs", classes: Sequence[str] = ()) -> Model:
    """A trained model.

    Args:
        place: a run folder or a `.keras` file, of any Keras classifier of pictures; the newest run where None.
        runs: the folder in which the newest is looked for.
        classes: names of the outputs of a file that stands in no run.

    Raises:
        InputError: where there is none.
    """
    text = None if place is None else os.fspath(place)
    return Model(trained_of_argument(text, Path(runs), any_end=False, classes=tuple(classes)))


def _names(images: Images) -> list[str]:
    """What each picture is called: its path, or its number."""
    return [
        os.fspath(image) if isinstance(image, str | os.PathLike) else f"picture {number}"
        for number, image in enumerate(images)
    ]
