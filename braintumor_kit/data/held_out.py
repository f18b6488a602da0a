"""A collection kept out of training and of every split, to be judged on as one would on another hospital's slices."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from braintumor_kit.contracts import InputError, Sample
from braintumor_kit.files import read_csv, reason_of
from braintumor_kit.recipe.tables import UNMATCHED, SplitTable

HELD_OUT = "held_out"
"""What stands for it in the place of a split."""


def held_out(samples: Sequence[Sample], settings: SplitTable) -> list[bool]:
    """Which samples the recipe holds out.

    Raises:
        InputError: where there is no such collection, or nothing is left.
    """
    if settings.hold_out is None:
        return [False] * len(samples)
    if settings.hold_out == UNMATCHED:
        held = _unmatched(samples)
    else:
        held = _collection(samples, settings.hold_out, settings.collections)
    if all(held):
        raise InputError(f'[split] hold_out = "{settings.hold_out}" holds every slice out; none is left to train on.')
    return held


def _unmatched(samples: Sequence[Sample]) -> list[bool]:
    """Slices without a patient, of classes most of whose slices have one: healthy heads of another source stay."""
    total = Counter(sample.label for sample in samples)
    known = Counter(sample.label for sample in samples if sample.group is not None)
    mostly = {label for label in total if 2 * known[label] > total[label]}
    held = [sample.group is None and sample.label in mostly for sample in samples]
    if not any(held):
        raise InputError(
            '[split] hold_out = "unmatched", but no class has both slices with a known patient and slices without; '
            "[source] recover_patients = true finds patients."
        )
    return held


def _collection(samples: Sequence[Sample], name: str, path: Path | None) -> list[bool]:
    if path is None:
        raise InputError(f'[split] hold_out = "{name}" is in no table of collections.')
    try:
        rows = read_csv(path)
        of = {row["id"]: row["collection"] for row in rows}
    except OSError as error:
        raise InputError(f"the table of collections {path} cannot be read: {reason_of(error)}.") from error
    except (KeyError, ValueError) as error:
        raise InputError(f"{path} is no table of collections: it needs the columns id and collection.") from error
    held = [of.get(sample.id) == name for sample in samples]
    if not any(held):
        known = ", ".join(sorted({str(value) for value in of.values()}))
        raise InputError(f'{path} has no slice of this data set in a collection "{name}"; its collections: {known}.')
    return held
