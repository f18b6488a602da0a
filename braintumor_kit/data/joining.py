"""What belongs together, directly or by way of others."""

from collections.abc import Hashable, Sequence

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


def joined(*keys: Sequence[Hashable]) -> list[int]:
    """The number of the set of each place: places that share a key of one kind or another belong together.

    Args:
        keys: of each kind, one a place.
    """
    count = len(keys[0])
    numbers: dict[Hashable, int] = {}
    links = [
        (place, numbers.setdefault((kind, key), count + len(numbers)))
        for kind, of_places in enumerate(keys)
        for place, key in enumerate(of_places)
    ]
    rows, columns = np.array(links, dtype=np.int64).reshape(-1, 2).T
    size = count + len(numbers)
    graph = coo_array((np.ones(len(rows), np.int8), (rows, columns)), shape=(size, size))
    sets: list[int] = connected_components(graph, directed=False)[1][:count].tolist()
    return sets
