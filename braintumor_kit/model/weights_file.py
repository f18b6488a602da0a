"""What an HDF5 file of weights may hold: plain numbers of its own, and no more of them than its size allows."""

import math
from pathlib import Path
from typing import BinaryIO

import h5py

from braintumor_kit.contracts import InputError

MAX_DEPTH = 64
"""Groups in groups; Keras' files have a handful."""

MAX_ITEMS = 100_000
"""Groups and arrays; the largest classifiers have some thousands."""

MAX_EXPANSION = 64
"""Bytes of weights a byte of the file: Keras packs nothing, and what is packed a thousandfold is no network."""

SMALLEST_CHUNK = 2**16
"""Numbers that may be packed together, however few of them are used: HDF5 unpacks such a chunk whole."""

_READING_ERRORS = (OSError, KeyError, ValueError, RuntimeError, TypeError, OverflowError)


def check_weights(file: Path | BinaryIO, name: str, size: int) -> int:
    """Makes sure that nothing in a file of weights points out of it or unpacks to more than memory holds.

    Args:
        file: a path, or an open binary file.
        name: how messages call it.
        size: of the file, in bytes.

    Returns:
        How many numbers it holds.

    Raises:
        InputError: with what is wrong.
    """
    try:
        with h5py.File(file, "r") as content:
            return _count(content, name, size)
    except _READING_ERRORS as error:
        reason = str(error).strip('"') or type(error).__name__
        raise InputError(f"{name} is no whole HDF5 file of weights: {reason}.") from error


def _count(content: h5py.File, name: str, size: int) -> int:
    """Numbers in all arrays. Nothing is followed but hard links, and each group once: links may lead in circles."""
    waiting: list[tuple[str, h5py.Group, int]] = [("", content, 0)]
    seen: set[int] = set()
    items, numbers, taken = 0, 0, 0
    while waiting:
        place, group, depth = waiting.pop()
        address = h5py.h5o.get_info(group.id).addr
        if address in seen:
            raise InputError(f"{name}: '{place}' stands in it twice; that is no file of weights.")
        seen.add(address)
        for key in group:
            items += 1
            inside = f"{place}/{key}"
            if items > MAX_ITEMS or depth > MAX_DEPTH:
                raise InputError(f"{name} has more groups than any network; that is no file of weights.")
            if not isinstance(group.get(key, getlink=True), h5py.HardLink):
                raise InputError(f"{name}: '{inside}' is a link to elsewhere, which btkit does not follow.")
            item = group[key]
            if isinstance(item, h5py.Group):
                waiting.append((inside, item, depth + 1))
                continue
            _check_array(item, f"{name}: '{inside}'")
            numbers += item.size
            taken += item.size * item.dtype.itemsize
            if taken > MAX_EXPANSION * size:
                raise InputError(f"{name} would unpack to more than {MAX_EXPANSION} times its size; it is not read.")
    return numbers


def _check_array(item: object, place: str) -> None:
    if not isinstance(item, h5py.Dataset) or item.shape is None:
        raise InputError(f"{place} is no array.")
    if item.chunks and math.prod(item.chunks) > max(2 * item.size, SMALLEST_CHUNK):
        raise InputError(f"{place} is packed in chunks far larger than itself; it is not read.")
    if item.external or item.is_virtual:
        raise InputError(f"{place} points at another file, which btkit does not follow.")
    if item.dtype.kind not in "buif" and item.dtype.kind != "V":  # bfloat16 is opaque bytes to HDF5
        raise InputError(f"{place} holds {item.dtype}, no numbers.")
