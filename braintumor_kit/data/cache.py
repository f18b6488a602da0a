"""Decoded slices as one memory-mapped array, keyed by the content of the pictures and by how pixels are prepared."""

import hashlib
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from braintumor_kit.data.caches import cache_folder
from braintumor_kit.data.dataset import Dataset, Progress, leave_out, quiet
from braintumor_kit.data.pixels import prepare
from braintumor_kit.data.rows import rows_of
from braintumor_kit.recipe.tables import PixelsTable

VERSION = 2
"""Rises when prepared pixels change; caches of other versions are not used."""


@dataclass(frozen=True)
class Slices:
    """The prepared slices of a data set; nothing is in memory until it is asked for.

    Attributes:
        array: uint8 (rows, S, S, C), memory-mapped.
        rows: the row of each sample, (N,).
    """

    array: NDArray[np.uint8]
    rows: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, places: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Copies of the slices at these places, uint8 (len(places), S, S, C)."""
        return np.asarray(self.array[self.rows[places]])


def decoded_slices(
    dataset: Dataset, pixels: PixelsTable, on_bad_image: str = "error", progress: Progress = quiet
) -> tuple[Dataset, Slices]:
    """The prepared slices of a data set, from the cache or decoded now.

    Returns:
        The data set without unreadable samples, and its slices in the same order.

    Raises:
        InputError: where pictures cannot be read and `on_bad_image` is "error".
        WorkError: where the cache cannot be written.
    """
    folder = cache_folder() / "slices" / cache_key(dataset, pixels)
    array, bad = rows_of(dataset, folder, np.zeros(pixels.shape, np.uint8), partial(prepare, settings=pixels), progress)
    names = {item.id for item in bad}
    rows = [row for row, sample in enumerate(dataset.samples) if sample.id not in names]
    return leave_out(dataset, bad, on_bad_image), Slices(array, np.array(rows, dtype=np.int64))


def seen_digest(prepared: NDArray[np.uint8]) -> bytes:
    """16 bytes that are equal for prepared slices, uint8 (S, S, C), that are equal: the same to a network."""
    return hashlib.blake2b(prepared.tobytes(), digest_size=16).digest()


def cache_key(dataset: Dataset, pixels: PixelsTable, version: int = VERSION) -> str:
    """Name of a cache: plugin and options, pictures in order, how they are prepared; labels do not matter."""
    digest = hashlib.sha256(f"{version}\0{dataset.plugin.digest}\0{pixels.model_dump_json()}".encode())
    for sample, fingerprint in zip(dataset.samples, dataset.fingerprints, strict=True):
        digest.update(sample.id.encode(errors="surrogateescape") + b"\0" + fingerprint)
    return digest.hexdigest()[:32]
