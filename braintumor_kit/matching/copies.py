"""Copies within a collection: which pictures are identical, which are near-duplicates, what hangs together."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components

from braintumor_kit.matching.alignment import similarity
from braintumor_kit.matching.candidates import candidates
from braintumor_kit.matching.fingerprint import turn_pictures

SAME = 0.975
"""Similarity from which two pictures are copies. Neighbouring slices of one patient reach 0.97 now and then."""

_AT_ONCE = 256

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Copies:
    """Copies among N pictures.

    Attributes:
        identical: the set of pixel-identical pictures that each belongs to, (N,), numbered from 0.
        first, second: near-duplicate pairs (P,), as numbers of such sets.
        turn: how a picture of `first` is turned to lie on one of `second`, (P,).
        similarity: of each pair, (P,).
    """

    identical: NDArray[np.int64]
    first: NDArray[np.int64]
    second: NDArray[np.int64]
    turn: NDArray[np.int64]
    similarity: NDArray[np.float32]

    @property
    def sets(self) -> int:
        """How many different pictures there are, to the pixel."""
        return int(self.identical.max()) + 1

    @property
    def graph(self) -> csr_array:
        """Which sets are near-duplicates of which, (sets, sets), symmetric, without themselves."""
        rows, columns = np.concatenate([self.first, self.second]), np.concatenate([self.second, self.first])
        return csr_array(coo_array((np.ones(len(rows)), (rows, columns)), shape=(self.sets, self.sets)))

    def components(self, groups: Sequence[str | None] | None = None) -> NDArray[np.int64]:
        """The connected component of each picture, (N,): copies of copies belong together.

        Args:
            groups: the patient of each picture where known; a patient's pictures belong together too.
        """
        pictures = len(self.identical)
        links = [(np.arange(pictures), pictures + self.identical)]
        links.append((pictures + self.first, pictures + self.second))
        known = [(place, group) for place, group in enumerate(groups or ()) if group is not None]
        if known:
            _, number = np.unique(np.array([group for _, group in known]), return_inverse=True)
            links.append((np.array([place for place, _ in known]), pictures + self.sets + number))
        rows, columns = (np.concatenate(side) for side in zip(*links, strict=True))
        size = pictures + self.sets + len(known)
        graph = coo_array((np.ones(len(rows), np.int8), (rows, columns)), shape=(size, size))
        _, labels = connected_components(graph, directed=False)
        _, numbered = np.unique(labels[:pictures], return_inverse=True)
        return numbered.astype(np.int64)


def find_copies(
    thumbnails: NDArray[np.uint8], digests: NDArray[np.void], progress: Callable[[str], Progress] | None = None
) -> Copies:
    """Finds identical and near-duplicate pictures.

    Args:
        thumbnails: uint8 (N, 64, 64), grey, the whole picture stretched to a square.
        digests: of each picture's pixels, (N,).
        progress: asked by a title for what is called with (done, total).
    """
    _, where, identical = np.unique(digests, return_index=True, return_inverse=True)
    order = np.argsort(np.argsort(where))  # sets in the order of their first pictures
    identical, where = order[identical], np.sort(where)
    tell = progress or (lambda title: lambda done, total: None)
    pairs = candidates(thumbnails, where, tell("looking for alike pictures"))
    sides = where[pairs.first], where[pairs.second]
    scores = _compared(thumbnails, *sides, pairs.turn, tell("comparing pairs"))
    same = scores >= SAME
    return Copies(identical.astype(np.int64), pairs.first[same], pairs.second[same], pairs.turn[same], scores[same])


def _compared(
    thumbnails: NDArray[np.uint8],
    first: NDArray[np.int64],
    second: NDArray[np.int64],
    turn: NDArray[np.int64],
    progress: Progress,
) -> NDArray[np.float32]:
    """Similarity of each pair, (P,)."""
    scores = np.zeros(len(first), np.float32)
    done = 0
    for which in range(8):
        places = np.flatnonzero(turn == which)
        for start in range(0, len(places), _AT_ONCE):
            chosen = places[start : start + _AT_ONCE]
            one, other = (torch.from_numpy(thumbnails[side[chosen]]).float() for side in (first, second))
            with torch.inference_mode():
                scores[chosen] = similarity(turn_pictures(one, which), other).numpy()
            done += len(chosen)
            progress(done, len(first))
    return scores
