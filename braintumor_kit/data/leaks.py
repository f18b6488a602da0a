"""Whether a split keeps apart what it must: identical pictures and slices of one patient."""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from braintumor_kit.contracts import InputError, Sample
from braintumor_kit.data.cache import Slices, seen_digest
from braintumor_kit.data.dataset import Dataset
from braintumor_kit.data.held_out import HELD_OUT
from braintumor_kit.data.joining import joined
from braintumor_kit.data.split import Split
from braintumor_kit.recipe.tables import SplitTable


@dataclass(frozen=True)
class Leaks:
    """What stands in more than one split.

    Attributes:
        identical: sets of samples whose pictures are the same to the network.
        patients: known patients, by name.
        held_out: whether slices that are held out are among them.
    """

    identical: tuple[tuple[str, ...], ...]
    patients: tuple[str, ...]
    held_out: bool = False

    def __bool__(self) -> bool:
        return bool(self.identical or self.patients)

    @property
    def sentence(self) -> str:
        """What leaks, in words."""
        pictures, patients = len(self.identical), len(self.patients)
        said = []
        if pictures:
            first = " = ".join(self.identical[0][:2])
            stands = "picture stands" if pictures == 1 else "pictures stand"
            said.append(f"{pictures} {stands} identically in several splits (such as {first})")
        if patients:
            has = "patient has" if patients == 1 else "patients have"
            said.append(f"{patients} {has} slices in several splits (such as {self.patients[0]})")
        return " and ".join(said)

    def __or__(self, other: "Leaks") -> "Leaks":
        """What leaks in either split."""
        identical = sorted({*self.identical, *other.identical})
        patients = sorted({*self.patients, *other.patients})
        return Leaks(tuple(identical), tuple(patients), self.held_out or other.held_out)

    def as_json(self) -> dict[str, Any]:
        return {"identical_sets": len(self.identical), "patients": len(self.patients), "warning": self.sentence}


def same_pictures(dataset: Dataset, slices: Slices) -> list[int]:
    """The set of identical pictures that each sample belongs to: by the file's content or by what the network sees."""
    return joined(dataset.fingerprints, _digests(slices))


def find_leaks(samples: Sequence[Sample], pictures: Sequence[int], split: Split) -> Leaks:
    """Identical pictures and known patients across splits.

    Args:
        pictures: what `same_pictures` gives.
    """
    twins = _across(pictures, range(len(split)), split)
    known = [place for place, sample in enumerate(samples) if sample.group is not None]
    shared = _across([str(samples[place].group) for place in known], known, split)
    return Leaks(
        tuple(tuple(samples[place].id for place in members) for members in sorted(twins)),
        tuple(sorted(str(samples[members[0]].group) for members in shared)),
        any(split[place] == HELD_OUT for members in (*twins, *shared) for place in members),
    )


def check_leaks(leaks: Leaks, settings: SplitTable) -> None:
    """Stops a run whose split leaks.

    Raises:
        InputError: where it does and the recipe does not say that it may.
    """
    if leaks and not settings.allow_leaks:
        raise InputError(
            f"the split leaks: {leaks.sentence}. What is reported would flatter the model. "
            f"{_remedy(leaks, settings)}, or go on regardless with [split] allow_leaks = true, which every output then "
            "says. `btkit audit` shows all of it."
        )


def _remedy(leaks: Leaks, settings: SplitTable) -> str:
    if leaks.held_out:  # which is taken out before anything is kept together
        return f'Hold out something else than [split] hold_out = "{settings.hold_out}"'
    if settings.method == "kfold":
        return 'Let [split] keep_together = "copies" keep them together'
    return 'Let [split] method = "deduplicated" keep them together'


def _across(keys: Sequence[Hashable], places: Iterable[int], split: Split) -> list[tuple[int, ...]]:
    """Places that share a key and stand on two sides. Test and what is held out are one: neither was selected on."""
    members: dict[Hashable, list[int]] = defaultdict(list)
    for key, place in zip(keys, places, strict=True):
        members[key].append(place)
    return [tuple(found) for found in members.values() if len({_side(split[place]) for place in found}) > 1]


def _side(part: str) -> str:
    return "test" if part == HELD_OUT else part


def _digests(slices: Slices) -> list[bytes]:
    """Of each slice as the network sees it, read in order and never many at once."""
    return [seen_digest(slices.array[row]) for row in slices.rows]
