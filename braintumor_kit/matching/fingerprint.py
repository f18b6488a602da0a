"""A picture's perceptual fingerprint: its low spatial frequencies, whitened.

The discrete cosine transform of a small grey copy, its lowest coefficients weighted by their frequency and scaled to
unit length, so that the inner product of two fingerprints is a correlation of band-passed pictures. This is the
transform of pHash (Zauner, "Implementation and benchmarking of perceptual image hash functions", 2010) with the
coefficients kept instead of their signs. Recompression and resizing leave it nearly as it is, brightness too. A
mirrored picture has the same coefficients with every second sign changed and a transposed one has them transposed,
so the eight turns of a fingerprint cost no picture.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.fft import dctn

SIDE = 64
"""Of the thumbnails that fingerprints are computed from, in pixels: the whole picture stretched to a square."""

WORKING_SIDE = 32
"""Of the copy that is transformed."""

TURNS = (
    (False, False, False), (False, False, True), (False, True, False), (False, True, True),
    (True, False, False), (True, False, True), (True, True, False), (True, True, True),
)  # fmt: skip
"""The eight symmetries of the square: whether rows and columns are exchanged, then whether rows are read from the
bottom, then whether columns are read from the right."""

TURN_NAMES = (
    "not turned; other grey levels, size, crop or compression",
    "mirrored left to right",
    "mirrored top to bottom",
    "rotated by 180 degrees",
    "mirrored along a diagonal",
    "rotated by 90 degrees",
    "rotated by 90 degrees",
    "mirrored along a diagonal",
)
"""What a picture went through that has to be turned so to be upright."""

CROP = 0.04
CROPS = (
    (0.0, 0.0, 0.0, 0.0),
    (CROP / 2, CROP / 2, CROP / 2, CROP / 2),
    (CROP, CROP, CROP, CROP),
    (CROP, CROP, 0.0, 0.0),
    (CROP, 0.0, 0.0, CROP),
    (0.0, CROP, CROP, 0.0),
    (0.0, 0.0, CROP, CROP),
)
"""What is cut off at the top, left, bottom and right, as fractions: cropped copies lie near one of these."""

WIDENED = tuple(tuple(-side for side in crop) for crop in CROPS[1:])
"""What is added there, the edge repeated: what copies were cropped from lies near one of these."""

FLAT = 2.0
"""A thumbnail whose grey levels deviate by less has nothing to be recognised by."""


def fingerprints(thumbnails: NDArray[np.uint8], order: int, crop: tuple[float, ...] = CROPS[0]) -> NDArray[np.float32]:
    """Fingerprints of thumbnails.

    Args:
        thumbnails: (N, 64, 64), grey.
        order: how many frequencies are kept along each axis.
        crop: what is cut off first, or added where it is negative.

    Returns:
        (N, order, order), each of unit length; zero for thumbnails without contrast.
    """
    small = _cropped(torch.from_numpy(np.ascontiguousarray(thumbnails)), crop).numpy()
    coefficients = dctn(small, axes=(1, 2), norm="ortho")[:, :order, :order]
    frequency = np.hypot(*np.indices((order, order)))  # zero for the mean, which says nothing of the content
    weighted = (coefficients * frequency).astype(np.float32)
    length = np.linalg.norm(weighted.reshape(len(weighted), -1), axis=1)
    length[small.std(axis=(1, 2)) < FLAT] = np.inf
    return weighted / length[:, None, None]


def _cropped(thumbnails: torch.Tensor, crop: tuple[float, ...]) -> torch.Tensor:
    """The rest of each picture when `crop` is cut off, float32 (N, 32, 32), sampled bilinearly: each of the 2 x 2
    pixels that meet in a cell counts alike where nothing is cut off."""
    top, left, bottom, right = crop
    scale = torch.tensor([[1 - left - right, 0, left - right], [0, 1 - top - bottom, top - bottom]])
    pictures = thumbnails[:, None].float()
    shape = (len(pictures), 1, WORKING_SIDE, WORKING_SIDE)
    grid = F.affine_grid(scale.expand(len(pictures), 2, 3), list(shape), align_corners=False)
    return F.grid_sample(pictures, grid, padding_mode="border", align_corners=False)[:, 0]


def turned(prints: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    """The fingerprints (N, order, order) of the pictures in each of the eight `TURNS`, in their order."""
    signs = (-1.0) ** np.arange(prints.shape[1], dtype=np.float32)
    for exchange, rows, columns in TURNS:
        result = prints.transpose(0, 2, 1) if exchange else prints
        if rows:
            result = result * signs[:, None]
        if columns:
            result = result * signs
        yield result


def turn_pictures(pictures: torch.Tensor, turn: int) -> torch.Tensor:
    """Pictures (N, H, W) in one of the eight turns."""
    exchange, rows, columns = TURNS[turn]
    axes = [axis for axis, reverse in ((1, rows), (2, columns)) if reverse]
    return torch.flip(pictures.transpose(1, 2) if exchange else pictures, axes)


def variants(
    thumbnails: NDArray[np.uint8], order: int, crops: Sequence[tuple[float, ...]] = CROPS
) -> NDArray[np.float32]:
    """Fingerprints of every crop in every turn, flat: (N, crops x turns, order x order); the turn of variant v is
    v % 8."""
    pieces = [piece for crop in crops for piece in turned(fingerprints(thumbnails, order, crop))]
    return np.stack([piece.reshape(len(thumbnails), -1) for piece in pieces], axis=1)
