"""The pictures that a model is asked about, such as those of a run; `named.py` has those that a user names."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from braintumor_kit.contracts import ImageError, InputError, Source
from braintumor_kit.data.cache import Slices
from braintumor_kit.data.dataset import BadImage, Dataset
from braintumor_kit.data.pixels import prepare_mask
from braintumor_kit.recipe.tables import PixelsTable

Array = NDArray[Any]


@dataclass(frozen=True)
class Item:
    """One picture, without its pixels.

    Attributes:
        id: of the sample, or the file's path as the user would name it.
        split, group, label: where known.
        probabilities: of each class as the run recorded them, None where it did not.
    """

    id: str
    split: str | None = None
    group: str | None = None
    label: str | None = None
    probabilities: tuple[float, ...] | None = None


class Pictures(Protocol):
    """Pictures that are read when they are asked for."""

    @property
    def items(self) -> Sequence[Item]:
        """In a fixed order."""

    @property
    def digest(self) -> str:
        """Changes when the pictures, their order or what is known of them does."""

    def prepared(self, place: int) -> NDArray[np.uint8]:
        """One picture as the model takes it, uint8 (S, S, C).

        Raises:
            ImageError: where it cannot be read.
        """

    def original(self, place: int) -> Array:
        """The picture as it is stored.

        Raises:
            ImageError: where it cannot be read.
        """

    def mask(self, place: int, original: bool = False) -> NDArray[np.bool_] | None:
        """The tumour's mask on the prepared picture's grid, or the stored one's; None where there is none."""


@dataclass(frozen=True)
class SplitPictures:
    """Slices of a run's data set.

    Attributes:
        dataset, slices: the run's own.
        places: which of them.
        items: one a place.
        pixels: how they were prepared.
        source: reads stored pictures and masks.
    """

    dataset: Dataset
    slices: Slices
    places: NDArray[np.int64]
    items: Sequence[Item]
    pixels: PixelsTable
    source: Source[Any]

    @cached_property
    def digest(self) -> str:
        return _sha256([self.dataset.digest, *map(repr, self.items)])

    def prepared(self, place: int) -> NDArray[np.uint8]:
        return self.slices[self.places[place : place + 1]][0]

    def original(self, place: int) -> Array:
        sample = self.dataset.samples[self.places[place]]
        with self.dataset.plugin.info.blamed(f"reading '{sample.id}'"):
            return self.source.image(sample)

    def mask(self, place: int, original: bool = False) -> NDArray[np.bool_] | None:
        sample = self.dataset.samples[self.places[place]]
        if not sample.has_mask:
            return None
        with self.dataset.plugin.info.blamed(f"reading the mask of '{sample.id}'"):
            mask = self.source.mask(sample)
        if mask is None or original:
            return mask
        return prepare_mask(mask, self.original(place), self.pixels)


def split_name(name: str | None, parts: Iterable[str | None]) -> str:
    """The split that is meant: test where none is named, or validation where there is no test.

    Raises:
        InputError: where there is no such split.
    """
    have = {part for part in parts if part}
    if name is None:
        return "test" if "test" in have else "validation"
    if name not in have:
        raise InputError(f"there is no {name} split; there is {', '.join(sorted(have))}.")
    return name


def evenly_spaced(count: int, limit: int) -> NDArray[np.int64]:
    """Places of at most `limit` of `count` things, first and last among them."""
    return np.linspace(0, count - 1, min(limit, count)).round().astype(np.int64)


def _sha256(texts: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(texts).encode(errors="surrogateescape")).hexdigest()


def split_pictures(
    dataset: Dataset,
    slices: Slices,
    split: Sequence[str | None],
    part: str,
    limit: int | None,
    pixels: PixelsTable,
    probabilities: Mapping[str, tuple[float, ...]],
) -> SplitPictures:
    """The slices of one split, at most `limit` of them, evenly spaced.

    Args:
        split: of each sample of the data set.
        probabilities: by id, where the run recorded them.
    """
    places = np.flatnonzero(np.array(split, dtype=object) == part)
    if limit is not None:
        places = places[evenly_spaced(len(places), limit)]
    samples = [dataset.samples[place] for place in places]
    items = [Item(s.id, part, s.group, s.label, probabilities.get(s.id)) for s in samples]
    return SplitPictures(dataset, slices, places, items, pixels, dataset.plugin.make())


def read_batch(pictures: Pictures, places: Sequence[int]) -> tuple[list[int], NDArray[np.uint8], list[BadImage]]:
    """The pictures at some places that can be read: which, uint8 (n, S, S, C), and what is wrong with the others."""
    good, read, bad = [], [], []
    for place in places:
        try:
            read.append(pictures.prepared(place))
            good.append(place)
        except ImageError as error:
            bad.append(BadImage(pictures.items[place].id, str(error)))
    return good, np.stack(read) if read else np.zeros((0, 1, 1, 1), np.uint8), bad
