"""Batches for Keras' fit, in an order that follows from (seed, epoch)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import keras
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from braintumor_kit.training.randomness import epoch_order
from braintumor_kit.training.store import Store


@dataclass(frozen=True)
class Labels:
    """What is to be learned of the samples of one split.

    Attributes:
        numbers: class of each sample, (n,).
        classes: how many there are.
        weights: of each class in the loss; None weighs all alike.
    """

    numbers: NDArray[np.int64]
    classes: int
    weights: Sequence[float] | None = None


class Batches(keras.utils.PyDataset):
    """Rows of a store and one-hot labels of one split, batch by batch.

    Nothing in here is done sample by sample, and on a GPU nothing is copied or waited for where the store lies there.

    Args:
        stores: the split's samples; with several, views of the same samples, of which epoch e takes number e modulo
            their count.
        labels: of the same samples.
        batch_size: slices a step, over all processes that train together.
        shuffle_seed: with a seed, each epoch visits them in its own order; None keeps the order.
        rank, parts: which part of each step is taken, of how many that are as even as can be. Together they are the
            step: each sample is seen once an epoch. Where a step has fewer samples than there are parts, an empty one
            takes a sample of another's with a share of 0.

    Attributes:
        epoch: the epoch whose order and view are in force, set before it begins.
        skipped: steps that are left out at its beginning, where a training goes on inside an epoch.
    """

    def __init__(
        self,
        stores: Sequence[Store],
        labels: Labels,
        batch_size: int,
        shuffle_seed: int | None = None,
        rank: int = 0,
        parts: int = 1,
    ) -> None:
        super().__init__()
        self.stores, self.labels = tuple(stores), labels
        self.batch_size, self._seed = batch_size, shuffle_seed
        self.rank, self.parts = rank, parts
        self._index_device, self._device = stores[0].index_device, stores[0].device
        self._one_hot = torch.from_numpy(np.eye(labels.classes, dtype=np.float32)[labels.numbers]).to(
            self._index_device
        )
        self._weights = None
        if labels.weights is not None:
            of_samples = np.asarray(labels.weights, np.float32)[labels.numbers]
            self._weights = torch.from_numpy(of_samples).to(self._index_device)
        self.epoch = self.skipped = 0
        self._ordered: tuple[int | None, Tensor] = (None, torch.arange(self.samples, device=self._index_device))

    def over(self, stores: Sequence[Store]) -> "Batches":
        """The same samples in the same order, with other inputs, such as features."""
        return Batches(stores, self.labels, self.batch_size, self._seed, self.rank, self.parts)

    def of_size(self, size: int) -> "Batches":
        """The same samples in the same order, so many a step."""
        return Batches(self.stores, self.labels, size, self._seed, self.rank, self.parts)

    def __len__(self) -> int:
        return self.steps - self.skipped

    @property
    def steps(self) -> int:
        """Steps of a whole epoch."""
        return math.ceil(self.samples / self.batch_size)

    @property
    def samples(self) -> int:
        """Samples an epoch."""
        return len(self.labels.numbers)

    def __getitem__(self, step: int) -> tuple[Tensor, ...]:
        """Inputs (n, ...), such as uint8 slices (n, S, S, C); one-hot labels (n, classes); with class weights,
        weights (n,)."""
        rows = self.rows(step + self.skipped)
        inputs = self.stores[self.epoch % len(self.stores)].take(rows)
        batch = (inputs, self._one_hot[rows].to(self._device))
        return batch if self._weights is None else (*batch, self._weights[rows].to(self._device))

    def rows(self, step: int) -> Tensor:
        """Which samples a step of the epoch takes, this part of them."""
        begin, end, _ = self._own(step)
        return self._order()[begin : max(end, begin + 1)]

    def classes(self, step: int) -> Tensor:
        """The class of each sample of a step, its number."""
        return self._one_hot[self.rows(step)].argmax(dim=1).to(self._device)

    def share(self, step: int) -> float:
        """Of a step's slices, how much this part is."""
        begin, end, whole = self._own(step)
        return (end - begin) / whole

    def _own(self, step: int) -> tuple[int, int, int]:
        """Where this part of a step begins and ends in the epoch, and how many slices the step has."""
        first = step * self.batch_size
        whole = min(self.batch_size, self.samples - first)
        return first + self.rank * whole // self.parts, first + (self.rank + 1) * whole // self.parts, whole

    def _order(self) -> Tensor:
        if self._seed is not None and self._ordered[0] != self.epoch:
            order = torch.from_numpy(epoch_order(self._seed, self.epoch, self.samples))
            self._ordered = (self.epoch, order.to(self._index_device))
        return self._ordered[1]


def balanced_weights(labels: NDArray[np.int64], classes: int) -> list[float]:
    """Weight of each class, inverse to how often it occurs; the mean over samples is 1."""
    counts = np.bincount(labels, minlength=classes)
    return [float(len(labels) / (classes * count)) if count else 0.0 for count in counts]
