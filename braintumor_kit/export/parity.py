"""Whether an exported file answers as the model in Keras does."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from braintumor_kit.errors import WorkError
from braintumor_kit.evaluation.certainty import Certainty
from braintumor_kit.export.answer import CALIBRATED, PROBABILITIES, SCORE
from braintumor_kit.model.infer import Predictor

Answers = Callable[[NDArray[np.float32]], Mapping[str, NDArray[np.float32]]]
"""A file at work: its outputs by name, rows of pictures (N, S, S, C)."""

BATCHES = (1, 7)
"""Pictures at once that a file is tried on."""

TOLERANCE = {PROBABILITIES: 1e-4, CALIBRATED: 1e-4, SCORE: 1e-2}
"""How far answers may lie from Keras'. A score of 1 is as far as one slice in twenty of validation; it is a mean of
logarithms, taken in 32 bits where btkit takes it in 64."""


def deviations(model: keras.Model, certainty: Certainty | None, given: Answers, name: str) -> dict[str, float]:
    """How far each output of a file lies at most from what the model in Keras says, with its certainty.

    Args:
        given: the file at work.
        name: how messages call the file.

    Raises:
        WorkError: where that is too far.
    """
    found: dict[str, float] = {}
    for pictures in _seeded(tuple(model.input_shape[1:])):
        said, wanted = given(pictures), _expected(model, certainty, pictures)
        for output, values in said.items():
            if values.shape != wanted[output].shape:
                raise _refusal(name, f"gives {output} of {values.shape} where Keras gives {wanted[output].shape}")
            apart = np.abs(values.astype(np.float64) - wanted[output]) / np.maximum(1, np.abs(wanted[output]))
            found[output] = max(found.get(output, 0.0), float(apart.max()) if np.isfinite(apart).all() else np.inf)
    far = next((output for output, apart in found.items() if not apart <= TOLERANCE[output]), None)
    if far is not None:
        raise _refusal(name, f"{far} differs from Keras' by {found[far]:.2g}, more than {TOLERANCE[far]:g}")
    return found


def _refusal(name: str, fault: str) -> WorkError:
    return WorkError(f"{name} is not kept: its {fault}. Please report it with what `btkit doctor --bundle` collects.")


def _expected(model: keras.Model, certainty: Certainty | None, pictures: NDArray[np.float32]) -> dict[str, Any]:
    """The same by Keras itself; calibration and score as `btkit predict` computes them."""
    plain = keras.ops.convert_to_numpy(model(pictures, training=False))
    if certainty is None:
        return {PROBABILITIES: plain}
    features = Predictor(model, watch=certainty.detects).observed(pictures.astype(np.uint8))[1]
    verdict = certainty.verdict(plain, features)
    return {PROBABILITIES: plain, CALIBRATED: verdict.calibrated, SCORE: verdict.scores}


def _seeded(shape: tuple[int, int, int]) -> Iterator[NDArray[np.float32]]:
    """Batches of pictures (N, S, S, C) of whole numbers in 0..255, from smooth to rough: noise alone is all the same
    to a network."""
    random = np.random.default_rng(7)
    side = shape[0]
    for count in BATCHES:
        made = []
        for number in range(count):
            grid = random.integers(0, 256, (3 + 4 * number, 3 + 4 * number), dtype=np.uint8)
            smooth = np.asarray(Image.fromarray(grid).resize((side, side), Image.Resampling.BICUBIC), np.float32)
            made.append(np.repeat(smooth[..., np.newaxis], shape[2], axis=2))
        yield np.stack(made)
