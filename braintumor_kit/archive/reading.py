"""Pictures of an archive, read from wherever they lie."""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from braintumor_kit.archive.listing import Entry, file_system, is_address
from braintumor_kit.contracts.pictures import read_picture
from braintumor_kit.errors import ImageError

LARGEST = 2**27
"""Bytes of a stored picture; more are refused."""

WAITS = (0.2, 1.0, 5.0)
"""Seconds before a picture is asked for again: object stores refuse now and then what they give a moment later."""

FINAL = (FileNotFoundError, PermissionError, IsADirectoryError)
"""What asking again would not change."""

AT_ONCE = 8
"""Pictures that are read at a time: object stores answer slowly and many at once."""


class _Stored(BytesIO):
    """The content of a stored picture; messages name it by its address."""

    def __init__(self, content: bytes, name: str) -> None:
        super().__init__(content)
        self.name = name


def read_entry(entry: Entry) -> NDArray[Any]:
    """One picture as it is stored.

    Raises:
        ImageError: where it cannot be read.
    """
    if not is_address(entry.place):
        return read_picture(Path(entry.place))
    content = _fetched(entry.place)
    if len(content) > LARGEST:
        raise ImageError(f"{entry.place} has more than the {LARGEST >> 20} MiB that are allowed")
    return read_picture(_Stored(content, entry.place))


def _fetched(place: str) -> bytes:
    """The content at an address, asked for more than once where need be."""
    system, name = file_system(place)
    for wait in (*WAITS, None):
        try:
            content: bytes = system.cat_file(name, start=0, end=LARGEST + 1)
            return content
        except Exception as error:  # each file system has errors of its own
            if wait is None or isinstance(error, FINAL):
                raise ImageError(f"{place} cannot be read: {error or type(error).__name__}") from error
            time.sleep(wait)
    raise AssertionError("the last attempt returns or raises")


def read_entries(entries: Sequence[Entry], pool: ThreadPoolExecutor) -> list[NDArray[np.generic] | str]:
    """Pictures in order; in the place of one that cannot be read, why."""

    def read(entry: Entry) -> NDArray[Any] | str:
        try:
            return read_entry(entry)
        except ImageError as error:
            return str(error)

    return list(pool.map(read, entries))
