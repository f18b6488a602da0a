"""Pictures that a caller in Python has: arrays of any kind of number, or paths of files, prepared as all others are."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from braintumor_kit.contracts.pictures import read_picture, to_uint16
from braintumor_kit.data.pixels import prepare
from braintumor_kit.errors import InputError
from braintumor_kit.recipe.tables import PixelsTable

Images = NDArray[Any] | Sequence[ArrayLike | str | os.PathLike[str]]
"""An array (N, H, W) or (N, H, W, 3), or a list of pictures (H, W[, 3]) or of paths, not necessarily of one size."""


def prepared(images: Images, pixels: PixelsTable) -> NDArray[np.uint8]:
    """Pictures as a network takes them, uint8 (N, S, S, C).

    Args:
        images: uint8 is taken as 0..255; every other kind of number is stretched to that from each picture's own
            range, as 16-bit files are.

    Raises:
        InputError: where something is no picture; ImageError where a file cannot be read.
    """
    if hasattr(images, "tocsr"):
        raise InputError("sparse matrices are not supported: pictures are wanted, (N, H, W) or (N, H, W, 3).")
    found = np.empty((len(images), *pixels.shape), np.uint8)
    for number, picture in enumerate(pictures_of(images)):
        found[number] = prepare(picture, pixels)
    return found


def pictures_of(images: Images) -> Iterator[NDArray[Any]]:
    """One picture at a time, uint8 or uint16, (H, W) or (H, W, 3).

    Raises:
        InputError: as `prepared`.
    """
    if isinstance(images, np.ndarray) and images.dtype != object and images.dtype.kind not in "US":
        _check_batch(images)
    for number, image in enumerate(images):
        if isinstance(image, str | os.PathLike):
            yield read_picture(Path(image))
        else:
            yield _picture(np.asarray(image), number)


def _check_batch(images: NDArray[Any]) -> None:
    if images.ndim not in (3, 4):
        raise InputError(
            f"pictures are wanted, (N, H, W) or (N, H, W, 3), and this is {images.dtype} {images.shape}. Reshape your "
            "data, for example X.reshape(-1, H, W)."
        )


def _picture(image: NDArray[Any], number: int) -> NDArray[Any]:
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[..., 0]
    if image.dtype.kind == "c":
        raise InputError(f"Complex data not supported: picture {number} is {image.dtype}.")
    if image.dtype.kind not in "uifb" or not (image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3)):
        raise InputError(f"picture {number} is {image.dtype} {image.shape}; numbers (H, W) or (H, W, 3) are wanted.")
    if image.size == 0:
        raise InputError(f"picture {number} has no pixels: it is {image.shape}.")
    if image.dtype in (np.uint8, np.uint16):
        return image
    try:
        return to_uint16(image.astype(np.float64))
    except ValueError as error:
        raise InputError(f"picture {number} has pixels that are not finite (NaN or inf).") from error
