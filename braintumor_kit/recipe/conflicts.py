"""Combinations of values that are each valid and make no sense together."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from braintumor_kit.recipe.mlflow_table import MlflowTable
from braintumor_kit.recipe.problems import Path_
from braintumor_kit.recipe.table import Table
from braintumor_kit.recipe.tables import (
    UNMATCHED,
    CallbacksTable,
    ExplainTable,
    ScheduleTable,
    SplitTable,
    TrainingTable,
)

SCHEDULE_KEYS = {
    "step_epochs": ("step",),
    "factor": ("step",),
    "final_fraction": ("cosine", "one_cycle"),
}
"""Which schedules read which keys."""


def conflicts(tables: Mapping[str, Any]) -> Iterator[tuple[Path_, str]]:
    """Place and message of every impossible combination among the tables that are valid on their own."""
    split, training, callbacks = tables.get("split"), tables.get("training"), tables.get("callbacks")
    if "pixels" in tables:
        yield from _without_effect(("pixels",), tables["pixels"], "crop", {"crop_margin": ("head",)})
    if mlflow := tables.get("mlflow"):
        yield from _mlflow(mlflow)
    if "source" in tables and (split is None or split.together != "copies"):  # which looks patients up as well
        yield from _without_effect(("source",), tables["source"], "recover_patients", {"patient_index": (True,)})
    if tables.get("sweep") and split is not None and split.cross_validates:
        yield (
            ("sweep",),
            'does not go with split.method = "kfold": choose first, then cross-validate what was chosen. Choose in one '
            "of the folds with split.fold = 1.",
        )
    if training is not None and training.workers > 1:
        several = bool(tables.get("sweep")) or (split is not None and split.cross_validates)
        yield from _workers(training, several)
    if split is not None:
        yield from _split(split)
        yield from _explained_split(split, tables.get("explain", ()))
    if training is not None:
        yield from _training(training)
        if callbacks is not None:
            yield from _callbacks(training, callbacks)


def _split(split: SplitTable) -> Iterator[tuple[Path_, str]]:
    if split.collections is not None and split.hold_out in (None, UNMATCHED):
        yield ("split", "collections"), "goes with the name of one of its collections as hold_out."
    if split.collections is None and split.hold_out not in (None, UNMATCHED):
        yield ("split", "hold_out"), 'is "unmatched" or the name of a collection; collections says which slices it has.'
    if split.fold is not None and split.folds is not None and split.fold > split.folds:
        yield ("split", "fold"), f"is one of the {split.folds} folds, not {split.fold}."
    if split.method == "kfold" and split.hold_out is not None:
        yield ("split", "hold_out"), "does not go with a cross-validation, which tests every slice once."
    if split.method != "kfold":
        for key in ("folds", "fold", "keep_together"):
            if getattr(split, key) is not None:
                yield ("split", key), f'goes with method = "kfold", not with "{split.method}".'
    if split.method == "source":
        if split.test is not None:
            yield (
                ("split", "test"),
                'goes with method = "grouped", "stratified" or "deduplicated"; "source" has a test part of its own.',
            )
        if split.source_test_as == "validation":
            yield from _without_effect(("split",), split, "source_test_as", {"validation": ("test",)})
        return
    if split.source_test_as != "test":
        yield ("split", "source_test_as"), f'goes with method = "source" only, not with "{split.method}".'
    taken = split.validation + (split.test or 0)
    if taken >= 1:
        yield (
            ("split", "test"),
            f"validation and test take {taken:g} of the samples and leave none for training.",
        )


def _workers(training: TrainingTable, several: bool) -> Iterator[tuple[Path_, str]]:
    if several:
        yield ("training", "workers"), "is for one training: --engine spreads folds and trials, a worker each."
    if training.mask_weight:
        yield ("training", "mask_weight"), "is for trainings by one worker."
    if training.on_out_of_memory == "halve":
        yield ("training", "on_out_of_memory"), 'is "stop" where several workers take steps together.'


def _mlflow(table: MlflowTable) -> Iterator[tuple[Path_, str]]:
    address = table.tracking_uri or ""
    if "://" in address and "@" in urlsplit(address).netloc:  # never shown again, not even here
        yield (
            ("mlflow", "tracking_uri"),
            "holds a user's name or password, which the run's record would keep: leave it out, and set "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD.",
        )


def _explained_split(split: SplitTable, explained: Sequence[ExplainTable]) -> Iterator[tuple[Path_, str]]:
    for place, table in enumerate(explained):
        if table.split == "test" and split.method == "source" and split.source_test_as == "validation":
            yield ("explain", place, "split"), 'names test, which [split] source_test_as = "validation" leaves empty.'


def _training(training: TrainingTable) -> Iterator[tuple[Path_, str]]:
    if training.phases and training.epochs is not None:
        yield (
            ("training", "epochs"),
            "stands beside phases, which have epochs of their own; set training.phases.0.epochs and so on instead.",
        )
    yield from _schedule(("training", "schedule"), training.schedule)
    if training.epochs is not None:
        yield from _warmup(("training", "schedule"), training.schedule, training.epochs)
    for index, phase in enumerate(training.phases):
        place = ("training", "phases", index, "schedule")
        if phase.schedule is not None:
            yield from _schedule(place, phase.schedule)
        yield from _warmup(place, phase.schedule or training.schedule, phase.epochs)


def _schedule(place: Path_, schedule: ScheduleTable) -> Iterator[tuple[Path_, str]]:
    yield from _without_effect(place, schedule, "name", SCHEDULE_KEYS)
    if schedule.name == "one_cycle" and schedule.warmup_epochs:
        yield (*place, "warmup_epochs"), "goes with the other schedules; one_cycle rises by itself."


def _warmup(place: Path_, schedule: ScheduleTable, epochs: int) -> Iterator[tuple[Path_, str]]:
    if schedule.warmup_epochs >= epochs:
        yield (
            (*place, "warmup_epochs"),
            f"warms up for {schedule.warmup_epochs:g} epochs, and training has {epochs}.",
        )


def _without_effect(
    place: Path_, table: Table, switch: str, keys: Mapping[str, tuple[object, ...]]
) -> Iterator[tuple[Path_, str]]:
    """Keys that were changed from their default and that the chosen mode does not read."""
    chosen = getattr(table, switch)
    for key, modes in keys.items():
        if chosen not in modes and getattr(table, key) != type(table).model_fields[key].default:
            wanted = " or ".join(json.dumps(mode) for mode in modes)
            yield (*place, key), f"goes with {switch} = {wanted}, not with {json.dumps(chosen)}."


def _callbacks(training: TrainingTable, callbacks: CallbacksTable) -> Iterator[tuple[Path_, str]]:
    moving = {training.schedule.name, *(phase.schedule.name for phase in training.phases if phase.schedule)}
    moving.discard("constant")
    if callbacks.reduce_lr_on_plateau and moving:
        yield (
            ("callbacks", "reduce_lr_on_plateau"),
            f'cannot steer the learning rate beside schedule "{sorted(moving)[0]}"; keep one of the two.',
        )
