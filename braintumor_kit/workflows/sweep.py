"""A sweep: the recipe trained several times with other values, and the best chosen on validation."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from braintumor_kit.contracts import InputError, WorkError
from braintumor_kit.engines.engine import Engine
from braintumor_kit.files import write_csv, write_json
from braintumor_kit.progress import Reporter, log_to
from braintumor_kit.recipe.load import Recipe, recipe_of
from braintumor_kit.recipe.problems import RecipeError
from braintumor_kit.recipe.sweep_table import MOST_TRIALS, RangeTable, SweepTable
from braintumor_kit.registry import Registry
from braintumor_kit.report.sweep import sweep_figure
from braintumor_kit.runs import Run, save_recipe, start_record, update_record
from braintumor_kit.sweep.trials import Trial, ends, search_of, trial_of
from braintumor_kit.tracking.tracker import tracked
from braintumor_kit.workflows.ending import ending_recorded
from braintumor_kit.workflows.trial_work import Outcome, TrainTrial, base_of, selected_by
from braintumor_kit.workflows.unchanged import described

COLUMNS = ("trial", "status", "best_epoch", "epochs", "val_loss", "val_accuracy", "seconds", "reason")
"""Of `sweep.csv`, beside a column a key that varies."""


def check_values(recipe: Recipe, registry: Registry) -> None:
    """Finds, before any training, values of the space that the recipe cannot take: each alone, the others as they are.

    Raises:
        InputError: with the first of them, and what is wrong with it.
    """
    table = _table(recipe)
    base = base_of(recipe)
    for key, values in table.space.items():
        for value in ends(values) if isinstance(values, RangeTable) else values:
            try:
                recipe_of(base, recipe.path, registry, trial_of(0, {key: value}).overrides)
            except RecipeError as error:
                raise InputError(f"{recipe.path}: sweep.space: with {key} = {json.dumps(value)}: {error}") from error


def begin_sweep(
    run: Run, recipe: Recipe, text: str, argv: list[str], started: datetime, data: Mapping[str, Any]
) -> None:
    """Writes what is known of a sweep before its first trial.

    Args:
        data: "classes", "samples" and "data_digest" of the recipe as it stands.
    """
    save_recipe(run, text, recipe.resolved())
    description = {
        **described(recipe),
        "sweep": True,
        "selected_on": f"validation {selected_by(recipe).removeprefix('val_')}",
        **data,
    }
    start_record(run, argv, recipe.tables.seed, started, description)


def sweep(
    run: Run, recipe: Recipe, text: str, argv: Sequence[str], registry: Registry, reporter: Reporter, engine: Engine
) -> None:
    """Trains the trials that are not done with, and leaves `sweep.csv`, `sweep.json` and `sweep.png`.

    Raises:
        WorkError: where no trial comes to an end.
    """
    table, select = _table(recipe), selected_by(recipe)
    search = search_of(table, recipe.tables.seed, select)
    asha = None if table.asha is None else table.asha.model_dump_json()
    work = TrainTrial(
        run.folder.resolve(), json.dumps(base_of(recipe)), str(recipe.path), registry.folders, select, asha,
        text, tuple(argv), reporter,
    )  # fmt: skip
    at_once = engine.slots if table.method == "optuna" else MOST_TRIALS
    outcomes: dict[Trial, Outcome] = {}
    with log_to(run.folder), tracked(run, recipe.tables.mlflow, reporter.say, True) as tracker, ending_recorded(run):
        update_record(run, status="running", ended=None, reason=None)
        tracker.begin()
        while trials := search.ask(at_once):
            outcomes |= {trial: done for trial in trials if (done := work.kept(trial)) is not None}
            left = [trial for trial in trials if trial not in outcomes]
            for trial, outcome in engine.each(work, left):
                outcomes[trial] = outcome
                reporter.say(f"{trial}: {outcome.said(select)}", "trial", trial=trial.number)
                _write(run, table, outcomes, select)
            for trial in trials:
                if (value := outcomes[trial].best) is not None:
                    search.tell(trial, value)
        best = _write(run, table, outcomes, select)
        if best is None:
            raise WorkError(f"no trial came to an end; {run.folder / 'sweep.csv'} says why of each.")
        update_record(run, trials=len(outcomes), best_trial=best.name)
        reporter.say(f"the best on validation is {best}: {outcomes[best].said(select)}")


def _table(recipe: Recipe) -> SweepTable:
    assert recipe.tables.sweep is not None
    return recipe.tables.sweep


def _write(run: Run, table: SweepTable, outcomes: Mapping[Trial, Outcome], select: str) -> Trial | None:
    """Writes table, summary and figure of what there is so far; gives the best trial that was trained to its end."""
    known = dict(sorted(outcomes.items(), key=lambda item: item[0].number))
    sign = -1 if select == "val_loss" else 1
    ended = {trial: sign * outcome.best for trial, outcome in known.items()
             if outcome.status == "finished" and outcome.best is not None}  # fmt: skip
    best = max(ended, key=lambda trial: ended[trial]) if ended else None
    values = {trial.name: {key: json.loads(value) for key, value in trial.values} for trial in known}
    keys = list(table.space)
    rows = [{**dict(trial.values), **outcome.row, "trial": trial.name} for trial, outcome in known.items()]
    header = ("trial", *keys, *COLUMNS[1:])
    write_csv(run.folder / "sweep.csv", header, ([row.get(name) for name in header] for row in rows))
    write_json(
        run.folder / "sweep.json",
        {
            "select": select,
            "selected_on": "validation",
            "best": best.name if best else None,
            "trials": [
                {"trial": trial.name, "values": values[trial.name], **outcome.row} for trial, outcome in known.items()
            ],
        },
    )
    curves = {trial.name: outcome.history for trial, outcome in known.items()}
    ranges = {key: given.log for key, given in table.space.items() if isinstance(given, RangeTable)}
    sweep_figure(run.folder / "sweep.png", select, curves, values, ranges, best.name if best else None)
    return best
