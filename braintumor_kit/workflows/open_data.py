"""A recipe's data set, opened: its samples, their patients where these can be recovered, copies among them."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from braintumor_kit.audit.subject import Recovered
from braintumor_kit.contracts import InputError, Sample
from braintumor_kit.data.cache import cache_key
from braintumor_kit.data.caches import building, cache_folder, make_room, mark_used
from braintumor_kit.data.dataset import Dataset, leave_out, read_dataset
from braintumor_kit.data.held_out import HELD_OUT, held_out
from braintumor_kit.data.joining import joined
from braintumor_kit.data.split import Split, check_trained, make_folds, make_split
from braintumor_kit.data.survey import survey
from braintumor_kit.engines.engine import Engine
from braintumor_kit.files import read_arrays, whole
from braintumor_kit.matching import copies as matching
from braintumor_kit.matching.copies import Copies, find_copies
from braintumor_kit.matching.patients import SHIPPED, load_index, match
from braintumor_kit.progress import Reporter
from braintumor_kit.recipe.load import DataRecipe
from braintumor_kit.recipe.tables import PixelsTable, SourceTable

COPIES_VERSION = 1
"""Rises when what counts as a copy changes."""

COPIES = tuple(Copies.__dataclass_fields__)
LARGEST = 2**36
"""Bytes that a cache of copies may have."""


def open_dataset(recipe: DataRecipe, reporter: Reporter, on_bad_image: str | None = None) -> Dataset:
    """Lists and fingerprints a recipe's data set, and recovers patients where the recipe asks for it.

    Raises:
        InputError: where the data, or the index of patients, are not as the recipe needs them.
    """
    source = recipe.tables.source
    on_bad_image = on_bad_image or source.on_bad_image
    with reporter.bar("reading the data set") as progress:
        dataset = read_dataset(recipe.source, on_bad_image, progress)
    if recovers(recipe):
        dataset, records = surveyed(dataset, recipe.tables.pixels, on_bad_image, reporter)
        dataset, recovered = recover(dataset, records, source, reporter)
        tell_recovered(dataset, recovered, reporter)
    return dataset


def recovers(recipe: DataRecipe) -> bool:
    """Whether patients are looked for in the index: where the recipe asks for it, and where copies are kept together,
    since other slices of a patient are what copies lead to."""
    return recipe.tables.source.recover_patients or recipe.tables.split.together == "copies"


def surveyed(
    dataset: Dataset, pixels: PixelsTable, on_bad_image: str, reporter: Reporter, engine: Engine | None = None
) -> tuple[Dataset, NDArray[Any]]:
    """The readable samples and their records, type `data.survey.RECORD`, in the same order.

    Args:
        engine: that looks at the pictures; None is the cores of this machine.

    Raises:
        InputError: where pictures cannot be read and `on_bad_image` is "error".
    """
    with reporter.bar("looking at every picture") as progress:
        records, bad = survey(dataset, pixels, progress, engine)
    if not bad:
        return dataset, records
    names = {item.id for item in bad}
    rows = [row for row, sample in enumerate(dataset.samples) if sample.id not in names]
    return leave_out(dataset, bad, on_bad_image), records[rows]


def recover(
    dataset: Dataset, records: NDArray[Any], source: SourceTable, reporter: Reporter
) -> tuple[Dataset, Recovered]:
    """The data set with patients from the index for those slices that have none and are found in it.

    Raises:
        InputError: where the index is none, or of another version.
    """
    index = load_index(source.patient_index or SHIPPED)
    with reporter.bar("matching with the index of patients") as progress:
        matches = match(index, records["thumbnail"], progress)
    samples = tuple(
        replace(sample, group=index.patients[place]) if place >= 0 and sample.group is None else sample
        for sample, place in zip(dataset.samples, matches.place, strict=True)
    )
    return replace(dataset, samples=samples), Recovered(index, matches)


def tell_left_out(dataset: Dataset, reporter: Reporter) -> None:
    """Names the samples that could not be read, and says why."""
    for bad in dataset.bad:
        reporter.say(f"left out: {bad.id}: {bad.reason}")


def tell_recovered(dataset: Dataset, recovered: Recovered, reporter: Reporter) -> None:
    """Says how many slices of each class were found."""
    found = Counter(
        sample.label for sample, place in zip(dataset.samples, recovered.matches.place, strict=True) if place >= 0
    )
    total = Counter(sample.label for sample in dataset.samples)
    counts = ", ".join(f"{label} {found[label]} of {total[label]}" for label in dataset.classes)
    reporter.say(f"found in the index of patients ({recovered.index.title}): {counts}")


def copies_among(dataset: Dataset, records: NDArray[Any], reporter: Reporter) -> Copies:
    """Copies among the samples of a data set, from the cache or found now.

    Raises:
        WorkError: where the cache cannot be written.
    """
    key = hashlib.sha256(f"{COPIES_VERSION} {matching.SAME} {cache_key(dataset, PixelsTable())}".encode())
    folder = cache_folder() / "copies" / key.hexdigest()[:32]
    if (kept := _kept_copies(folder)) is not None:
        return kept
    with building(folder) as beside:
        if (kept := _kept_copies(folder)) is not None:  # another process has found them meanwhile
            return kept
        with _bars(reporter) as progress:
            copies = find_copies(records["thumbnail"], records["digest"], progress)
        make_room(sum(getattr(copies, name).nbytes for name in COPIES))
        with whole(beside / "copies.npz") as path, path.open("wb") as file:
            np.savez(file, **{name: getattr(copies, name) for name in COPIES})
    return copies


def _kept_copies(folder: Path) -> Copies | None:
    """What the cache holds; None where it holds nothing, or is damaged: archives carry checksums of what is in them."""
    try:
        kept = read_arrays(folder / "copies.npz", LARGEST, "the cache", "no cache of copies")
        copies = Copies(*(kept[name] for name in COPIES))
    except (InputError, KeyError):
        return None
    mark_used(folder)
    return copies


@contextmanager
def _bars(reporter: Reporter) -> Iterator[Callable[[str], Callable[[int, int], None]]]:
    """Makes a bar for each title that is asked for, one at a time."""
    with ExitStack() as stack:

        def bar(title: str) -> Callable[[int, int], None]:
            stack.close()
            return stack.enter_context(reporter.bar(title))

        yield bar


def splits_of(recipe: DataRecipe, dataset: Dataset, pictures: Sequence[int], reporter: Reporter) -> list[Split]:
    """The split that a recipe declares, or those of its folds; slices that are held out stand in none: `HELD_OUT`.

    Args:
        pictures: the set of pictures, identical to the network, that each sample belongs to.

    Raises:
        InputError: where the data set cannot be divided so.
    """
    held = held_out(dataset.samples, recipe.tables.split)
    inside = [place for place, out in enumerate(held) if not out]
    sets = _copies(recipe, dataset, pictures, reporter)
    splits = []
    for part in _splits(
        recipe,
        [dataset.samples[place] for place in inside],
        [pictures[place] for place in inside],
        None if sets is None else [sets[place] for place in inside],
    ):
        split = [HELD_OUT] * len(held)
        for place, name in zip(inside, part, strict=True):
            split[place] = name
        check_trained(dataset.samples, tuple(split))
        splits.append(tuple(split))
    return splits


def _copies(recipe: DataRecipe, dataset: Dataset, pictures: Sequence[int], reporter: Reporter) -> list[int] | None:
    """The number of the set of pictures, alike or of one patient, that each sample belongs to; None where copies are
    not kept together."""
    if recipe.tables.split.together != "copies":
        return None
    _, records = surveyed(dataset, recipe.tables.pixels, "skip", reporter)
    groups = [sample.group for sample in dataset.samples]
    return joined(copies_among(dataset, records, reporter).components(groups).tolist(), pictures)


def _splits(
    recipe: DataRecipe, samples: Sequence[Sample], pictures: Sequence[int], copies: Sequence[int] | None
) -> list[Split]:
    settings, seed = recipe.tables.split, recipe.tables.seed
    if recovers(recipe):  # labels of matched slices may contradict: each patient counts for its commonest
        settings = settings.model_copy(update={"mixed_patients": "allow"})
    if settings.method == "kfold":
        folds = make_folds(samples, settings, seed, copies)
        return folds if settings.fold is None else [folds[settings.fold - 1]]
    return [make_split(samples, settings, seed, copies, pictures)]
