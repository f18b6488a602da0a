"""Memory for activations that is kept between steps."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4  # mallopt's parameters (malloc.h)


@contextmanager
def kept_memory() -> Iterator[None]:
    """Inside, the C library keeps freed memory for the next step.

    A step of training on a CPU allocates and frees some gigabytes of activations, in blocks of up to 50 MB. glibc maps
    each block anew, and the kernel clears it page by page: a quarter of a step of ResNet-18. Held in the heap instead,
    blocks are used again as they are. What is held is given back at the end. Other C libraries are left alone.
    """
    mallopt, trim = _glibc("mallopt"), _glibc("malloc_trim")
    if mallopt is None or trim is None:
        yield
        return
    mallopt(_MMAP_MAX, 0)
    mallopt(_TRIM_THRESHOLD, 2**31 - 1)
    try:
        yield
    finally:
        mallopt(_MMAP_MAX, 65536)  # what glibc begins with, and below where its moving thresholds end (malloc(3))
        mallopt(_MMAP_THRESHOLD, 32 * 2**20)
        mallopt(_TRIM_THRESHOLD, 64 * 2**20)
        trim(0)


def _glibc(name: str) -> "ctypes._NamedFuncPointer | None":
    library = ctypes.CDLL(None)
    return getattr(library, name, None) if hasattr(library, "gnu_get_libc_version") else None
