"""One fold of a cross-validation, trained in whichever process an engine gives it to."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from braintumor_kit.contracts import InputError
from braintumor_kit.engines.engine import Work
from braintumor_kit.progress import Reporter
from braintumor_kit.recipe.load import Recipe
from braintumor_kit.runs import Run
from braintumor_kit.workflows.material import Material, gather
from braintumor_kit.workflows.open_data import open_dataset
from braintumor_kit.workflows.part import check_seen, train_part
from braintumor_kit.workflows.unchanged import split_digests


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
        check_seen(self.folder)
        quiet = Reporter()
        materials = gather(self.recipe, open_dataset(self.recipe, quiet), quiet)
        if tuple(split_digests(materials)) != self.digests:
            raise InputError(
                "the data are not the same on every machine of the cluster: their folds come out otherwise."
            )
        return materials, quiet

    def _train(self, fold: Run, material: Material, reporter: Reporter) -> None:
        train_part(self.folder, fold, self.recipe, self.text, material, self.argv, reporter)
