"""Train, validation and test: made from a seed, patients kept together, classes balanced."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from braintumor_kit.contracts import InputError, Sample
from braintumor_kit.recipe.tables import SplitTable

Split = tuple[str, ...]
"""The split of each sample, in the order of the samples."""


def make_split(samples: Sequence[Sample], settings: SplitTable, seed: int) -> Split:
    """Says for each sample whether it trains, validates or tests.

    Raises:
        InputError: where the source is not divided as the recipe says, a class has too few patients, or a class is
            tested that training lacks.
    """
    seed = seed if settings.seed is None else settings.seed
    if settings.method == "source":
        split = _as_source(samples, settings, seed)
    else:
        if settings.method == "grouped" and all(sample.group is None for sample in samples):
            raise InputError(
                '[split] method = "grouped", but the source knows no patients; method = "stratified" divides by slice.'
            )
        shares = {"test": settings.test or 0.0, "validation": settings.validation}
        split = _divide(samples, shares, seed, together=settings.method == "grouped")
    _check(samples, split)
    return split


def split_digest(samples: Sequence[Sample], split: Split) -> str:
    """SHA-256 of which sample stands in which split, whatever the order of the samples."""
    rows = sorted(f"{sample.id}\0{part}" for sample, part in zip(samples, split, strict=True))
    return hashlib.sha256("\n".join(rows).encode(errors="surrogateescape")).hexdigest()


def _as_source(samples: Sequence[Sample], settings: SplitTable, seed: int) -> Split:
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
        inner = _divide([samples[place] for place in places], {"validation": settings.validation}, seed, together=True)
        for place, part in zip(places, inner, strict=True):
            split[place] = part
    return tuple(split)


def _divide(samples: Sequence[Sample], shares: Mapping[str, float], seed: int, together: bool) -> Split:
    """Divides class by class: patients (or slices) in random order fill each share, the rest trains."""
    units = _units(samples, together)
    by_class: dict[str, list[str]] = defaultdict(list)
    for unit, members in units.items():
        by_class[_main_label(samples, members)].append(unit)
    split = ["train"] * len(samples)
    for label in sorted(by_class):
        names = sorted(by_class[label])
        if len(names) <= len(shares):
            what = "patients" if together else "slices"
            raise InputError(f"class '{label}' has {len(names)} {what}: too few for {', '.join(shares)} and training.")
        _generator(seed, label).shuffle(names)
        for part, chosen in _fill(names, {name: len(units[name]) for name in names}, shares).items():
            for place in (place for name in chosen for place in units[name]):
                split[place] = part
    return tuple(split)


def _units(samples: Sequence[Sample], together: bool) -> dict[str, list[int]]:
    """Places of the samples that must stay together; a slice without a known patient stands alone."""
    units: dict[str, list[int]] = defaultdict(list)
    for place, sample in enumerate(samples):
        known = together and sample.group is not None
        units[f"group {sample.group}" if known else f"sample {sample.id}"].append(place)
    return units


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
    parts: dict[str, set[str]] = defaultdict(set)
    for sample, part in zip(samples, split, strict=True):
        parts[part].add(sample.label)
    for part in ("train", "validation"):
        if part not in parts:
            raise InputError(f"the split has no {part} part; [split] says how one is made.")
    for part, labels in parts.items():
        unknown = sorted(labels - parts["train"])
        if unknown:
            raise InputError(f"class '{unknown[0]}' stands in the {part} split and is missing from training.")
