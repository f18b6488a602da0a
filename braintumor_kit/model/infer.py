"""Class probabilities of a trained model for many slices."""

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from braintumor_kit.data.cache import Slices
from braintumor_kit.data.dataset import Progress, quiet
from braintumor_kit.errors import InputError
from braintumor_kit.memory import kept_memory
from braintumor_kit.model.fast import Program
from braintumor_kit.model.precision import exact_convolutions, keras_device
from braintumor_kit.model.watched import watched_layers

ON_CPU, ON_GPU = 16, 256
"""Slices at once. On a CPU larger batches are slower: their activations are too large for the memory allocator to keep,
and every one is mapped anew (ResNet-18 and EfficientNet-Lite0 at 224 pixels in float32, 8 to 64 slices tried)."""


class Predictor:
    """A model that gives probabilities: in float32 the same numbers as the saved model gives.

    Args:
        model: pictures (N, H, W, C) in 0..255 to probabilities (N, classes).
        dtype: of convolutions; torch.bfloat16 is faster where the device has units for it, and near.
        watch: `observed` gives what layers on the way make of pictures, too.

    Attributes:
        batch_size: slices that the device is fastest with at once.
        watches: whether it can and does.
    """

    def __init__(self, model: keras.Model, dtype: torch.dtype = torch.float32, watch: bool = False) -> None:
        watched = watched_layers(model) if watch else []
        try:
            outputs = keras.Model(model.inputs, [model.output, *watched]) if watched else model
            self._run: Callable[[Tensor], Any] = Program(outputs, dtype, frozen=True)
            self.watches = bool(watched)
        except ValueError:  # a form that the fast path does not take, which Keras itself does
            self._run = lambda pictures: model(pictures, training=False)
            self.watches = False
        self._device = torch.device(keras_device())
        self._channels, self._classes = int(model.input_shape[-1]), int(model.output_shape[-1])
        self.batch_size = ON_GPU if self._device.type == "cuda" else ON_CPU

    def __call__(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Probabilities (N, classes) of prepared pictures, uint8 (N, S, S, 1 or C)."""
        return self.observed(pictures)[0]

    def observed(self, pictures: NDArray[np.uint8]) -> tuple[NDArray[np.float32], list[NDArray[np.float32]]]:
        """Probabilities (N, classes), and of each watched layer the mean and deviation of each channel over the
        picture, (N, 2 x channels)."""
        with torch.inference_mode():
            batch = torch.from_numpy(np.ascontiguousarray(pictures)).to(self._device).float()
            with exact_convolutions():
                results = self._run(batch.expand(-1, -1, -1, self._channels))
            probabilities, *layers = results if self.watches else (results,)
            if not probabilities.isfinite().all():
                raise InputError("the model makes numbers that are not finite: its weights are damaged or too large.")
            return _to_numpy(probabilities), [_to_numpy(_summary(layer)) for layer in layers]

    def over(self, slices: Slices, progress: Progress = quiet) -> NDArray[np.float32]:
        """Probabilities of every slice, (len(slices), classes)."""
        return self.observed_over(slices, np.empty(0, np.int64), progress)[0]

    def observed_over(
        self, slices: Slices, observed: NDArray[np.int64], progress: Progress = quiet
    ) -> tuple[NDArray[np.float32], list[NDArray[np.float32]]]:
        """Probabilities of every slice, and what the watched layers make of those at `observed`, in that order."""
        # One array for all: many small ones that stay would break up the memory that batches use again and again.
        probabilities = np.empty((len(slices), self._classes), np.float32)
        row = np.full(len(slices), -1)
        row[observed] = np.arange(len(observed))
        kept: list[NDArray[np.float32]] = []
        with kept_memory():
            for places in _batches(len(slices), self.batch_size):
                probabilities[places], features = self.observed(slices[places])
                kept = kept or [np.empty((len(observed), layer.shape[1]), np.float32) for layer in features]
                wanted = row[places] >= 0
                for whole, layer in zip(kept, features, strict=True):
                    whole[row[places][wanted]] = layer[wanted]
                progress(int(places[-1]) + 1, len(slices))
        return probabilities, kept


def _summary(layer: Tensor) -> Tensor:
    """Mean and deviation over the picture of each channel of (N, H, W, C)."""
    deviation, mean = torch.std_mean(layer.float(), dim=(1, 2), correction=0)
    return torch.cat([mean, deviation], dim=1)


def _to_numpy(values: Tensor) -> NDArray[np.float32]:
    return values.float().cpu().numpy()


def _batches(count: int, size: int) -> Iterator[NDArray[np.int64]]:
    for start in range(0, count, size):
        yield np.arange(start, min(start + size, count))
