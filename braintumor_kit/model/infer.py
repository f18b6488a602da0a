"""Class probabilities of a trained model for many slices."""

from collections.abc import Iterator

import keras
import numpy as np
import torch
from numpy.typing import NDArray

from braintumor_kit.data.cache import Slices
from braintumor_kit.data.dataset import Progress, quiet
from braintumor_kit.model.fast import Program


class Predictor:
    """A model that gives probabilities, in float32, the same numbers as the saved model gives.

    Args:
        model: pictures (N, H, W, C) in 0..255 to probabilities (N, classes).
        batch_size: slices at once.
    """

    def __init__(self, model: keras.Model, batch_size: int = 64) -> None:
        self._program = Program(model, torch.float32)
        self._device = model.weights[0].value.device
        self._channels = int(model.input_shape[-1])
        self._batch_size = batch_size

    def __call__(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Probabilities (N, classes) of prepared pictures, uint8 (N, S, S, 1 or C)."""
        with torch.inference_mode():
            batch = torch.from_numpy(np.ascontiguousarray(pictures)).to(self._device).float()
            return self._program(batch.expand(-1, -1, -1, self._channels)).cpu().numpy()

    def over(self, slices: Slices, progress: Progress = quiet) -> NDArray[np.float32]:
        """Probabilities of every slice, (len(slices), classes)."""
        parts = []
        for places in _batches(len(slices), self._batch_size):
            parts.append(self(slices[places]))
            progress(int(places[-1]) + 1, len(slices))
        return np.concatenate(parts)


def _batches(count: int, size: int) -> Iterator[NDArray[np.int64]]:
    for start in range(0, count, size):
        yield np.arange(start, min(start + size, count))
