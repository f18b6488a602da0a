"""Helper for authors whose libraries draw from the random numbers of the process, which plugins have to leave alone.

A plugin of its own making takes `numpy.random.default_rng(seed)` or `torch.Generator` instead.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Inside, the random numbers of Python, NumPy and torch begin at `seed`, 0..2**32 - 1; after, and after an error
    too, they go on as if nothing had been drawn."""
    before = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])
