"""What an audit looks at."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from braintumor_kit.contracts import SPLITS, Sample
from braintumor_kit.contracts.pictures import PICTURE_SUFFIXES
from braintumor_kit.data.held_out import HELD_OUT
from braintumor_kit.matching.copies import Copies
from braintumor_kit.matching.patients import Matches, PatientIndex


def file_kind(id: str) -> str:
    """The format that a sample's id names, such as "png"; nothing where it names none."""
    suffix = PurePath(id).suffix.lower()
    return suffix.lstrip(".") if suffix in PICTURE_SUFFIXES else ""


@dataclass(frozen=True)
class Recovered:
    """Slices found in an index of patients."""

    index: PatientIndex
    matches: Matches


@dataclass(frozen=True)
class Subject:
    """A data set, surveyed.

    Attributes:
        samples: N of them; `group` is the patient as the source knows it, or recovered.
        classes: names.
        split: the split of each, None where it is not divided, `HELD_OUT` where it stands in none.
        records: type `data.survey.RECORD`, (N,).
        copies: among them.
        recovered: patients found in an index; None where it was not asked.
    """

    samples: Sequence[Sample]
    classes: tuple[str, ...]
    split: tuple[str | None, ...]
    records: NDArray[Any]
    copies: Copies
    recovered: Recovered | None

    @property
    def parts(self) -> list[str]:
        """The splits that occur, in their usual order."""
        return [part for part in SPLITS if part in self.split]

    @property
    def sides(self) -> list[tuple[str, str]]:
        """Pairs of splits that must have no picture or patient in common, the earlier first. Test and what is held out
        may: a model has learnt from neither."""
        pairs = list(combinations(self.parts, 2))
        return pairs + [(part, HELD_OUT) for part in self.parts if part != "test" and HELD_OUT in self.split]

    @property
    def reported(self) -> str | None:
        """The split whose figures are reported: test, or validation where there is none; None where undivided."""
        return next((name for name in ("test", "validation") if name in self.parts), None)

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        """Class numbers, (N,)."""
        number = {name: place for place, name in enumerate(self.classes)}
        return np.array([number[sample.label] for sample in self.samples], dtype=np.int64)

    def within(self, part: str) -> NDArray[np.bool_]:
        """Which samples stand in a split, (N,)."""
        return np.array([name == part for name in self.split], dtype=bool)

    @cached_property
    def components(self) -> NDArray[np.int64]:
        """What must not be divided: copies of each other, and slices of one patient, (N,)."""
        return self.copies.components([sample.group for sample in self.samples])
