"""What a run is made from: a data set, decoded once and divided."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_

import numpy as np
from numpy.typing import NDArray

from braintumor_kit.contracts import SPLITS
from braintumor_kit.data.cache import Slices, decoded_slices
from braintumor_kit.data.dataset import Dataset
from braintumor_kit.data.held_out import HELD_OUT
from braintumor_kit.data.leaks import Leaks, check_leaks, find_leaks, same_pictures
from braintumor_kit.data.split import Split
from braintumor_kit.progress import Reporter
from braintumor_kit.recipe.load import Recipe
from braintumor_kit.workflows.open_data import splits_of, tell_left_out


@dataclass(frozen=True)
class Material:
    """What a run is made from.

    Attributes:
        dataset: samples, in order.
        slices: their prepared slices, in the same order.
        split: the split of each.
        leaks: what stands on both sides of it.
    """

    dataset: Dataset
    slices: Slices
    split: Split
    leaks: Leaks

    def places(self, part: str) -> NDArray[np.int64]:
        """Which samples stand in a split."""
        return np.flatnonzero(np.array(self.split) == part)


def gather(recipe: Recipe, dataset: Dataset, reporter: Reporter) -> list[Material]:
    """Decodes a data set once and divides it: one division, or one a fold.

    Raises:
        InputError: where the data are not as the recipe needs them, or a split leaks and the recipe does not allow it.
    """
    tables = recipe.tables
    with reporter.bar("decoding") as progress:
        dataset, slices = decoded_slices(dataset, tables.pixels, tables.source.on_bad_image, progress)
    pictures = same_pictures(dataset, slices)
    splits = splits_of(recipe, dataset, pictures, reporter)
    _tell_data(recipe, dataset, splits, reporter)
    materials = [Material(dataset, slices, split, find_leaks(dataset.samples, pictures, split)) for split in splits]
    for material in materials:
        check_leaks(material.leaks, tables.split)
    if leaks := all_leaks(materials):
        reporter.say(f"WARNING: the split leaks: {leaks.sentence}")
    return materials


def all_leaks(materials: Sequence[Material]) -> Leaks:
    """What leaks in any of the folds."""
    return reduce(or_, (material.leaks for material in materials))


def _tell_data(recipe: Recipe, dataset: Dataset, splits: list[Split], reporter: Reporter) -> None:
    for split in splits:
        counts = ", ".join(f"{part} {split.count(part)}" for part in (*SPLITS, HELD_OUT) if part in split)
        reporter.say(f"{len(dataset.samples)} slices of {len(dataset.classes)} classes: {counts}")
    alone = sum(sample.group is None for sample in dataset.samples)
    if recipe.tables.split.together == "patients" and recipe.tables.split.method != "source" and alone:
        reporter.say(f"{alone} slices have no known patient; each of them counts as one")
    tell_left_out(dataset, reporter)
    if "test" not in splits[0]:
        reporter.say("no test split: the figures below are on validation, which also selected the model")
