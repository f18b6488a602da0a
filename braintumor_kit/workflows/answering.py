"""What `predict` and `evaluate` need of a trained model, whatever computes it."""

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from braintumor_kit.evaluation.certainty import Certainty, Limits, Verdict
from braintumor_kit.model.infer import Predictor
from braintumor_kit.recipe.tables import PixelsTable
from braintumor_kit.runs import Run


class Said(NamedTuple):
    """What a model says of some pictures.

    Attributes:
        probabilities: (N, classes).
        verdict: what to make of them; None where nobody settled that.
    """

    probabilities: NDArray[np.float32]
    verdict: Verdict | None


class Answerer(Protocol):
    """A model at work."""

    @property
    def batch_size(self) -> int:
        """Pictures that it is fastest with at once."""

    def __call__(self, pictures: NDArray[np.uint8]) -> Said:
        """What it says of prepared pictures, uint8 (N, S, S, 1 or C)."""


class Answering(Protocol):
    """A trained model that can be asked: of Keras (`Trained`), or exported (`Exported`)."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of its outputs."""

    @property
    def pixels(self) -> PixelsTable:
        """How pictures are prepared for it."""

    @property
    def limits(self) -> Limits | None:
        """What its answers are held against; None where nobody settled that."""

    @property
    def digest(self) -> str:
        """SHA-256 of its file."""

    @property
    def run(self) -> Run | None:
        """Where it comes from; None of a file that stands in no run."""

    @property
    def named(self) -> bool:
        """Whether anybody said what the outputs are."""

    @property
    def warning(self) -> str | None:
        """What its run's figures have to be read with."""

    def answerer(self, precision: str = "float32") -> Answerer:
        """The model, ready to work."""


class KerasAnswerer:
    """A Keras model at work, with its certainty."""

    def __init__(self, predictor: Predictor, certainty: Certainty | None) -> None:
        self._predictor, self._certainty = predictor, certainty
        self.batch_size = predictor.batch_size

    def __call__(self, pictures: NDArray[np.uint8]) -> Said:
        rows, features = self._predictor.observed(pictures)
        return Said(rows, None if self._certainty is None else self._certainty.verdict(rows, features))
