"""Whether a run can go on as it began: its recipe, data, plugins and packages are what they were."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import torch

from braintumor_kit.contracts import InputError
from braintumor_kit.data.split import split_digest
from braintumor_kit.model.precision import describe_device, keras_device, resolve_precision
from braintumor_kit.progress import Reporter
from braintumor_kit.recipe.load import ChosenPlugin, Recipe
from braintumor_kit.runs import Run, commit, package_versions, update_record
from braintumor_kit.training.fit import LATEST, has_checkpoint
from braintumor_kit.workflows.material import Material

FOLLOWED = ("recipe_digest", "data_digest", "split_digest", "plugins", "packages", "code")
"""Of a record: what may be another when a run goes on, where that is accepted."""

WORDS = {
    "recipe_digest": "the recipe in force (resolved.json) is another one",
    "data_digest": "the data set is another one",
    "plugins": "a plugin, or its version, is another one",
    "split_digest": "the split is another one: slices that are test now may have been trained on",
    "split_digests": "the folds are others: those that were trained are trained anew",
}
"""What it means where one of these is another."""

MOST_THREADS = 1024
"""No machine has more; a damaged record must not ask for more."""


def recipe_digest(recipe: Recipe) -> str:
    """SHA-256 of every value in force."""
    return hashlib.sha256(json.dumps(recipe.resolved(), sort_keys=True).encode()).hexdigest()


def described(recipe: Recipe) -> dict[str, Any]:
    """What every record says at the beginning of its recipe, and of what carries it out."""
    return {
        "recipe_name": recipe.path.stem,
        "recipe": recipe.resolved(),
        "device": describe_device(),
        "precision": resolve_precision(recipe.tables.training.precision),
        "plugins": plugin_records(recipe),
        "recipe_digest": recipe_digest(recipe),
    }


def plugin_records(recipe: Recipe) -> dict[str, Any]:
    """Names, versions and targets of the plugins of a recipe."""
    of_kinds = {plugin.info.kind: _plugin_record(plugin) for plugin in (recipe.source, recipe.backbone)}
    return of_kinds | {"explainers": [_plugin_record(plugin) for plugin in recipe.explainers]}


def _plugin_record(plugin: ChosenPlugin) -> dict[str, str]:
    return {"name": plugin.info.name, "version": plugin.info.version, "target": plugin.info.target}


def split_digests(materials: Sequence[Material]) -> list[str]:
    """The digest of each division."""
    return [split_digest(material.dataset.samples, material.split) for material in materials]


def use_threads_of(record: Mapping[str, Any], reporter: Reporter) -> None:
    """Has torch use as many threads as a run on a CPU did: how many share a sum decides its last digits."""
    device = record.get("device") or {}
    threads = int(device.get("threads") or 0) if device.get("kind") == keras_device() == "cpu" else 0
    if 0 < threads < MOST_THREADS and threads != torch.get_num_threads():
        reporter.say(f"on {threads} threads, as the run began")
        torch.set_num_threads(threads)


def hold_to_beginning(run: Run, recipe: Recipe, materials: Sequence[Material], argv: list[str], accept: bool) -> None:
    """Compares what a run goes on with with what it began with, and records that it goes on.

    Args:
        accept: go on all the same, and record what changed.

    Raises:
        InputError: where something changed and is not accepted.
    """
    changed = list(_changes(run.record, recipe, materials))
    if run.folds is None and not has_checkpoint(run.folder):
        changed.append(f"there is no {LATEST}: training begins anew")
    _accept(run, changed, argv, accept)


def hold_sweep_to_beginning(run: Run, recipe: Recipe, data_digest: str, argv: Sequence[str], accept: bool) -> None:
    """The same of a sweep, whose trials have splits of their own.

    Args:
        data_digest: of the data set of the recipe as it stands.

    Raises:
        InputError: where something changed and is not accepted.
    """
    now = {"recipe_digest": recipe_digest(recipe), "data_digest": data_digest, "plugins": plugin_records(recipe)}
    _accept(run, [*_others(run.record, now), *changed_versions(run.record)], argv, accept)


def _accept(run: Run, changed: Sequence[str], argv: Sequence[str], accept: bool) -> None:
    if changed and not accept:
        lines = "\n".join(f"  {line}" for line in changed)
        raise InputError(
            f"'{run.folder}' cannot go on as it began:\n{lines}\n"
            "Put it back as it was, or go on all the same, which is recorded, with --accept-changes."
        )
    went_on = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "argv": list(argv), "changes": list(changed)}
    update_record(run, resumed=[*run.record.get("resumed", []), went_on])


def _changes(record: Mapping[str, Any], recipe: Recipe, materials: Sequence[Material]) -> Iterator[str]:
    """What differs, a sentence each."""
    now: dict[str, Any] = {
        "recipe_digest": recipe_digest(recipe),
        "data_digest": materials[0].dataset.digest,
        "plugins": plugin_records(recipe),
    }
    now |= (
        {"split_digests": split_digests(materials)}
        if record.get("folds")
        else {"split_digest": split_digests(materials)[0]}
    )
    yield from _others(record, now)
    yield from changed_versions(record)


def _others(record: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Which of these values are not those of a record, a sentence each."""
    for key, value in now.items():
        if key in record and record[key] != value:
            yield WORDS[key]


def changed_versions(record: Mapping[str, Any]) -> Iterator[str]:
    """Which packages, and whether btkit itself, are not those of a record, a phrase each."""
    current = package_versions()
    for name, before in record.get("packages", {}).items():
        if current.get(name) != before:
            yield f"{name} was {before} and is {current.get(name)}"
    code, now = record.get("code") or {}, commit() or {}
    if code.get("commit") != now.get("commit"):
        yield f"btkit's own commit was {code.get('commit')} and is {now.get('commit')}"
