"""How alike maps are: rank correlation, which cares neither for their scale nor for how they are normalised."""

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from braintumor_kit.explanation.localisation import relevance

SIDE = 56
"""Maps are averaged down to at most this many rows and columns before methods are compared, for speed."""


def spearman(a: NDArray[np.floating], b: NDArray[np.floating]) -> NDArray[np.float64]:
    """Spearman's rank correlation of maps (..., H, W), one value each (...), with average ranks for ties.

    0 where a map is constant or not finite: it then says nothing of the other.

    Raises:
        ValueError: where the shapes differ.
    """
    if a.shape != b.shape:
        raise ValueError(f"maps of shapes {a.shape} and {b.shape}: expected the same.")
    x, y = (_centred_ranks(maps.reshape(*maps.shape[:-2], -1)) for maps in (a, b))
    size = np.sqrt((x * x).sum(axis=-1) * (y * y).sum(axis=-1))
    return np.divide((x * y).sum(axis=-1), size, out=np.zeros(a.shape[:-2]), where=size > 0)


def agreement(maps: Mapping[str, NDArray[np.float32]]) -> dict[str, float]:
    """Rank correlation of the relevance of each two methods for one slice, by "a/b".

    Args:
        maps: raw, (H, W) each, by method.
    """
    small = {name: averaged_down(relevance(raw)) for name, raw in maps.items()}
    return {f"{a}/{b}": float(spearman(small[a], small[b])) for a, b in combinations(small, 2)}


def mean_agreement(slices: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each pair over those slices that have it."""
    pairs = dict.fromkeys(pair for one in slices for pair in one)
    return {pair: float(np.mean([one[pair] for one in slices if pair in one])) for pair in pairs}


def averaged_down(whole: NDArray[np.float32], side: int = SIDE) -> NDArray[np.float32]:
    """A map (H, W) as means of equal blocks, at most `side` rows and columns; the last ones may be smaller."""
    for axis, size in enumerate(whole.shape):
        starts = np.arange(0, size, -(-size // side))
        count = np.diff(starts, append=size)
        whole = (np.add.reduceat(whole, starts, axis=axis) / np.expand_dims(count, 1 - axis)).astype(np.float32)
    return whole


def _centred_ranks(flat: NDArray[np.floating]) -> NDArray[np.float64]:
    """Ranks (..., P) less their mean; all 0 where a value is not finite."""
    finite = np.isfinite(flat).all(axis=-1, keepdims=True)
    ranks = rankdata(np.where(finite, flat, 0), axis=-1)
    return ranks - (flat.shape[-1] + 1) / 2
