"""Where batches are taken from: a memory-mapped array on disk, or a copy of it on the GPU where that fits."""

from abc import ABC, abstractmethod

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from braintumor_kit.data.cache import Slices
from braintumor_kit.data.dataset import Progress, quiet

SHARE_OF_GPU = 0.5
"""Of the GPU's free memory, at most so much is filled with slices or features; the rest is for the training."""

CHUNK = 1024
"""Rows that are copied to the GPU at once."""


class Store(ABC):
    """Rows, one a sample, that batches are made from.

    Attributes:
        device: where the batches are wanted.
        index_device: where the numbers of the rows are to be.
    """

    device: torch.device
    index_device: torch.device

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def take(self, rows: Tensor) -> Tensor:
        """Copies of these rows, on the device."""


class Mapped(Store):
    """Rows of an array that is mapped from disk; nothing of it is in memory but what was just asked for.

    Args:
        array: (rows, ...).
        places: which rows of it, in which order; None for all.
        dtype: what its bytes mean where NumPy has no word for it (bfloat16).
    """

    index_device = torch.device("cpu")

    def __init__(
        self,
        array: NDArray[np.generic],
        device: torch.device,
        places: NDArray[np.int64] | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        self.array, self.device = array, device
        self._places, self._dtype = places, dtype

    def __len__(self) -> int:
        return len(self.array if self._places is None else self._places)

    def take(self, rows: Tensor) -> Tensor:
        numbers = rows.numpy()
        chosen = np.asarray(self.array[numbers if self._places is None else self._places[numbers]])
        batch = torch.from_numpy(chosen)
        if self._dtype is not None:
            batch = batch.view(self._dtype)
        if self.device.type != "cuda":
            return batch
        return batch.pin_memory().to(self.device, non_blocking=True)  # the host goes on while it is copied


class Resident(Store):
    """Rows that lie on the device: no pixel is copied there after the first epoch has begun."""

    def __init__(self, rows: Tensor) -> None:
        self.rows = rows
        self.device = self.index_device = rows.device

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, rows: Tensor) -> Tensor:
        return self.rows[rows]


def store_of(slices: Slices, places: NDArray[np.int64], device: torch.device, progress: Progress = quiet) -> Store:
    """The slices at these places: on the GPU where they fit, else mapped."""
    mapped = Mapped(slices.array, device, slices.rows[places])
    if not fits_on_gpu(len(places) * slices.array[0].nbytes, device):
        return mapped
    rows = torch.empty((len(places), *slices.array.shape[1:]), dtype=torch.uint8, device=device)
    for start in range(0, len(places), CHUNK):
        chunk = torch.arange(start, min(start + CHUNK, len(places)))
        rows[start : start + CHUNK] = mapped.take(chunk)
        progress(start + len(chunk), len(places))
    return Resident(rows)


def fits_on_gpu(size: int, device: torch.device) -> bool:
    """Whether so many bytes may be kept on the device; never so on a CPU, where a map of the disk is as near."""
    return device.type == "cuda" and size <= SHARE_OF_GPU * torch.cuda.mem_get_info(device)[0]
