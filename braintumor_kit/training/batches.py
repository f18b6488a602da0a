"""Batches of prepared slices for Keras' fit, in an order that follows from (seed, epoch)."""

import math
from collections.abc import Sequence

import keras
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from braintumor_kit.data.cache import Slices
from braintumor_kit.training.randomness import epoch_order


class Batches(keras.utils.PyDataset):
    """Slices and one-hot labels of one split, batch by batch.

    Args:
        slices: the prepared slices of the whole data set.
        labels: class number of each sample of the data set, (N,).
        places: which samples belong to this split.
        shuffle_seed: with a seed, each epoch visits them in its own order; None keeps the order.
        class_weights: weight of each class in the loss; None weighs all alike.

    Attributes:
        epoch: the epoch whose order is in force, set before it begins.
    """

    def __init__(
        self,
        slices: Slices,
        labels: NDArray[np.int64],
        places: NDArray[np.int64],
        classes: int,
        batch_size: int,
        shuffle_seed: int | None = None,
        class_weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self._slices, self._labels, self._places = slices, labels, places
        self._classes, self._batch_size, self._seed = classes, batch_size, shuffle_seed
        self._weights = None if class_weights is None else np.asarray(class_weights, np.float32)
        self.epoch = 0
        self._ordered: tuple[int, NDArray[np.int64]] = (-1, places)

    def __len__(self) -> int:
        return math.ceil(len(self._places) / self._batch_size)

    @property
    def samples(self) -> int:
        """Slices an epoch."""
        return len(self._places)

    def __getitem__(self, step: int) -> tuple[Tensor, ...]:
        """uint8 slices (n, S, S, C), one-hot labels (n, classes) and, with class weights, weights (n,)."""
        places = self._order()[step * self._batch_size : (step + 1) * self._batch_size]
        labels = self._labels[places]
        batch = (
            torch.from_numpy(self._slices[places]),
            torch.from_numpy(np.eye(self._classes, dtype=np.float32)[labels]),
        )
        return batch if self._weights is None else (*batch, torch.from_numpy(self._weights[labels]))

    def _order(self) -> NDArray[np.int64]:
        if self._seed is None:
            return self._places
        if self._ordered[0] != self.epoch:
            self._ordered = (self.epoch, self._places[epoch_order(self._seed, self.epoch, len(self._places))])
        return self._ordered[1]


def balanced_weights(labels: NDArray[np.int64], classes: int) -> list[float]:
    """Weight of each class, inverse to how often it occurs; the mean over samples is 1."""
    counts = np.bincount(labels, minlength=classes)
    return [float(len(labels) / (classes * count)) if count else 0.0 for count in counts]
