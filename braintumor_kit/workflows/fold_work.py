"""One fold of a cross-validation, trained in whichever process an engine gives it to."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from braintumor_kit.engines.engine import Work
from braintumor_kit.progress import Reporter
from braintumor_kit.recipe.load import Recipe
from braintumor_kit.runs import Run
from braintumor_kit.workflows.material import Material
from braintumor_kit.workflows.part import train_part
from braintumor_kit.workflows.read_anew import gather_anew


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
        materials, reporter = self.opened or (gather_anew(self.folder, self.recipe, self.digests), Reporter())
        return lambda number: self._train(Run(self.folder / f"fold-{number}"), materials[number - 1], reporter)

    def _train(self, fold: Run, material: Material, reporter: Reporter) -> None:
        train_part(self.folder, fold, self.recipe, self.text, material, self.argv, reporter)
