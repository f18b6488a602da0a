"""What a run's figures have to be read with, in sentences: what stands on both sides, who was tested, what selected."""

from collections.abc import Iterator, Mapping
from typing import Any

FEW_PATIENTS = 100
"""Tested patients, or slices where no patient is known, below which a figure says little by itself."""

FEW_OF_A_CLASS = 30

Json = Mapping[str, Any]


def reported_part(metrics: Json) -> str:
    """The split that a run's headline is of."""
    return "test" if metrics.get("test") else "validation"


def caveats(record: Json, metrics: Json, unknown: int) -> list[str]:
    """Sentences, the gravest first.

    Args:
        record, metrics: the content of `record.json` and `metrics.json`.
        unknown: how many of the slices that are reported have no known patient.
    """
    part = reported_part(metrics)
    return [*_leaks(metrics), *_data(record), *_selection(record, part), *_units(metrics[part], part, unknown),
            *_classes(metrics[part], part), *_elsewhere(metrics, part), *_calibration(metrics[part], part),
            *_training(record)]  # fmt: skip


def _leaks(metrics: Json) -> Iterator[str]:
    if warning := metrics.get("warning"):
        yield f"{_sentence(warning)} What was trained on is tested: the figures are too good, nobody knows by how much."


def _data(record: Json) -> Iterator[str]:
    source = record.get("recipe", {}).get("source", {})
    if source.get("name") == "phantom":
        yield "The slices are painted, not scanned: the figures show that the work runs, and say nothing of patients."
    if bad := record.get("bad_images"):
        yield f"{len(bad)} {'picture' if len(bad) == 1 else 'pictures'} could not be read and were left out."


def _selection(record: Json, part: str) -> Iterator[str]:
    if part == "validation":
        why = ""
        if record.get("recipe", {}).get("split", {}).get("source_test_as") == "validation":
            why = ' (source_test_as = "validation" uses the source\'s test part for that)'
        yield (
            f"There is no test split: the figures are of the validation slices, which selected the epoch that was "
            f"kept{why}. They are too good."
        )


def _units(judged: Json, part: str, unknown: int) -> Iterator[str]:
    known = judged.get("by_group")
    if not known:
        yield (
            "No patient is known of any slice: slices of one patient may stand on both sides of the split, and the "
            "intervals, which take slices for independent, are too narrow."
        )
    elif unknown:
        yield (
            f"{unknown} of the {judged['n']} {part} slices have no known patient: each counts as a patient of its own, "
            "and may be of one that was trained on."
        )
    units, noun = (known["n"] + unknown, "patients") if known else (judged["n"], "slices")
    if units < FEW_PATIENTS:
        low, high = judged["accuracy_ci"]
        yield f"Only {units} {noun} were judged: the accuracy could as well be {low:.2f} or {high:.2f}."


def _classes(judged: Json, part: str) -> Iterator[str]:
    few = {name: row["support"] for name, row in judged["per_class"].items() if row["support"] < FEW_OF_A_CLASS}
    if few:
        listed = ", ".join(f"{name} {count}" for name, count in few.items())
        yield f"Of these classes there are fewer than {FEW_OF_A_CLASS} {part} slices: {listed}."


def _elsewhere(metrics: Json, part: str) -> Iterator[str]:
    held_out = metrics.get("held_out")
    if held_out:
        yield (
            f"On {held_out['n']} slices of a collection that was held out the accuracy is {held_out['accuracy']:.3f}, "
            f"not {metrics[part]['accuracy']:.3f}: that is nearer to what another hospital would see."
        )
    else:
        yield (
            "All slices are of the collection that was trained on; scanners and hospitals that it lacks were not "
            "tested."
        )


def _calibration(judged: Json, part: str) -> Iterator[str]:
    before, after = judged.get("ece"), judged.get("ece_calibrated")
    if before is None or after is None:
        return
    if part == "validation":
        yield "Calibration was fitted on these validation slices: the calibrated figures are too good, too."
    elif after > before:
        yield (
            f"Calibration, fitted on validation, made the probabilities worse on {part}: the calibration error was "
            f"{before:.3f} and is {after:.3f}."
        )


def _training(record: Json) -> Iterator[str]:
    folds = record.get("folds")
    trained = f"{folds} trainings, one a fold," if folds else "One training"
    yield f"{trained} with one seed: how much other seeds would change is in no interval."


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."
