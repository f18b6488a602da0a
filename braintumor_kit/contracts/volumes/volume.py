"""What every volume gives: slices in order, each as it is shown."""

import hashlib
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from braintumor_kit.contracts.pictures import opened, printable
from braintumor_kit.errors import ImageError, InputError

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


@contextmanager
def damage_of(name: str) -> Iterator[None]:
    """What readers and decoders raise inside, of whatever kind, is the file's fault: nothing else runs there.

    Raises:
        ImageError: with the file's name and the reason.
    """
    try:
        with warnings.catch_warnings(action="ignore"), np.errstate(all="ignore"):
            yield
    except (ImageError, InputError):
        raise
    except Exception as error:
        words = " ".join(str(error).split())[:200] or type(error).__name__
        raise ImageError(f"{printable(name)} is cut off or damaged: {words}") from error


@lru_cache(maxsize=4)  # the slices of one file follow each other
def file_digest(path: Path) -> bytes:
    """SHA-256 of a file's bytes."""
    with opened(path) as file:
        return hashlib.file_digest(file, "sha256").digest()
