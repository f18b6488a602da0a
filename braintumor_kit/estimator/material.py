"""What a training is made from, where a caller has the pictures in memory: the same as of a source, without one."""

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from braintumor_kit.contracts import InputError, NoOptions, Sample, Source
from braintumor_kit.data.cache import Slices
from braintumor_kit.data.dataset import Dataset
from braintumor_kit.data.leaks import find_leaks, same_pictures
from braintumor_kit.data.split import make_split
from braintumor_kit.recipe.load import ChosenPlugin
from braintumor_kit.recipe.tables import SplitTable
from braintumor_kit.registry import PluginInfo
from braintumor_kit.workflows.material import Material

NAME = "arrays"
"""What a record says of the source."""


GONE = "this model was fitted to arrays in memory, which are not at hand any more; name images."


class Arrays(Source[NoOptions]):
    """Arrays of a caller in Python, which nobody can read again."""

    api_version = 1
    Options = NoOptions
    classes = ()

    def samples(self) -> Iterator[Sample]:
        raise InputError(GONE)

    def image(self, sample: Sample) -> NDArray[np.uint8]:
        raise InputError(GONE)


def material_of(
    slices: NDArray[np.uint8],
    labels: NDArray[np.int64],
    classes: Sequence[str],
    groups: Sequence[object] | None,
    settings: SplitTable,
    seed: int,
) -> Material:
    """Prepared slices, divided into training and validation.

    Args:
        slices: uint8 (N, S, S, C).
        labels: number of the class of each, (N,).
        groups: the patient of each, where known: no patient's slices stand on both sides, nor do identical pictures.
        settings: the recipe's [split], of which the share of validation and its seed hold.

    Raises:
        InputError: where a class has too few patients, or slices, to be divided.
    """
    names = [None] * len(slices) if groups is None else [str(group) for group in groups]
    samples = tuple(
        Sample(f"{number:06}", classes[label], "train", group)
        for number, (label, group) in enumerate(zip(labels.tolist(), names, strict=True))
    )
    prints = tuple(hashlib.blake2b(picture.tobytes(), digest_size=16).digest() for picture in slices)
    info = PluginInfo("source", NAME, "in memory", f"{__name__}:Arrays")
    dataset = Dataset(ChosenPlugin(info, Arrays, NoOptions()), tuple(classes), samples, prints, (), {})
    stored = Slices(slices, np.arange(len(slices)))
    pictures = same_pictures(dataset, stored)
    dealt = SplitTable(method="source", validation=settings.validation, seed=settings.seed)
    split = make_split(samples, dealt, seed, contents=pictures)
    return Material(dataset, stored, split, find_leaks(samples, pictures, split))
