"""Independent random streams, and smooth random fields that can be asked anywhere."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
"""float32 wherever there is one a pixel."""


def stream(seed: int, *key: int) -> np.random.Generator:
    """The generator of one purpose; streams with different keys are independent of each other."""
    return np.random.default_rng(np.random.SeedSequence(entropy=seed, spawn_key=key))


def smoothstep(low: float | Floats, high: float | Floats, values: Floats) -> Floats:
    """0 below `low`, 1 above `high`, and a smooth cubic between; falling where `low` exceeds `high`."""
    t = np.clip((values - low) / (high - low), 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


@dataclass(frozen=True)
class Waves:
    """A smooth random field over space: a sum of plane waves, of zero mean and unit variance.

    Unlike a filtered noise volume it costs nothing to make and has no grid, border or memory; any set of
    points of a patient sees one and the same field.

    Attributes:
        vectors: wave vectors in radians a mm, float32 (channels, waves, 3).
        phases: in radians, float32 (channels, waves).
    """

    vectors: Floats
    phases: Floats

    @classmethod
    def draw(
        cls, rng: np.random.Generator, wavelengths: tuple[float, float], channels: int = 1, waves: int = 12
    ) -> Self:
        """Draws directions evenly over the sphere and wavelengths (mm) evenly in their logarithm."""
        directions = rng.normal(size=(channels, waves, 3))
        directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
        shortest, longest = np.log(wavelengths)
        lengths = np.exp(rng.uniform(shortest, longest, size=(channels, waves, 1)))
        phases = rng.uniform(0, 2 * np.pi, size=(channels, waves))
        return cls((2 * np.pi * directions / lengths).astype(np.float32), phases.astype(np.float32))

    def __call__(self, points: Floats) -> Floats:
        """The field at `points`, float32 (3, ...) in mm, as (channels, ...)."""
        flat = points.reshape(3, -1)
        total = np.zeros((self.phases.shape[0], flat.shape[1]), np.float32)
        for vector, phase in zip(self.vectors.swapaxes(0, 1), self.phases.T, strict=True):
            # einsum, not matmul: a threaded BLAS may round otherwise from one machine to the next.
            total += np.sin(np.einsum("cd,dn->cn", vector, flat) + phase[:, None])
        scale = np.float32(np.sqrt(2 / self.phases.shape[1]))
        return (scale * total).reshape(-1, *points.shape[1:])
