"""`btkit run`: from a checked recipe to a run folder, of one training or of a cross-validation."""

from datetime import UTC, datetime
from pathlib import Path

from braintumor_kit.contracts import InputError
from braintumor_kit.progress import Reporter
from braintumor_kit.recipe.load import Recipe, recipe_of
from braintumor_kit.registry import Registry
from braintumor_kit.runs import Run, check_name, locked, new_run
from braintumor_kit.training.fit import check, has_checkpoint
from braintumor_kit.training.randomness import seed_everything
from braintumor_kit.workflows.cross_validate import begin, cross_validate
from braintumor_kit.workflows.explain_tables import check_explain_tables, check_explained_splits
from braintumor_kit.workflows.material import gather
from braintumor_kit.workflows.open_data import open_dataset
from braintumor_kit.workflows.train import build, train_into
from braintumor_kit.workflows.unchanged import hold_to_beginning


def run_recipe(recipe: Recipe, text: str, runs: Path, name: str | None, argv: list[str], reporter: Reporter) -> Run:
    """Trains, evaluates and records what a recipe declares.

    Everything that can be wrong with the input is found before the run folder is made.

    Args:
        text: the recipe as given.
        runs: folder for runs.
        name: of the run folder; made up from recipe and time where None.

    Raises:
        InputError: where the data, the split or the weights are not as the recipe needs them.
        WorkError: where the work fails on the way; the run folder keeps what was done.
    """
    started = datetime.now(UTC)
    check_name(runs, name)
    dataset = open_dataset(recipe, reporter)
    seed_everything(recipe.tables.seed)
    classifier = build(recipe, dataset)  # before decoding: weights that cannot be had are told at once
    check(classifier, recipe.tables.training, recipe.tables.callbacks)
    check_explain_tables(recipe, classifier, dataset.classes)
    materials = gather(recipe, dataset, reporter)
    check_explained_splits(recipe, materials[0].split)
    run = new_run(runs, recipe.path.stem, name, started)
    with locked(run):
        if recipe.tables.split.method == "kfold":
            begin(run, recipe, text, materials, argv, started)
            cross_validate(run, recipe, text, materials, argv, reporter)
        else:
            train_into(run, recipe, text, materials[0], classifier, argv, started, reporter)
    return run


def resume(run: Run, argv: list[str], registry: Registry, reporter: Reporter, accept: bool = False) -> None:
    """Goes on with an interrupted run, on the same trajectory; of a cross-validation finished folds are kept.

    Args:
        accept: go on although the recipe, the data, a plugin or a package is not what it was.

    Raises:
        InputError: where there is nothing to go on with, another process is at work on it, or something changed.
    """
    if run.folds is None:
        _check_unfinished(run)
    with locked(run):
        recipe = recipe_of(run.resolved, run.folder / "resolved.json", registry)
        dataset = open_dataset(recipe, reporter)
        seed_everything(recipe.tables.seed)
        classifier = build(recipe, dataset)
        materials = gather(recipe, dataset, reporter)
        hold_to_beginning(run, recipe, materials, argv, accept)
        text = (run.folder / "recipe.toml").read_text(encoding="utf-8")
        if run.folds is None:
            started = datetime.now(UTC)
            train_into(run, recipe, text, materials[0], classifier, argv, started, reporter, True)
        else:
            cross_validate(run, recipe, text, materials, argv, reporter)


def _check_unfinished(run: Run) -> None:
    """Finds early why a single training cannot go on."""
    if run.record.get("status") == "finished":
        raise InputError(f"'{run.folder}' is finished: there is nothing to go on with.")
    if run.resolved["split"]["method"] == "kfold":
        raise InputError(
            f"'{run.folder}' is a fold of a cross-validation: go on with the whole, --resume {run.folder.parent}."
        )
    if not has_checkpoint(run.folder):
        raise InputError(
            f"'{run.folder}' has no checkpoint: it was stopped before its training began. Run its recipe.toml anew."
        )
