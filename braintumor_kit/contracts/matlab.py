"""Helper for authors of sources: reads arrays from MATLAB v7.3 files, which are HDF5.

    with open_mat(path) as mat:
        image = mat.array("cjdata/image", max_values=2**24)

Nothing is followed out of the file: links to other files and data stored elsewhere are refused, and sizes are
checked before anything is read.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np
from numpy.typing import NDArray

from braintumor_kit.contracts.pictures import printable
from braintumor_kit.errors import ImageError

MAX_CHUNK = 2**24
"""Values that may be compressed together: HDF5 unpacks such a chunk whole, however little of it is used."""

# What h5py raises on files that are damaged or no HDF5 at all.
_READING_ERRORS = (OSError, KeyError, ValueError, RuntimeError, TypeError, OverflowError, MemoryError)


class MatFile:
    """An open v7.3 file. Every method raises ImageError, with the file's name and the reason."""

    def __init__(self, file: h5py.File, name: str) -> None:
        self._file = file
        self._name = name

    def array(self, path: str, max_values: int) -> NDArray[Any]:
        """Reads a numeric array as MATLAB shows it (HDF5 has the axes the other way round).

        Args:
            path: the variable, and the fields within it, such as "cjdata/image".
            max_values: more values than that are refused.
        """
        try:
            dataset = self._dataset(path)
            if dataset.dtype.kind not in "buif":
                raise ImageError(f"{self._name}: {path} is not numeric")
            for size, most in ((dataset.size, max_values), (math.prod(dataset.chunks or ()), MAX_CHUNK)):
                if size > most:
                    raise ImageError(f"{self._name}: {path} has {size:,} values, more than {most:,}")
            return np.asarray(dataset[()]).T
        except _READING_ERRORS as error:
            raise ImageError(f"{self._name}: {path} cannot be read: {_reason(error)}") from error

    def text(self, path: str, max_letters: int = 1000) -> str:
        """Reads a character array, which MATLAB stores as UTF-16 numbers."""
        letters = self.array(path, max_letters)
        if letters.dtype.kind not in "ui":
            raise ImageError(f"{self._name}: {path} is no text")
        codes = letters.ravel(order="F").astype(np.uint16)
        return codes.tobytes().decode("utf-16", errors="replace").rstrip("\0")

    def _dataset(self, path: str) -> h5py.Dataset:
        node: h5py.Group | h5py.Dataset = self._file
        for name in path.split("/"):
            link = node.get(name, getlink=True) if isinstance(node, h5py.Group) else None
            if not isinstance(link, h5py.HardLink):
                raise ImageError(f"{self._name} has no {path} of its own")
            node = node[name]
        if not isinstance(node, h5py.Dataset) or node.shape is None:
            raise ImageError(f"{self._name}: {path} is not an array")
        if node.external or node.is_virtual:
            raise ImageError(f"{self._name}: {path} points at another file")
        return node


@contextmanager
def open_mat(file: Path | BinaryIO, name: str | None = None) -> Iterator[MatFile]:
    """Opens a MATLAB v7.3 file.

    Args:
        file: a path, or an open binary file that can seek.
        name: how messages call the file; its path if left out.

    Raises:
        ImageError: where there is no such file or it is not MATLAB v7.3.
    """
    name = name or printable(str(file))
    if isinstance(file, Path) and not file.is_file():
        raise ImageError(f"{name} {'is not a file' if file.exists() else 'does not exist'}")
    try:
        opened = h5py.File(file, "r")
    except _READING_ERRORS as error:
        raise ImageError(f"{name} is not a whole MATLAB v7.3 file: {_reason(error)}") from error
    with opened:
        yield MatFile(opened, name)


def _reason(error: Exception) -> str:
    return str(error).strip('"') or type(error).__name__
