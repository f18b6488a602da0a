"""`btkit run RUN_FOLDER`: a run done again from its record alone, and held to what it came to."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import tomli_w

from braintumor_kit.contracts import InputError
from braintumor_kit.progress import Reporter
from braintumor_kit.recipe.load import recipe_of, without_none
from braintumor_kit.registry import Registry
from braintumor_kit.runs import Run, refuse_sweep, update_record
from braintumor_kit.workflows.results import differences, lacking
from braintumor_kit.workflows.run import run_recipe
from braintumor_kit.workflows.unchanged import changed_versions, use_threads_of


def repeat(
    before: Run, runs: Path, name: str | None, argv: list[str], registry: Registry, reporter: Reporter
) -> tuple[Run, dict[str, Any]]:
    """Carries out the recipe in a run's record once more, in a run folder of its own, and compares.

    Of `before` only `record.json` is read.

    Returns:
        The new run, and what its record says of the repetition: `run`, `same`, `first_difference`, and under `changed`
        what may be why.

    Raises:
        InputError: where the run has not finished or is a fold, or as `run_recipe`.
        WorkError: as `run_recipe`.
    """
    refuse_sweep(before)
    record, file = before.record, before.folder / "record.json"
    if record.get("status") != "finished":
        raise InputError(f"'{before.folder}' has not finished: there is nothing to compare with. Go on with --resume.")
    if not record.get("recipe") or not record.get("results"):
        raise InputError(
            f"{file} is of a btkit that did not keep recipe and results there; run its resolved.json anew."
        )
    if missing := lacking(record["results"], before.folds):
        raise InputError(f"{file} is damaged: results.{missing} is missing: there is nothing to compare with.")
    recipe = recipe_of(record["recipe"], file, registry)
    if recipe.tables.split.cross_validates and before.folds is None:
        raise InputError(f"'{before.folder}' is a fold: repeat the whole cross-validation, {before.folder.parent}.")
    use_threads_of(record, reporter)
    text = tomli_w.dumps(without_none(record["recipe"]))
    run = run_recipe(
        replace(recipe, path=Path(record.get("recipe_name") or before.folder.name)), text, runs, name, argv, reporter
    )
    compared = _compared(before, run)
    update_record(run, repeats=compared)
    return run, compared


def _compared(before: Run, now: Run) -> dict[str, Any]:
    first = next(differences(before.record, now.record), None)
    return {
        "run": str(before.folder),
        "same": first is None,
        "first_difference": first,
        "changed": [*changed_versions(before.record), *_changed_surroundings(before.record, now.record)],
    }


def _changed_surroundings(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    old, new = before.get("device") or {}, now.get("device") or {}
    for key in {**old, **new}:
        if old.get(key) != new.get(key):
            yield f"{key} of the device was {old.get(key)} and is {new.get(key)}"
    for key, words in (("precision", "the precision"), ("batch_size", "the batch size that memory allowed")):
        if before.get(key) != now.get(key):
            yield f"{words} was {before.get(key)} and is {now.get(key)}"
    if any((record.get("code") or {}).get("dirty") for record in (before, now)):
        yield "btkit's own files were changed and not committed"
