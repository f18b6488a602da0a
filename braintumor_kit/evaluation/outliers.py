"""How far a picture lies from what a network was trained on, by what its layers make of it.

Each layer's features are standardised and their 32 principal directions found on training slices. A picture is far
by its Mahalanobis distance within these directions (at several layers: Lee et al. 2018, arXiv 1807.03888) and by what
lies outside of them (Ndiour et al. 2020, "Out-of-distribution detection with subspace techniques and probabilistic
modeling of features"). Early layers tell photographs, noise and inverted scans best: the score is the mean over all.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from braintumor_kit.errors import InputError

DIRECTIONS = 32
FLOOR = 1e-3
"""Of a feature's deviation, as a share of the layer's: features that hardly vary must not outweigh all others."""

_HUGE, _TINY = 1e30, 1e-30
"""Beyond what any layer makes: their squares and quotients are still numbers of 64 bits."""

Features = Sequence[NDArray[np.float32]]
"""Of N pictures, (N, D) a layer."""


@dataclass(frozen=True)
class Layer:
    """What training slices look like to one layer.

    Attributes:
        mean, scale: of its features, (D,).
        directions: principal directions over their deviations, (K, D).
        spread: of the directions, (K,).
    """

    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    directions: NDArray[np.float64]
    spread: NDArray[np.float64]

    @classmethod
    def fitted(cls, features: NDArray[np.float32]) -> "Layer":
        from sklearn.decomposition import PCA  # heavy, and only fitting needs it

        mean, deviation = features.mean(axis=0, dtype=np.float64), features.std(axis=0, dtype=np.float64)
        scale = deviation + FLOOR * (float(features.std()) + 1e-12)
        kept = max(1, min(DIRECTIONS, len(features), features.shape[1] // 2))  # something must lie outside of them
        with warnings.catch_warnings(action="ignore"):  # of features that do not vary at all
            found = PCA(kept, svd_solver="randomized", random_state=0).fit((features - mean) / scale)
        spread = np.sqrt(found.explained_variance_)
        return cls(mean, scale, found.components_.astype(np.float64), np.maximum(spread, 1e-6))

    def distances(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """Logarithms of the mean squared distance within the directions and of that outside of them, (N, 2)."""
        standard = (features - self.mean) / self.scale
        within = standard @ self.directions.T
        outside = standard - within @ self.directions
        squares = [((within / self.spread) ** 2).mean(axis=1), (outside**2).mean(axis=1)]
        return np.log(np.maximum(np.column_stack(squares), 1e-12))


@dataclass(frozen=True)
class OutlierDetector:
    """Scores pictures: 0 is usual, 1 as far as one slice in twenty of those it was adjusted to.

    Attributes:
        layers: in the order of the features.
        middle, reach: of each distance on the slices that it was adjusted to: median, and from there to the 95th
            percentile, (2 x layers,).
    """

    layers: tuple[Layer, ...]
    middle: NDArray[np.float64]
    reach: NDArray[np.float64]

    @classmethod
    def fitted(cls, training: Features, validation: Features) -> "OutlierDetector":
        """Fitted to training slices, and adjusted to others that the network was not trained on."""
        layers = tuple(Layer.fitted(features) for features in training)
        distances = _distances(layers, validation)
        middle, high = np.percentile(distances, [50, 95], axis=0)
        return cls(layers, middle, np.maximum(high - middle, 1e-6))

    def scores(self, features: Features) -> NDArray[np.float64]:
        """Of N pictures, (N,).

        Raises:
            InputError: where the features are those of another network.
        """
        if [values.shape[1] for values in features] != [len(layer.mean) for layer in self.layers]:
            raise InputError("what tells pictures unlike the training (certainty.npz) was made for another network.")
        return np.asarray(((_distances(self.layers, features) - self.middle) / self.reach).mean(axis=1))

    def arrays(self) -> dict[str, NDArray[np.float64]]:
        """All of it as named arrays."""
        named = {"middle": self.middle, "reach": self.reach}
        for number, layer in enumerate(self.layers):
            for name in Layer.__dataclass_fields__:
                named[f"{number}.{name}"] = getattr(layer, name)
        return named

    @classmethod
    def of_arrays(cls, named: Mapping[str, NDArray[np.float64]]) -> "OutlierDetector":
        """From what `arrays` gave.

        Raises:
            KeyError: where an array is missing.
            ValueError: where one has another shape, or a value that none can have.
        """
        middle, reach = named["middle"], named["reach"]
        layers = tuple(
            Layer(*(named[f"{number}.{name}"] for name in Layer.__dataclass_fields__))
            for number in range(middle.size // 2)
        )
        for layer in layers:
            size, directions = layer.mean.size, layer.spread.size
            shapes = [value.shape for value in (layer.mean, layer.scale, layer.directions, layer.spread)]
            if shapes != [(size,), (size,), (directions, size), (directions,)] or not size or not directions:
                raise ValueError("shapes that do not fit each other")
        if not layers or {middle.shape, reach.shape} != {(2 * len(layers),)}:
            raise ValueError("shapes that do not fit each other")
        if len(named) != 2 + len(layers) * len(Layer.__dataclass_fields__):
            raise ValueError("arrays of other names")
        if not all((np.abs(value) < _HUGE).all() for value in named.values()):  # false of what is no number
            raise ValueError("values that are not finite, or too large")
        deviations = [reach, *(layer.scale for layer in layers), *(layer.spread for layer in layers)]
        if any(value.min() < _TINY for value in deviations):
            raise ValueError("a deviation that is not positive")
        return cls(layers, middle, reach)


def _distances(layers: Sequence[Layer], features: Features) -> NDArray[np.float64]:
    return np.hstack([layer.distances(values) for layer, values in zip(layers, features, strict=True)])
