"""Synthetic pictures that resemble slices of heads, for tests that plant faults among them."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

TINY_NETWORK = """
[pixels]
image_size = 32
[backbone]
name = "two_layers"
[training]
epochs = 1
batch_size = 8
precision = "float32"
"""
"""The rest of a recipe: a network that is trained on heads in seconds; with the fixture `two_layers`."""

Picture = NDArray[np.uint8]
SIDE = 96


def head(seed: int) -> Picture:
    """A bright ellipse with structure of its own on black, uint8 (96, 96): two seeds never look alike."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j]
    radius = np.hypot(rows / random.uniform(0.72, 0.82), columns / random.uniform(0.6, 0.7))
    structure = sum(weight * _blurred(random, deviation) for deviation, weight in ((7, 1.0), (3, 0.8), (1.2, 0.3)))
    inside = np.where(radius < 0.92, 105 + 32 * structure, 190)
    return np.where(radius < 1, np.clip(inside, 20, 235), 0).astype(np.uint8)


def _blurred(random: np.random.Generator, deviation: float) -> NDArray[np.float64]:
    """Blurred noise of deviation 1."""
    noise = ndimage.gaussian_filter(random.normal(size=(SIDE, SIDE)), deviation)
    return np.asarray(noise / noise.std())


def save(picture: Picture, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path)
    return path


def add_heads(folder: Path, seeds: Iterable[int]) -> list[Path]:
    """Heads as PNG files, each named after its seed: head 7 is `007.png`."""
    return [save(head(seed), folder / f"{seed:03}.png") for seed in seeds]
