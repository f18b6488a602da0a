"""Class probabilities of a trained model for many slices."""

from collections.abc import Callable, Iterator

import keras
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from braintumor_kit.data.cache import Slices
from braintumor_kit.data.dataset import Progress, quiet
from braintumor_kit.memory import kept_memory
from braintumor_kit.model.fast import Program
from braintumor_kit.model.precision import exact_convolutions, keras_device

ON_CPU, ON_GPU = 16, 256
"""Slices at once. On a CPU larger batches are slower: their activations are too large for the memory allocator to keep,
and every one is mapped anew (ResNet-18 and EfficientNet-Lite0 at 224 pixels in float32, 8 to 64 slices tried)."""


class Predictor:
    """A model that gives probabilities: in float32 the same numbers as the saved model gives.

    Args:
        model: pictures (N, H, W, C) in 0..255 to probabilities (N, classes).
        dtype: of convolutions; torch.bfloat16 is faster where the device has units for it, and near.

    Attributes:
        batch_size: slices that the device is fastest with at once.
    """

    def __init__(self, model: keras.Model, dtype: torch.dtype = torch.float32) -> None:
        try:
            self._run: Callable[[Tensor], Tensor] = Program(model, dtype, frozen=True)
        except ValueError:  # a form that the fast path does not take, which Keras itself does
            self._run = lambda pictures: model(pictures, training=False)
        self._device = torch.device(keras_device())
        self._channels, self._classes = int(model.input_shape[-1]), int(model.output_shape[-1])
        self.batch_size = ON_GPU if self._device.type == "cuda" else ON_CPU

    def __call__(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Probabilities (N, classes) of prepared pictures, uint8 (N, S, S, 1 or C)."""
        with torch.inference_mode():
            batch = torch.from_numpy(np.ascontiguousarray(pictures)).to(self._device).float()
            with exact_convolutions():
                return self._run(batch.expand(-1, -1, -1, self._channels)).float().cpu().numpy()

    def over(self, slices: Slices, progress: Progress = quiet) -> NDArray[np.float32]:
        """Probabilities of every slice, (len(slices), classes)."""
        # One array for all: many small ones that stay would break up the memory that batches use again and again.
        probabilities = np.empty((len(slices), self._classes), np.float32)
        with kept_memory():
            for places in _batches(len(slices), self.batch_size):
                probabilities[places] = self(slices[places])
                progress(int(places[-1]) + 1, len(slices))
        return probabilities


def _batches(count: int, size: int) -> Iterator[NDArray[np.int64]]:
    for start in range(0, count, size):
        yield np.arange(start, min(start + size, count))
