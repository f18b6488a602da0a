"""Outputs of a frozen part of the network, computed once and kept, so that epochs run on the rest alone."""

import math
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import torch
from torch import Tensor

from braintumor_kit.data.caches import cache_folder
from braintumor_kit.data.dataset import Progress
from braintumor_kit.files import take_space
from braintumor_kit.model.fast import Graph, Program
from braintumor_kit.recipe.tables import AugmentTable
from braintumor_kit.training.augment import prepared
from braintumor_kit.training.randomness import feature_generator
from braintumor_kit.training.store import Mapped, Resident, Store, fits_on_gpu

SHARE_OF_DISK = 0.5
"""Of the free disk space, at most so much is filled with features."""

BATCH = 32
"""Slices that features are computed of at once."""


@dataclass(frozen=True)
class Frozen:
    """The part of a network that a phase leaves as it is, and what it is fed.

    Attributes:
        program: of that part, for inference.
        channels: of the pictures that it takes.
        augmentation: of the views; one view without any is enough where it is None.
        seed: of the views' draws.
    """

    program: Program
    channels: int
    augmentation: AugmentTable | None
    seed: int

    def of(self, source: Store, rows: Tensor, view: int | None = None) -> Tensor:
        """Features of these rows of slices: of a view of them, or of the slices as they are."""
        generator = None if view is None else feature_generator(self.seed, view, int(rows[0]), source.device)
        with torch.inference_mode():
            slices = source.take(rows.to(source.index_device))
            features: Tensor = self.program(prepared(slices, self.channels, self.augmentation, generator))
        return features


class Features(keras.callbacks.Callback):
    """Computes the features when the first epoch begins, inside of that epoch's time.

    Args:
        frozen: what computes them.
        train, validation: slices; those of validation are not augmented.
        views, of_validation: stores for their features, for training one a view.
        progress: told how many slices are done.
    """

    def __init__(
        self,
        frozen: Frozen,
        train: Store,
        views: Sequence[Store],
        validation: Store,
        of_validation: Store,
        progress: Progress,
    ) -> None:
        super().__init__()
        self._frozen, self._progress = frozen, progress
        self._work: list[tuple[Store, Store, int | None]] = [(train, view, at) for at, view in enumerate(views)]
        self._work.append((validation, of_validation, None))

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        total = sum(len(source) for source, _, _ in self._work)
        done = 0
        while self._work:
            source, target, view = self._work.pop(0)
            for start in range(0, len(source), BATCH):
                rows = torch.arange(start, min(start + BATCH, len(source)))
                _write(target, rows, self._frozen.of(source, rows, view))
                done += len(rows)
                self._progress(done, total)


def feature_stores(frozen: Frozen, train: Store, validation: Store, views: int) -> list[Store] | None:
    """Empty stores for features, one a view of the training slices and one for validation: on the GPU where they fit,
    else in files that are gone with the process.

    Returns:
        None where there is no room for them.
    """
    one = frozen.of(train, torch.tensor([0]))[0]
    counts = [*[len(train)] * views, len(validation)]
    size = sum(counts) * one.nbytes
    if fits_on_gpu(size, train.device):
        return [Resident(one.new_empty((count, *one.shape))) for count in counts]
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    if size > SHARE_OF_DISK * shutil.disk_usage(folder).free:
        return None
    return [_on_disk(folder, (count, *one.shape), one.dtype, train.device) for count in counts]


def _on_disk(folder: Path, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Store:
    half = dtype == torch.bfloat16
    with tempfile.TemporaryFile(dir=folder) as file:  # the map keeps what is in it
        take_space(file, math.prod(shape) * (2 if half else 4))
        array = np.memmap(file, np.uint16 if half else np.float32, "w+", shape=shape)
    return Mapped(array, device, dtype=dtype if half else None)


def frozen_part(graph: Graph) -> tuple[Graph, Graph] | None:
    """Divides a network into all that a phase leaves as it is and the rest.

    The first part has no weights to train, draws no random numbers, and hands one value on.

    Returns:
        Both parts; None where there is no such first part with a layer of weights in it.
    """
    fixed = 0
    while fixed < len(graph.calls) and _is_fixed(graph.calls[fixed].layer):
        fixed += 1
    for count in range(fixed, 0, -1):
        first, rest = graph.divided(count)
        if len(first.outputs) == 1 and any(
            call.layer.weights for call in first.calls if hasattr(call.layer, "weights")
        ):
            return first, rest
    return None


def _is_fixed(layer: object) -> bool:
    if not isinstance(layer, keras.Layer):
        return True  # a plain operation
    draws = hasattr(layer, "seed_generator") or isinstance(layer, keras.Model)  # whatever it may hold
    return not layer.trainable_weights and not draws


def _write(target: Store, rows: Tensor, values: Tensor) -> None:
    if isinstance(target, Resident):
        target.rows[rows.to(target.device)] = values
    elif isinstance(target, Mapped):
        values = values.contiguous().cpu()
        plain = values.view(torch.uint16) if values.dtype == torch.bfloat16 else values
        target.array[rows.numpy()] = plain.numpy()
