"""One training of several that make up a whole: a fold of a cross-validation, a trial of a sweep."""

import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import keras

from braintumor_kit.files import make_folder, remove_torn
from braintumor_kit.locks import alone
from braintumor_kit.progress import Reporter
from braintumor_kit.recipe.load import Recipe
from braintumor_kit.runs import Run
from braintumor_kit.training.fit import has_checkpoint
from braintumor_kit.training.randomness import seed_everything
from braintumor_kit.workflows.learning import build
from braintumor_kit.workflows.material import Material
from braintumor_kit.workflows.train import train_into

PATIENCE = 60.0
"""Seconds that a training waits for a process that was given up and still works on it."""

ENDED = ("finished", "stopped")
"""What a record says of a training that is done with."""


def is_begun(part: Run) -> bool:
    """Whether there is any record of it."""
    return (part.folder / "record.json").is_file()


def is_done(part: Run) -> bool:
    """Whether there is nothing left to do."""
    return is_begun(part) and Run(part.folder).record.get("status") in ENDED


def train_part(
    whole: Path,
    part: Run,
    recipe: Recipe,
    text: str,
    material: Material,
    argv: Sequence[str],
    reporter: Reporter,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> None:
    """Trains in a folder of its own, from the last checkpoint there or anew; does nothing where that is done.

    Args:
        whole: the folder of the whole, in which that of the part lies.
        text: the recipe as given.
        callbacks: further ones.
    """
    with alone(whole / "checkpoints" / f"lock-{part.folder.name}", part.folder, PATIENCE):
        if is_done(part):
            return  # by a process that was lost before it could say so
        goes_on = has_checkpoint(part.folder)
        if goes_on:
            remove_torn(part.folder)  # of a process that was lost
        else:
            shutil.rmtree(part.folder, ignore_errors=True)  # of an attempt that did not get that far
            make_folder(part.folder, parents=False)
        seed_everything(recipe.tables.seed)
        classifier = build(recipe, material.dataset)
        train_into(
            Run(part.folder), recipe, text, material, classifier, list(argv), datetime.now(UTC), reporter, goes_on,
            callbacks,
        )  # fmt: skip
