"""Cascading weight randomisation (Adebayo et al. 2018, arXiv 1810.03292): do maps depend on what the network learnt?

From the output back to the input, layer after layer loses its weights. A map that stays as it was shows the picture,
as an edge filter would, and explains nothing.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from braintumor_kit.explanation.localisation import relevance
from braintumor_kit.explanation.similarity import spearman
from braintumor_kit.model.fast import graph_of

LIMIT = 0.5
"""Mean similarity up to which maps count as changed once all weights are randomised."""

GROUPS = 6
STATISTICS = ("moving_mean", "moving_variance")
"""Names of what batch normalisation measures."""

MapsOf = Callable[[keras.Model], NDArray[np.floating]]
"""A model to the raw maps (n, H, W) of some slices, always the same slices and targets."""


@dataclass(frozen=True)
class Cascade:
    """How maps change as a network loses its weights.

    Attributes:
        groups: name of the first layer, counted from the output, of each group of layers randomised in turn.
        similarity: mean absolute rank correlation of the relevance with that of the whole network, 0..1, after each
            group and all before it are randomised.
        n: slices compared; those whose map was constant to begin with are left out.
    """

    groups: tuple[str, ...]
    similarity: tuple[float, ...]
    n: int

    @property
    def passed(self) -> bool | None:
        """Whether the maps of the network without any of its weights have changed enough; None where n is 0."""
        return self.similarity[-1] <= LIMIT if self.n and self.similarity else None


def cascade(maps_of: MapsOf, model: keras.Model, groups: int = GROUPS, seed: int = 0) -> Cascade:
    """Randomises a copy of the model group by group and compares the maps with the model's own.

    Raises:
        ValueError: where the model is not functional, or the maps change in shape.
    """
    original = relevance(np.asarray(maps_of(model)))
    says_something = np.ptp(original, axis=(1, 2)) > 0
    names, similarity = [], []
    for name, copy in randomised_copies(model, groups, seed):
        now = relevance(np.asarray(maps_of(copy)))
        alike = np.abs(spearman(original, now))[says_something]
        names.append(name)
        similarity.append(float(alike.mean()) if len(alike) else 0.0)
    return Cascade(tuple(names), tuple(similarity), int(says_something.sum()))


def randomised_copies(model: keras.Model, groups: int = GROUPS, seed: int = 0) -> Iterator[tuple[str, keras.Model]]:
    """A copy of the model that loses its weights from the output back to the input, the classifying layer first.

    Weights are shuffled, the values of each filter among themselves, so that they keep their distribution and lose
    what was learnt; values that are all the same thus stay. The caller's model is not touched.

    Args:
        model: functional, models inside it included.
        groups: the classifying layer alone, and the rest in groups - 1 parts of about as many layers each; fewer where
            there are fewer layers.

    Yields:
        Name of the group's first layer, counted from the output, and the copy: always the same one, changed further.

    Raises:
        ValueError: where the model is not functional.
    """
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    random = np.random.default_rng(seed)
    for group in _groups(_layers_from_output(copy), groups):
        for layer in group:
            layer.set_weights(list(_shuffled(layer, random)))
        yield group[0].name, copy


def _layers_from_output(model: keras.Model) -> list[Any]:
    """Layers that have weights, each once, at the last of its calls."""
    called = (call.layer for call in reversed(graph_of(model).calls))
    return list({id(layer): layer for layer in called if getattr(layer, "weights", None)}.values())


def _groups(layers: list[Any], count: int) -> list[list[Any]]:
    rest = layers[1:]
    ends = np.linspace(0, len(rest), max(min(count - 1, len(rest)), 1) + 1).round().astype(int)
    parts = [layers[:1], *(rest[start:end] for start, end in pairwise(ends))]
    return [part for part in parts if part]


def _shuffled(layer: Any, random: np.random.Generator) -> Iterator[NDArray[Any]]:
    """A layer's weights shuffled so that activations stay in range.

    Filters differ in size by orders of magnitude, and the statistics of batch normalisation fit the filter before
    them. Shuffled across filters, or the statistics too, each layer multiplies the mismatch: a 50-layer network reached
    scores of 1e25. So values stay in their filter, and statistics, which are measured and not learnt, as they are.
    """
    axes = 2 if hasattr(layer, "depth_multiplier") else 1  # the last of a kernel, which tell its filters apart
    for variable, weight in zip(layer.weights, layer.get_weights(), strict=True):
        values = weight.reshape(-1, math.prod(weight.shape[-axes:]))
        if variable.name in STATISTICS:
            yield weight
        elif len(values) > 1:
            yield random.permuted(values, axis=0).reshape(weight.shape)
        else:  # a vector, or filters of one value each
            yield random.permutation(values[0]).reshape(weight.shape)
