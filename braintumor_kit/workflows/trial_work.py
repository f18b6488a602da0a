"""One trial of a sweep, trained in whichever process an engine gives it to."""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from braintumor_kit.contracts import WorkError
from braintumor_kit.engines.engine import Work
from braintumor_kit.files import read_csv
from braintumor_kit.progress import Reporter
from braintumor_kit.recipe.load import Recipe, recipe_of
from braintumor_kit.recipe.sweep_table import AshaTable
from braintumor_kit.registry import Registry
from braintumor_kit.runs import Run
from braintumor_kit.sweep.halving import Halving
from braintumor_kit.sweep.trials import Trial
from braintumor_kit.workflows.material import gather
from braintumor_kit.workflows.open_data import open_dataset
from braintumor_kit.workflows.part import is_begun, is_done, train_part
from braintumor_kit.workflows.read_anew import check_seen
from braintumor_kit.workflows.unchanged import recipe_digest


@dataclass(frozen=True)
class Outcome:
    """What a trial came to.

    Attributes:
        status: "finished"; "stopped" where it fell behind; "failed".
        history: rows of its `history.csv`, numbers.
        place: of its best epoch in them, None without any.
        best: the figure that selects, at that epoch.
        reason: why it did not finish.
    """

    status: str
    history: Sequence[Mapping[str, float]]
    place: int | None
    best: float | None
    reason: str | None = None

    @property
    def row(self) -> dict[str, Any]:
        """Of `sweep.csv`."""
        at = {} if self.place is None else self.history[self.place]
        return {
            "status": self.status,
            "best_epoch": None if self.place is None else int(at["epoch"]),
            "epochs": len(self.history),
            "val_loss": at.get("val_loss"),
            "val_accuracy": at.get("val_accuracy"),
            "seconds": round(sum(row["seconds"] for row in self.history), 1),
            "reason": self.reason,
        }

    def said(self, select: str) -> str:
        """In words."""
        if self.best is None or self.place is None:
            return f"{self.status}: {self.reason}"
        best = f"{select} {self.best:.4f} in epoch {self.place + 1} of {len(self.history)}"
        return best if self.status == "finished" else f"{best}; {self.status}: {self.reason}"


@dataclass(frozen=True)
class TrainTrial(Work[Trial, Outcome]):
    """Trains trials of a sweep.

    Attributes:
        folder: of the sweep, which every machine has to see.
        base: the recipe that trials vary, resolved, as JSON.
        path: its file.
        plugins: folders of plugins.
        select: what picks a trial's best epoch.
        asha: the table [sweep.asha] as JSON, None to let every trial go to its end.
        text, argv: the recipe as given, and the command.
        reporter: is told in this process; other processes write into the trial's own log alone.
    """

    folder: Path
    base: str
    path: str
    plugins: tuple[Path, ...]
    select: str
    asha: str | None
    text: str = field(compare=False)
    argv: tuple[str, ...] = field(compare=False)
    reporter: Reporter | None = field(default=None, compare=False, repr=False)

    def __reduce__(self) -> tuple[Any, ...]:
        return TrainTrial, (
            self.folder, self.base, self.path, self.plugins, self.select, self.asha, self.text, self.argv,
        )  # fmt: skip

    def name(self, task: Trial) -> str:
        return str(task)

    def open(self) -> Callable[[Trial], Outcome]:
        check_seen(self.folder)
        return self._train

    def recipe(self, trial: Trial) -> Recipe:
        """The recipe of a trial."""
        return recipe_of(json.loads(self.base), Path(self.path), Registry(self.plugins), trial.overrides)

    def kept(self, trial: Trial) -> Outcome | None:
        """What a trial that is done with came to; None of one that is not, or had other values."""
        part = Run(self.folder / trial.name)
        if not is_begun(part):
            return None
        if part.record.get("recipe_digest") != recipe_digest(self.recipe(trial)):
            shutil.rmtree(part.folder, ignore_errors=True)
            return None
        return self._outcome(part) if is_done(part) else None

    def _train(self, trial: Trial) -> Outcome:
        part, recipe, reporter = Run(self.folder / trial.name), self.recipe(trial), self.reporter or Reporter()
        asha = AshaTable.model_validate_json(self.asha) if self.asha else None
        callbacks = [Halving(part.folder, asha, self.select)] if asha else []
        try:
            (material,) = gather(recipe, open_dataset(recipe, reporter), reporter)
            train_part(self.folder, part, recipe, self.text, material, self.argv, reporter, callbacks)
        except WorkError as error:  # such as a loss that is not finite: of these values, and not of the sweep
            return Outcome("failed", (), None, None, str(error))
        return self._outcome(Run(part.folder))

    def _outcome(self, part: Run) -> Outcome:
        history = [{name: float(value) for name, value in row.items()} for row in read_csv(part.folder / "history.csv")]
        values = [-row[self.select] if self.select == "val_loss" else row[self.select] for row in history]
        place = max(range(len(values)), key=values.__getitem__) if values else None
        best = None if place is None else history[place][self.select]
        return Outcome(str(part.record.get("status")), history, place, best, part.record.get("reason"))


def base_of(recipe: Recipe) -> dict[str, Any]:
    """The resolved recipe that trials vary: without the sweep itself, and without what only a chosen one needs."""
    return {**recipe.resolved(), "sweep": None, "report": False, "explain": []}


def selected_by(recipe: Recipe) -> str:
    """What picks the best trial: "val_accuracy" or "val_loss"."""
    assert recipe.tables.sweep is not None
    return recipe.tables.sweep.select or recipe.tables.training.select
