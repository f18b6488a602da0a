"""What happens to slices on other scanners and on their way here, in five grades: the protocol of ImageNet-C (Hendrycks
and Dietterich 2019, arXiv 1903.12261) with what is typical of MRI in place of weather.

Every change is drawn from a seed, so a slice is always changed the same way, at every severity in the same direction.
"""

from collections.abc import Callable, Mapping
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

SEVERITIES = 5
REFERENCE_SIDE = 224
"""Lengths below are in pixels of a picture of this side."""

Picture = NDArray[np.float32]
Corruption = Callable[[Picture, int, np.random.Generator], Picture]
"""From grey levels (S, S) in 0..255, a severity from 1 to 5 and a generator to other grey levels."""


def _at(values: tuple[float, ...], severity: int) -> float:
    return values[severity - 1]


def rician_noise(picture: Picture, severity: int, random: np.random.Generator) -> Picture:
    """The magnitude of a complex signal with Gaussian noise on both channels (Gudbjartsson and Patz 1995)."""
    deviation = 255 * _at((0.02, 0.04, 0.07, 0.11, 0.16), severity)
    real, imaginary = random.normal(0, deviation, (2, *picture.shape))
    return np.hypot(picture + real, imaginary).astype(np.float32)


def bias_field(picture: Picture, severity: int, random: np.random.Generator) -> Picture:
    """A smooth gain, the exponential of a polynomial of second order in both directions."""
    rows, columns = np.meshgrid(*(np.linspace(-1, 1, side) for side in picture.shape), indexing="ij")
    terms = np.stack([rows, columns, rows * columns, rows**2, columns**2])
    field = np.tensordot(random.uniform(-1, 1, len(terms)), terms, axes=1)
    field *= _at((0.15, 0.3, 0.5, 0.7, 0.95), severity) / max(float(np.abs(field).max()), 1e-6)
    return (picture * np.exp(field)).astype(np.float32)


def motion_ghosting(picture: Picture, severity: int, random: np.random.Generator) -> Picture:
    """Every third or so line of k-space from a head that was moved: copies of it along the phase direction."""
    axis, every = int(random.integers(2)), int(random.integers(2, 5))
    distance = _at((1.0, 2.0, 3.5, 5.0, 8.0), severity) * picture.shape[axis] / REFERENCE_SIDE
    still = np.fft.fft2(picture)
    moved = ndimage.fourier_shift(still, [distance if place == axis else 0.0 for place in range(2)])
    lines = np.arange(picture.shape[axis]) % every == 0
    mask = lines[:, None] if axis == 0 else lines[None, :]
    return np.abs(np.fft.ifft2(np.where(mask, moved, still))).astype(np.float32)


def blur(picture: Picture, severity: int, random: np.random.Generator) -> Picture:
    """Gaussian."""
    deviation = _at((0.6, 1.0, 1.6, 2.4, 3.5), severity) * picture.shape[0] / REFERENCE_SIDE
    return np.asarray(ndimage.gaussian_filter(picture, deviation), dtype=np.float32)


def contrast(picture: Picture, severity: int, random: np.random.Generator) -> Picture:
    """A gamma above or below one, and less range."""
    gamma = _at((1.15, 1.35, 1.6, 2.0, 2.6), severity) ** float(random.choice([-1, 1]))
    share = _at((0.95, 0.85, 0.75, 0.6, 0.45), severity)
    return (255 * share * (np.clip(picture, 0, 255) / 255) ** gamma).astype(np.float32)


def rotation(picture: Picture, severity: int, random: np.random.Generator) -> Picture:
    """About the middle, either way; what comes in is black."""
    angle = _at((4, 8, 13, 20, 30), severity) * float(random.choice([-1, 1]))
    return np.asarray(ndimage.rotate(picture, angle, reshape=False, order=1, cval=0.0), dtype=np.float32)


def low_resolution(picture: Picture, severity: int, random: np.random.Generator) -> Picture:
    """Averaged to fewer pixels and stretched again."""
    side = max(4, round(picture.shape[0] / _at((1.5, 2, 3, 4.5, 7), severity)))
    small = Image.fromarray(picture).resize((side, side), Image.Resampling.BILINEAR)
    return np.asarray(small.resize(picture.shape[::-1], Image.Resampling.BICUBIC), dtype=np.float32)


def jpeg(picture: Picture, severity: int, random: np.random.Generator) -> Picture:
    """Recompressed, at qualities from 60 to 6."""
    content = BytesIO()
    quality = int(_at((60, 40, 25, 13, 6), severity))
    Image.fromarray(np.rint(picture).clip(0, 255).astype(np.uint8)).save(content, "JPEG", quality=quality)
    return np.asarray(Image.open(content), dtype=np.float32)


CORRUPTIONS: Mapping[str, Corruption] = {
    "rician_noise": rician_noise,
    "bias_field": bias_field,
    "motion_ghosting": motion_ghosting,
    "blur": blur,
    "contrast": contrast,
    "rotation": rotation,
    "low_resolution": low_resolution,
    "jpeg": jpeg,
}


def corrupted(pictures: NDArray[np.uint8], name: str, severity: int, seeds: NDArray[Any]) -> NDArray[np.uint8]:
    """Pictures (N, S, S, C), each changed by its own seed; the channels of one alike."""
    change = CORRUPTIONS[name]
    result = np.empty_like(pictures)
    for place, picture in enumerate(pictures):
        for channel in range(picture.shape[-1]):
            random = np.random.default_rng(int(seeds[place]))
            changed = change(picture[..., channel].astype(np.float32), severity, random)
            result[place, ..., channel] = np.rint(changed).clip(0, 255)
    return result
