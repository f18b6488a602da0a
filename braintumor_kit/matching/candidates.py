"""Pairs of pictures whose fingerprints are alike in one of the turns and crops.

Up to `EXACT` pictures every pair is compared, and of each picture the `MOST` most alike are kept. Larger sets go
through an index of inverted lists (faiss, `IndexIVFScalarQuantizer`): each fingerprint is compared with those that lie
near it only. There a pair can be missed; each is looked for in both directions and in every turn and crop, so few are.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from braintumor_kit.matching.fingerprint import TURNS, fingerprints, variants

ORDER = 12
ALIKE = 0.90
"""Correlation of fingerprints from which a pair is looked at. Copies lie above 0.94 (measured on 4,800 copies of 400
real slices: mirrored, turned, rescaled, recompressed, brightened until they clip, cropped)."""

MOST = 200
"""Candidates of one picture that are looked at, the most alike first."""

EXACT = 25_000
_PROBES = 16
_NEIGHBOURS = 50
_BLOCK = 16


class Candidates(NamedTuple):
    """Pairs that may be copies.

    Attributes:
        first, second: numbers of the pictures, (P,); no pair stands twice, in either direction.
        turn: how `first` has to be turned to lie on `second`, (P,), a place in `TURNS`.
    """

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    turn: NDArray[np.int64]


Search = Callable[[NDArray[np.float32]], tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]]
"""From variants (B, V, D) of pictures to likeness, number and turn of their candidates, (B, K) each."""


def candidates(
    thumbnails: NDArray[np.uint8],
    places: NDArray[np.int64],
    progress: Callable[[int, int], None],
    exact: int = EXACT,
) -> Candidates:
    """Pairs that may be copies of each other among the thumbnails (N, 64, 64) at these places, (M,)."""
    total = len(places)
    search = _all_pairs(thumbnails, places) if total <= exact else _index(thumbnails, places)
    best: dict[tuple[int, int], tuple[float, int, int, int]] = {}
    for start in range(0, total, _BLOCK):
        likeness, entries, turns = search(variants(thumbnails[places[start : start + _BLOCK]], ORDER))
        for row, column in np.argwhere(likeness > ALIKE):
            query, target = start + int(row), int(entries[row, column])
            key = (min(query, target), max(query, target))
            found = float(likeness[row, column])
            if query != target and (key not in best or best[key][0] < found):
                best[key] = (found, query, target, int(turns[row, column]))
        progress(min(start + _BLOCK, total), total)
    table = np.array([best[key][1:] for key in sorted(best)], dtype=np.int64).reshape(-1, 3)
    return Candidates(table[:, 0], table[:, 1], table[:, 2])


def _blocks(
    thumbnails: NDArray[np.uint8], places: NDArray[np.int64], size: int = 1024
) -> Iterator[NDArray[np.float32]]:
    """Upright fingerprints, flat, block by block."""
    for start in range(0, len(places), size):
        yield fingerprints(thumbnails[places[start : start + size]], ORDER).reshape(-1, ORDER * ORDER)


def _all_pairs(thumbnails: NDArray[np.uint8], places: NDArray[np.int64]) -> Search:
    base = torch.from_numpy(np.concatenate(list(_blocks(thumbnails, places)))).T.contiguous()
    most = min(MOST + 1, len(places))

    def search(queries: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
        likeness, variant = (torch.from_numpy(queries) @ base).max(dim=1)
        top, entries = likeness.topk(most, dim=1)
        return top.numpy(), entries.numpy(), (variant.gather(1, entries) % len(TURNS)).numpy()

    return search


def _index(thumbnails: NDArray[np.uint8], places: NDArray[np.int64]) -> Search:
    index = _trained_index(thumbnails, places)
    for block in _blocks(thumbnails, places):
        index.add(block)

    def search(queries: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
        count, several, size = queries.shape
        likeness, entries = index.search(queries.reshape(-1, size), _NEIGHBOURS)
        turns = np.repeat(np.arange(several) % len(TURNS), _NEIGHBOURS)
        return likeness.reshape(count, -1), entries.reshape(count, -1), np.tile(turns, (count, 1))

    return search


def _trained_index(thumbnails: NDArray[np.uint8], places: NDArray[np.int64]) -> Any:
    """An empty index with its lists laid out on an even sample of the set."""
    import faiss

    lists = int(4 * len(places) ** 0.5)
    sample = places[:: max(1, len(places) // (40 * lists))]
    index = faiss.IndexIVFScalarQuantizer(
        faiss.IndexFlatIP(ORDER * ORDER), ORDER * ORDER, lists, faiss.ScalarQuantizer.QT_fp16,
        faiss.METRIC_INNER_PRODUCT,
    )  # fmt: skip
    index.train(np.concatenate(list(_blocks(thumbnails, sample))))
    index.nprobe = _PROBES
    return index
