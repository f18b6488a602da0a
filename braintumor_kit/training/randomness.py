"""Every random draw of a training follows from (seed, epoch, step), so that it can go on from any step exactly."""

import keras
import numpy as np
import torch
from numpy.typing import NDArray

ORDER, AUGMENT, TORCH, FEATURES = range(4)
"""Purposes that draw at the same step and must not draw the same numbers."""


def state(seed: int, purpose: int, epoch: int, step: int = 0, rank: int = 0) -> int:
    """A 63-bit seed; of several processes in one step, each has its own."""
    words = np.random.SeedSequence([seed, purpose, epoch, step, *([rank] if rank else [])]).generate_state(1, np.uint64)
    return int(words[0] >> np.uint64(1))


def epoch_order(seed: int, epoch: int, size: int) -> NDArray[np.int64]:
    """The order in which an epoch visits its samples, a permutation of 0..size-1."""
    return np.random.default_rng(state(seed, ORDER, epoch)).permutation(size)


def augment_generator(seed: int, epoch: int, step: int, device: torch.device, rank: int = 0) -> torch.Generator:
    """The generator that a step's augmentation draws from."""
    return torch.Generator(device).manual_seed(state(seed, AUGMENT, epoch, step, rank))


def feature_generator(seed: int, view: int, first: int, device: torch.device) -> torch.Generator:
    """The generator that draws a view of the slices from number `first` on."""
    return torch.Generator(device).manual_seed(state(seed, FEATURES, view, first))


def seed_step(seed: int, epoch: int, step: int, rank: int = 0) -> None:
    """Seeds torch's own generators, which dropout draws from."""
    torch.manual_seed(state(seed, TORCH, epoch, step, rank))


def seed_everything(seed: int) -> None:
    """Seeds Python, NumPy, torch and Keras: the random weights of a network follow from it."""
    keras.utils.set_random_seed(seed)
