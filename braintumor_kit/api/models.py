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
from braintumor_kit.report.notebook import predictions_html
from braintumor_kit.workflows.named import Named, files_in
from braintumor_kit.workflows.predict import Prediction, as_json, predictions
from braintumor_kit.workflows.trained import Trained, plane_of, trained_of_argument
from braintumor_kit.workflows.whole_volumes import VolumePrediction, volume_json, with_volumes

import keras  # isort: skip  (after what puts it on torch)


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a model says of some pictures.

    Attributes:
        classes: in the order of the columns.
        answers: one a picture or slice, with its probabilities and what speaks against it.
        volumes: what the slices of each volume come to.
        warning: what the model's figures have to be read with; None where nothing is known.
    """

    classes: tuple[str, ...]
    answers: tuple[Prediction, ...]
    volumes: tuple[VolumePrediction, ...] = ()
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
        """A row a picture or slice, then one a volume, as `btkit predict --json` prints them."""
        volumes = [volume_json(volume, self.classes) for volume in self.volumes]
        return [*(as_json(answer, self.classes) for answer in self.answers), *volumes]

    def _repr_html_(self) -> str:
        count = len(self.answers)  # a long table is cut: what the volumes come to stands first
        return predictions_html([*self.rows[count:], *self.rows[:count]], self.classes, self.warning)


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

    def predict(self, images: Images, precision: str = "float32", plane: str | None = None) -> Predictions:
        """Class probabilities, with a caution where an answer had better not be used.

        Args:
            images: (N, H, W) or (N, H, W, 3), or a list of such pictures or of paths, of any sizes. They are prepared
                as the run prepared its own; uint8 is taken as 0..255, other numbers are stretched to it from each
                picture's own range. NIfTI volumes, DICOM files and folders of pictures stand for all their slices.
            precision: of convolutions: "float32", "bfloat16" or "auto".
            plane: that NIfTI volumes are cut in; that of the run's own, else "axial".

        Raises:
            InputError: where something is no picture; ImageError where one cannot be read.
        """
        answerer = self.trained.answerer(precision)
        named = self._named(images, plane)
        slices, names = self._prepared(images, named), [one.name for one in named]
        found: list[Prediction] = []
        for start in range(0, len(slices), answerer.batch_size):
            some = slice(start, start + answerer.batch_size)
            found += predictions(names[some], *answerer(slices[some]))
        whole = [item for item in with_volumes(found, named, self.trained.limits) if isinstance(item, VolumePrediction)]
        return Predictions(self.classes, tuple(found), tuple(whole), self.trained.warning)

    def explain(self, images: Images, method: str = "gradcam", plane: str | None = None, **options: Any) -> Explanation:
        """Maps of where it looks.

        Args:
            images, plane: as `predict` takes them.
            options: as `explain` has them: target, labels, layer, precision, align, plugins, and those of the method.

        Raises:
            InputError: where something does not fit.
        """
        return explain_trained(self.trained, self._prepared(images, self._named(images, plane)), method, **options)

    def _named(self, images: Images, plane: str | None) -> list[Named]:
        """Each picture with its name: its path, or its number among those that are given."""
        found: list[Named] = []
        for number, image in enumerate(images):
            if isinstance(image, str | os.PathLike):
                found += files_in([os.fspath(image)]).pictures(plane or plane_of(self.trained.run))
            else:
                found.append(Named(f"picture {number}", Path(), place=number))
        return found

    def _prepared(self, images: Images, named: Sequence[Named]) -> NDArray[np.uint8]:
        if all(one.path == Path() for one in named):
            return prepared(images, self.trained.pixels)
        pictures = (one.read() if one.path != Path() else images[one.place] for one in named)
        return np.stack([prepared([picture], self.trained.pixels)[0] for picture in pictures])

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
