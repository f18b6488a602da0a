"""One fold of a cross-validation, trained in whichever process an engine gives it to."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from braintumor_kit.contracts import InputError
from braintumor_kit.engines.engine import Work
from braintumor_kit.files import make_folder, remove_torn
from braintumor_kit.locks import alone
from braintumor_kit.progress import Reporter
from braintumor_kit.recipe.load import Recipe
from braintumor_kit.runs import Run
from braintumor_kit.training.fit import has_checkpoint
from braintumor_kit.training.randomness import seed_everything
from braintumor_kit.workflows.material import Material, gather
from braintumor_kit.workflows.open_data import open_dataset
from braintumor_kit.workflows.train import build, train_into
from braintumor_kit.workflows.unchanged import split_digests

PATIENCE = 60.0
"""Seconds that a fold waits for a process that was given up and still works on it."""


@dataclass(frozen=True)
class TrainFold(Work[int, None]):
    """Trains the folds of a run, by number from 1.

    Attributes:
        folder: of the whole run, which every machine has to see.
        recipe: in force.
        text: the recipe as given.
        argv: of the command.
        digests: of each fold's split, which data read anew have to come to.
        opened: the data of each fold and who is told, where this process has them; they are not sent to others.
    """

    folder: Path
    recipe: Recipe = field(compare=False)
    text: str = field(compare=False)
    argv: tuple[str, ...] = field(compare=False)
    digests: tuple[str, ...]
    opened: tuple[Sequence[Material], Reporter] | None = field(default=None, compare=False, repr=False)

    def __reduce__(self) -> tuple[Any, ...]:
        return TrainFold, (self.folder.resolve(), self.recipe, self.text, self.argv, self.digests)

    def name(self, task: int) -> str:
        return f"fold-{task}"

    def open(self) -> Callable[[int], None]:
        materials, reporter = self.opened or self._read_anew()
        return lambda number: self._train(Run(self.folder / f"fold-{number}"), materials[number - 1], reporter)

    def _read_anew(self) -> tuple[Sequence[Material], Reporter]:
        if not (self.folder / "record.json").is_file():
            raise InputError(
                f"'{self.folder}' is not to be seen from every machine of the cluster: the folder of runs, the data "
                "and the cache have to lie where all see them under the same path."
            )
        quiet = Reporter()
        materials = gather(self.recipe, open_dataset(self.recipe, quiet), quiet)
        if tuple(split_digests(materials)) != self.digests:
            raise InputError(
                "the data are not the same on every machine of the cluster: their folds come out otherwise."
            )
        return materials, quiet

    def _train(self, fold: Run, material: Material, reporter: Reporter) -> None:
        with alone(self.folder / "checkpoints" / f"lock-{fold.folder.name}", fold.folder, PATIENCE):
            if is_begun(fold) and Run(fold.folder).record.get("status") == "finished":
                return  # by a process that was lost before it could say so
            goes_on = has_checkpoint(fold.folder)
            if goes_on:
                remove_torn(fold.folder)  # of a process that was lost
            else:
                shutil.rmtree(fold.folder, ignore_errors=True)  # of an attempt that did not get that far
                make_folder(fold.folder, parents=False)
            seed_everything(self.recipe.tables.seed)
            classifier = build(self.recipe, material.dataset)
            started, argv = datetime.now(UTC), list(self.argv)
            train_into(Run(fold.folder), self.recipe, self.text, material, classifier, argv, started, reporter, goes_on)


def is_begun(fold: Run) -> bool:
    """Whether there is any record of it."""
    return (fold.folder / "record.json").is_file()
