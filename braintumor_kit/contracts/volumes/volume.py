"""What every volume gives: slices in order, each as it is shown."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

PLANES: Mapping[str, str] = {"axial": "LPS", "coronal": "LIP", "sagittal": "PIR"}
"""Where columns, rows and slices of each plane go: towards the body's Left or Right, Posterior or Anterior, Superior or
Inferior."""

MAX_VOXELS = 2**27
"""Of one volume: 512 x 512 x 512."""

MAX_BYTES = 2**29
"""Of the stored voxels of one volume."""


class Volume(ABC):
    """Slices that lie one behind the other.

    Attributes:
        name: as the user names it: a file, or a folder.
    """

    name: str

    @property
    @abstractmethod
    def names(self) -> Sequence[str]:
        """Of each slice, in order; unlike those of other volumes.

        Raises:
            ImageError: where the volume cannot be read.
        """

    @abstractmethod
    def picture(self, place: int) -> NDArray[Any]:
        """One slice as it is shown: uint8 or uint16, (H, W) for grey, (H, W, 3) for RGB.

        Raises:
            ImageError: where it cannot be read.
        """

    def __len__(self) -> int:
        return len(self.names)


def shown(values: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    """Values low..high on 0..255, rounded; what lies beyond is clipped, and what is not finite is black.

    Where `low` and `high` are one, all is black.
    """
    if not high > low:
        return np.zeros(values.shape, np.uint8)
    scaled = (values.astype(np.float64) - low) / (high - low) * 255
    return np.rint(np.nan_to_num(scaled, nan=0.0, posinf=0.0, neginf=0.0).clip(0, 255)).astype(np.uint8)


def finite_range(values: NDArray[Any]) -> tuple[float, float] | None:
    """The lowest and highest of the finite values; None where there are none."""
    if values.dtype.kind == "f":
        values = values[np.isfinite(values)]
    return (float(values.min()), float(values.max())) if values.size else None
