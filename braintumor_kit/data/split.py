"""Train, validation and test: made from a seed, patients kept together, classes balanced."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from braintumor_kit.contracts import InputError, Sample
from braintumor_kit.data.joining import joined
from braintumor_kit.recipe.tables import SplitTable

Split = tuple[str, ...]
"""The split of each sample, in the order of the samples."""

_OTHERWISE = {
    False: 'method = "stratified" divides by slice, "deduplicated" keeps copies together',
    True: 'keep_together = "nothing" deals slice by slice, "copies" keeps copies together',
}
_NOUNS = {"patients": "patients", "copies": "unrelated pictures", "nothing": "slices"}


def make_split(
    samples: Sequence[Sample],
    settings: SplitTable,
    seed: int,
    copies: Sequence[int] | None = None,
    contents: Sequence[Hashable] | None = None,
) -> Split:
    """Says for each sample whether it trains, validates or tests.

    Args:
        contents: for `method = "source"`, equal for identical pictures: a validation part taken from the source's
            training part divides none of them.
        copies: for `method = "deduplicated"`, the number of the set of copies and patients that each belongs to.

    Raises:
        InputError: where the source is not divided as the recipe says, a class has too few patients, a patient has
            several labels, or a class is tested that training lacks.
    """
    seed = seed if settings.seed is None else settings.seed
    if settings.method == "source":
        split = _as_source(samples, settings, seed, contents)
    else:
        shares = {"test": settings.test or 0.0, "validation": settings.validation}
        split = _divide(samples, shares, seed, _units(samples, settings, copies), _NOUNS[settings.together])
        if settings.validation_seed is not None:
            share = settings.validation / (1 - shares["test"])  # of what is not tested
            tested = np.array([part == "test" for part in split])
            split = _validated(samples, tested, share, settings.validation_seed, settings, copies)
    _check(samples, split)
    return split


def make_folds(
    samples: Sequence[Sample], settings: SplitTable, seed: int, copies: Sequence[int] | None = None
) -> list[Split]:
    """The splits of a cross-validation: in each, one fold tests and validation is taken from the rest.

    Units (patients, sets of copies or slices) are dealt class by class, the largest first, each to the fold that has
    the fewest slices of its class so far; ties and units of one size go by the seed.

    Raises:
        InputError: as `make_split`; where a class has fewer units than there are folds.
    """
    seed = seed if settings.seed is None else settings.seed
    folds = settings.folds or 0
    units, noun = _units(samples, settings, copies), _NOUNS[settings.together]
    fold_of = np.zeros(len(samples), dtype=np.int64)
    for label, names in _by_class(samples, units).items():
        if len(names) < folds:
            raise InputError(
                f"[split] folds = {folds}, but class '{label}' has {len(names)} {noun} only; choose fewer folds."
            )
        for name, fold in _dealt(names, {name: len(units[name]) for name in names}, folds, seed, label).items():
            fold_of[units[name]] = fold
    inner = seed if settings.validation_seed is None else settings.validation_seed
    splits = []
    for fold in range(folds):
        split = _validated(samples, fold_of == fold, settings.validation, inner + fold, settings, copies)
        _check(samples, split)
        splits.append(split)
    return splits


def _validated(
    samples: Sequence[Sample],
    tested: NDArray[np.bool_],
    share: float,
    seed: int,
    settings: SplitTable,
    copies: Sequence[int] | None,
) -> Split:
    """What is not tested, (N,), divided into training and the share that validates."""
    rest = np.flatnonzero(~tested).tolist()
    inside = [samples[place] for place in rest]
    kept = None if copies is None else [copies[place] for place in rest]
    units = _units(inside, settings, kept)
    inner = _divide(inside, {"validation": share}, seed, units, _NOUNS[settings.together])
    split = ["test"] * len(samples)
    for place, part in zip(rest, inner, strict=True):
        split[place] = part
    return tuple(split)


def _dealt(names: Sequence[str], sizes: Mapping[str, int], folds: int, seed: int, label: str) -> dict[str, int]:
    shuffled = list(names)
    _generator(seed, label).shuffle(shuffled)
    filled, dealt = [0] * folds, {}
    for name in sorted(shuffled, key=lambda name: -sizes[name]):
        dealt[name] = min(range(folds), key=filled.__getitem__)
        filled[dealt[name]] += sizes[name]
    return dealt


def split_digest(samples: Sequence[Sample], split: Split) -> str:
    """SHA-256 of which sample stands in which split, whatever the order of the samples."""
    rows = sorted(f"{sample.id}\0{part}" for sample, part in zip(samples, split, strict=True))
    return hashlib.sha256("\n".join(rows).encode(errors="surrogateescape")).hexdigest()


def _as_source(
    samples: Sequence[Sample], settings: SplitTable, seed: int, contents: Sequence[Hashable] | None
) -> Split:
    undivided = next((sample for sample in samples if sample.split is None), None)
    if undivided is not None:
        raise InputError(
            f"[split] method = \"source\", but the source does not say in which split '{undivided.id}' stands; "
            'choose method = "grouped" or "stratified".'
        )
    split = [str(sample.split) for sample in samples]
    if settings.source_test_as == "validation":
        if "validation" in split:
            raise InputError('[split] source_test_as = "validation", but the source has a validation part of its own.')
        return tuple("validation" if part == "test" else part for part in split)
    if "validation" not in split:
        places = [index for index, part in enumerate(split) if part == "train"]
        inside = [samples[place] for place in places]
        units = _units(inside, settings)
        if contents is not None:
            units = _joined(units, [contents[place] for place in places])
        inner_seed = seed if settings.validation_seed is None else settings.validation_seed
        inner = _divide(inside, {"validation": settings.validation}, inner_seed, units, "patients")
        for place, part in zip(places, inner, strict=True):
            split[place] = part
    return tuple(split)


def _divide(
    samples: Sequence[Sample], shares: Mapping[str, float], seed: int, units: Mapping[str, list[int]], noun: str
) -> Split:
    """Divides class by class: units in random order fill each share, the rest trains."""
    split = ["train"] * len(samples)
    for label, names in _by_class(samples, units).items():
        if len(names) <= len(shares):
            raise InputError(f"class '{label}' has {len(names)} {noun}: too few for {', '.join(shares)} and training.")
        _generator(seed, label).shuffle(names)
        for part, chosen in _fill(names, {name: len(units[name]) for name in names}, shares).items():
            for place in (place for name in chosen for place in units[name]):
                split[place] = part
    return tuple(split)


def _by_class(samples: Sequence[Sample], units: Mapping[str, list[int]]) -> dict[str, list[str]]:
    """Names of the units of each class, both in order; a unit is of its commonest label."""
    by_class: dict[str, list[str]] = defaultdict(list)
    for unit, members in units.items():
        by_class[_main_label(samples, members)].append(unit)
    return {label: sorted(by_class[label]) for label in sorted(by_class)}


def _units(
    samples: Sequence[Sample], settings: SplitTable, copies: Sequence[int] | None = None
) -> dict[str, list[int]]:
    """Places of the samples that must stay together; a slice without a known patient stands alone."""
    if settings.together == "copies" and copies is None:
        raise ValueError("copies are kept together: their numbers are needed")
    if settings.together == "patients":
        _check_patients(samples, settings)
    units: dict[str, list[int]] = defaultdict(list)
    for place, sample in enumerate(samples):
        if settings.together == "copies" and copies is not None:
            units[f"copies {copies[place]}"].append(place)
        elif settings.together == "patients" and sample.group is not None:
            units[f"group {sample.group}"].append(place)
        else:
            units[f"sample {sample.id}"].append(place)
    if settings.together == "copies":  # the numbers follow from the order of the samples, the names must not
        return {f"copies of {min(samples[place].id for place in members)}": members for members in units.values()}
    return units


def _joined(units: Mapping[str, list[int]], contents: Sequence[Hashable]) -> dict[str, list[int]]:
    """Units that hold the same picture made one, under the first of their names."""
    name_of = {place: name for name, members in units.items() for place in members}
    sets: dict[int, list[int]] = defaultdict(list)
    for place, number in enumerate(joined([name_of[place] for place in range(len(contents))], contents)):
        sets[number].append(place)
    return {min(name_of[place] for place in members): members for members in sets.values()}


def _check_patients(samples: Sequence[Sample], settings: SplitTable) -> None:
    if settings.method == "source":
        return
    if all(sample.group is None for sample in samples):
        raise InputError(
            f'[split] method = "{settings.method}" keeps patients apart, but the source knows no patients; '
            f"{_OTHERWISE[settings.method == 'kfold']}, and [source] recover_patients = true may find them."
        )
    labels: dict[str, set[str]] = defaultdict(set)
    for sample in samples:
        if sample.group is not None:
            labels[sample.group].add(sample.label)
    mixed = sorted(group for group, found in labels.items() if len(found) > 1)
    if mixed and settings.mixed_patients == "error":
        shown = "; ".join(f"{group}: {', '.join(sorted(labels[group]))}" for group in mixed[:5])
        more = f" and {len(mixed) - 5} more" if len(mixed) > 5 else ""
        raise InputError(
            f"{len(mixed)} {'patient has' if len(mixed) == 1 else 'patients have'} slices of several classes "
            f"({shown}{more}). Mend the labels, or let each count for its commonest with [split] mixed_patients = "
            '"allow".'
        )


def _main_label(samples: Sequence[Sample], places: Sequence[int]) -> str:
    counts = Counter(samples[place].label for place in places)
    return max(sorted(counts), key=counts.__getitem__)


def _generator(seed: int, label: str) -> np.random.Generator:
    """A stream of its own for each class, so that another class more or less changes no split of this one."""
    word = int.from_bytes(hashlib.sha256(label.encode()).digest()[:8])
    return np.random.default_rng([seed, word])


def _fill(names: Sequence[str], sizes: Mapping[str, int], shares: Mapping[str, float]) -> dict[str, list[str]]:
    """Deals units to the shares until each holds its part of the slices, at least one unit each; training gets the
    rest and at least one."""
    total, rest = sum(sizes.values()), list(names)
    parts: dict[str, list[str]] = {}
    for number, (part, share) in enumerate(shares.items(), start=1):
        still_needed = len(shares) - number + 1
        chosen: list[str] = []
        while len(rest) > still_needed and (not chosen or _short_of(chosen, rest[0], sizes, share * total)):
            chosen.append(rest.pop(0))
        parts[part] = chosen
    return parts


def _short_of(chosen: Sequence[str], candidate: str, sizes: Mapping[str, int], target: float) -> bool:
    """Whether taking the candidate too brings the share nearer to its target."""
    return sum(sizes[name] for name in chosen) + sizes[candidate] / 2 <= target


def _check(samples: Sequence[Sample], split: Split) -> None:
    for part in ("train", "validation"):
        if part not in split:
            raise InputError(f"the split has no {part} part; [split] says how one is made.")
    check_trained(samples, split)


def check_trained(samples: Sequence[Sample], split: Split) -> None:
    """Holds every part to the classes that are trained.

    Raises:
        InputError: naming a class that training lacks.
    """
    parts: dict[str, set[str]] = defaultdict(set)
    for sample, part in zip(samples, split, strict=True):
        parts[part].add(sample.label)
    for part, labels in parts.items():
        unknown = sorted(labels - parts["train"])
        if unknown:
            raise InputError(f"class '{unknown[0]}' stands in the {part} split and is missing from training.")
