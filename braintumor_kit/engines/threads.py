"""How many threads torch works with in a process."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from joblib import cpu_count


def cores() -> int:
    """Of this machine, as many as this process may use."""
    return int(cpu_count())


def use_threads(count: int) -> None:
    """Has torch work with so many threads, whether it is imported or not yet."""
    os.environ["OMP_NUM_THREADS"] = str(count)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(count)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Inside, torch works with so many threads."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
