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
    """

    identical: tuple[tuple[str, ...], ...]
    patients: tuple[str, ...]

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
        return Leaks(tuple(identical), tuple(sorted({*self.patients, *other.patients})))

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
    names = [tuple(samples[place].id for place in members) for members in sorted(twins)]
    return Leaks(tuple(names), _patients(samples, split))


def check_leaks(leaks: Leaks, settings: SplitTable) -> None:
    """Stops a run whose split leaks.

    Raises:
        InputError: where it does and the recipe does not say that it may.
    """
    if leaks and not settings.allow_leaks:
        raise InputError(
            f"the split leaks: {leaks.sentence}. What is reported would flatter the model. {_remedy(settings)}, or go "
            "on regardless with [split] allow_leaks = true, which every output then says. `btkit audit` shows all "
            "of it."
        )


def _remedy(settings: SplitTable) -> str:
    if settings.together == "copies":  # so that only what is held out can be on both sides
        return f'Hold out something else than [split] hold_out = "{settings.hold_out}"'
    if settings.method == "kfold":
        return 'Let [split] keep_together = "copies" keep them together'
    return 'Let [split] method = "deduplicated" keep them together'


def _patients(samples: Sequence[Sample], split: Split) -> tuple[str, ...]:
    known = [place for place, sample in enumerate(samples) if sample.group is not None]
    groups = [str(samples[place].group) for place in known]
    return tuple(sorted(str(samples[members[0]].group) for members in _across(groups, known, split)))


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
