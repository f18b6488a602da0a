"""`btkit run`: from a checked recipe to a run folder, of one training or of a cross-validation."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from braintumor_kit.contracts import InputError, WorkError
from braintumor_kit.engines.engine import Engine
from braintumor_kit.engines.torchrun import check_torchrun
from braintumor_kit.files import read_text, reason_of, remove_torn
from braintumor_kit.progress import Reporter
from braintumor_kit.recipe.load import Recipe, recipe_of
from braintumor_kit.registry import Registry
from braintumor_kit.runs import Run, check_place, is_run, locked, new_run
from braintumor_kit.tracking.access import check_tracking
from braintumor_kit.training.fit import LATEST, check, forget_checkpoint, has_checkpoint
from braintumor_kit.training.randomness import seed_everything
from braintumor_kit.workflows.cross_validate import begin, cross_validate
from braintumor_kit.workflows.ending import told_how_to_go_on
from braintumor_kit.workflows.explain_tables import check_explain_tables, check_explained_splits
from braintumor_kit.workflows.guided import check_masks
from braintumor_kit.workflows.learning import build, check_shares
from braintumor_kit.workflows.material import gather
from braintumor_kit.workflows.open_data import open_dataset
from braintumor_kit.workflows.spread import spread
from braintumor_kit.workflows.sweep import begin_sweep, check_values, sweep
from braintumor_kit.workflows.train import train_into
from braintumor_kit.workflows.unchanged import hold_sweep_to_beginning, hold_to_beginning, use_threads_of


def run_recipe(
    recipe: Recipe,
    text: str,
    runs: Path,
    name: str | None,
    argv: list[str],
    reporter: Reporter,
    engine: str = "local",
    registry: Registry | None = None,
) -> Run:
    """Trains, evaluates and records what a recipe declares.

    Everything that can be wrong with the input is found before the run folder is made.

    Args:
        text: the recipe as given.
        runs: folder for runs.
        name: of the run folder; made up from recipe and time where None.
        engine: that trains folds and trials: "local", "ray" or "ray://HOST:PORT".
        registry: that the recipe was read with, for the trials of a sweep.

    Raises:
        InputError: where the data, the split or the weights are not as the recipe needs them, or there is no such
            engine.
        WorkError: where the work fails on the way; the run folder keeps what was done.
    """
    started = datetime.now(UTC)
    check_place(runs, name)
    check_tracking(recipe.tables.mlflow, runs)
    registry = registry or Registry.from_environment()
    if recipe.tables.sweep:
        check_values(recipe, registry)
    with engine_for(recipe, engine, reporter) as opened:
        dataset = open_dataset(recipe, reporter)
        seed_everything(recipe.tables.seed)
        classifier = build(recipe, dataset)  # before decoding: weights that cannot be had are told at once
        check(classifier, recipe.tables.training, recipe.tables.callbacks)
        check_explain_tables(recipe, classifier, dataset.classes)
        materials = gather(recipe, dataset, reporter)
        check_explained_splits(recipe, materials[0].split)
        check_shares(recipe, materials[0])
        check_masks(recipe, materials, classifier)
        run = new_run(runs, recipe.path.stem, name, started)
        folds = recipe.tables.split.cross_validates
        with locked(run), told_how_to_go_on(run, folds or bool(recipe.tables.sweep), reporter):
            if recipe.tables.sweep:
                data = {
                    "classes": list(dataset.classes),
                    "samples": len(dataset.samples),
                    "data_digest": dataset.digest,
                }
                begin_sweep(run, recipe, text, argv, started, data)
                sweep(run, recipe, text, argv, registry, reporter, opened)
            elif folds:
                begin(run, recipe, text, materials, argv, started)
                cross_validate(run, recipe, text, materials, argv, reporter, opened)
            else:
                train_into(run, recipe, text, materials[0], classifier, argv, started, reporter, engine=opened)
    return run


@contextmanager
def engine_for(recipe: Recipe, engine: str, reporter: Reporter) -> Iterator[Engine]:
    """Inside, the engine is ready, and torch has the threads that the recipe gives a training.

    Raises:
        InputError: where there is no such engine, or nothing in the recipe that it could spread.
    """
    workers = recipe.tables.training.workers
    check_torchrun(workers, engine)
    if engine != "local" and workers == 1 and not recipe.tables.split.cross_validates and not recipe.tables.sweep:
        raise InputError(
            f"--engine {engine} spreads the folds of a cross-validation, the trials of a sweep and the workers of a "
            'training, and this recipe is one training by one: leave it out, divide with split.method = "kfold", add '
            "a table [sweep], or set training.workers."
        )
    given = recipe.tables.resources
    with spread(engine, given.cpus, given.gpus, reporter) as opened:
        yield opened


def resume(
    run: Run,
    argv: list[str],
    registry: Registry,
    reporter: Reporter,
    accept: bool = False,
    engine: str = "local",
) -> None:
    """Goes on with an interrupted run, on the same trajectory; of a cross-validation finished folds are kept.

    Args:
        accept: go on although the recipe, the data, a plugin or a package is not what it was, or there is no
            checkpoint and the training begins anew.
        engine: that trains the folds that are left.

    Raises:
        InputError: where there is nothing to go on with, another process is at work on it, or something changed.
    """
    recipe = recipe_of_run(run, registry)
    if run.folds is None and not run.is_sweep:
        _check_unfinished(run, recipe, accept)
    check_tracking(recipe.tables.mlflow, run.folder.parent)
    with locked(run), told_how_to_go_on(run, run.folds is not None or run.is_sweep, reporter, resumed=True):
        _tidy(run)
        use_threads_of(run.record, reporter)
        with engine_for(recipe, engine, reporter) as opened:
            dataset = open_dataset(recipe, reporter)
            if run.is_sweep:
                hold_sweep_to_beginning(run, recipe, dataset.digest, argv, accept)
                sweep(run, recipe, read_text(run.folder / "recipe.toml"), argv, registry, reporter, opened)
                return
            seed_everything(recipe.tables.seed)
            classifier = build(recipe, dataset)
            materials = gather(recipe, dataset, reporter)
            if (run.folds or 1) != len(materials):
                raise InputError(f"{run.folder / 'record.json'} is damaged: folds: its recipe has {len(materials)}.")
            hold_to_beginning(run, recipe, materials, argv, accept)
            text = read_text(run.folder / "recipe.toml")
            if run.folds is None:
                started = datetime.now(UTC)
                train_into(run, recipe, text, materials[0], classifier, argv, started, reporter, True, engine=opened)
            else:
                cross_validate(run, recipe, text, materials, argv, reporter, opened)


def recipe_of_run(run: Run, registry: Registry) -> Recipe:
    """The recipe in force of a run that began."""
    recipe = recipe_of(run.resolved, run.folder / "resolved.json", registry)
    return replace(recipe, path=Path(run.record.get("recipe_name") or recipe.path))


def _tidy(run: Run) -> None:
    """Removes what a process that was killed had not written to the end. The run is ours alone here."""
    try:
        remove_torn(run.folder)
    except OSError as error:
        raise WorkError(f"'{run.folder}' cannot be written: {reason_of(error)}.") from error


def _check_unfinished(run: Run, recipe: Recipe, accept: bool) -> None:
    """Finds early why a single training cannot go on."""
    if run.record.get("status") == "finished":
        forget_checkpoint(run.folder)  # of a process that was killed at the very end
        raise InputError(f"'{run.folder}' is finished: there is nothing to go on with.")
    if recipe.tables.split.cross_validates and not is_run(str(run.folder.parent)):
        raise InputError(f"'{run.folder}' began as one training; its resolved.json asks for folds now: put it back.")
    if recipe.tables.split.cross_validates:
        raise InputError(
            f"'{run.folder}' is a fold of a cross-validation: go on with the whole, --resume {run.folder.parent}."
        )
    if not has_checkpoint(run.folder) and not accept:
        raise InputError(
            f"'{run.folder}' has no checkpoint: its training had not begun, or someone removed "
            f"{LATEST}. Begin it anew in the same folder, which is recorded, with --accept-changes."
        )
