"""A run trained again by plain torch: the same slices, split, network and settings, without btkit's part in training.

    python -m braintumor_kit.bench.plain_torch RUN --out plain.json

takes a finished run, or a cross-validation, whose folds are trained one after the other, and prints the figures of
both beside each other: accuracy, balanced accuracy and macro F1 of the reported split, with their intervals. Draws of
torchvision's transforms differ from btkit's, and so do the figures. What the loop does not know of a recipe it refuses.
A file that an interrupted command left is gone on with.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from braintumor_kit.bench.plain_loop import Part, train
from braintumor_kit.contracts import InputError
from braintumor_kit.errors import BtkitError
from braintumor_kit.evaluation.metrics import evaluate
from braintumor_kit.files import read_json, write_json
from braintumor_kit.memory import kept_memory
from braintumor_kit.progress import Reporter
from braintumor_kit.recipe.load import recipe_of
from braintumor_kit.runs import Run, find_run, fold_runs, refuse_sweep
from braintumor_kit.workflows.material import Material, gather
from braintumor_kit.workflows.open_data import open_dataset
from braintumor_kit.workflows.unchanged import recipe_digest, split_digests

FIGURES = ("accuracy", "balanced_accuracy", "macro_f1")


def again(run: Run, out: Path, reporter: Reporter) -> dict[str, Any]:
    """Trains a run's recipe in plain torch.

    Args:
        out: the file that keeps what each fold came to as soon as it is there.

    Returns:
        "folds": of each its validation accuracies, best epoch and what it says of each reported slice; "reported_on";
        "plain" and "btkit": the figures of the reported slices.

    Raises:
        InputError: where the run is not finished, the data are other ones, or the loop does not know its settings.
    """
    refuse_sweep(run)
    if run.record.get("status") != "finished":
        raise InputError(f"'{run.folder}' is not finished: there is nothing to compare with.")
    recipe = recipe_of(run.resolved, run.folder / "resolved.json")
    first = fold_runs(run)[0] if run.folds else run
    if recipe.backbone.info.name == "resnet" and first.record.get("backbone_weights") != "random":
        raise InputError(f"'{run.folder}' began from {first.record['backbone_weights']}, which the plain loop has not.")
    materials = gather(recipe, open_dataset(recipe, reporter), reporter)
    dataset = materials[0].dataset
    of = {"recipe": recipe_digest(recipe), "data": dataset.digest, "splits": split_digests(materials)}
    if of["data"] != run.record.get("data_digest"):
        raise InputError(f"the data set of '{run.folder}' is another one by now.")
    part = "test" if "test" in materials[0].split else "validation"
    kept: dict[str, Any] = read_json(out) if out.is_file() else {"of": of, "folds": []}
    if kept.get("of") != of:
        raise InputError(f"'{out}' is of another run: name another file with --out.")
    done: list[dict[str, Any]] = kept["folds"]
    for number, material in enumerate(materials[len(done) :], start=len(done) + 1):
        reporter.say(f"training {number} of {len(materials)}")
        parts = {
            "train": _part(material, "train"),
            "validation": _part(material, "validation"),
            "reported": _part(material, part),
        }
        with kept_memory():
            ended = train(recipe.tables, len(dataset.classes), parts, reporter.say)
        rows = zip(material.places(part), ended.probabilities, strict=True)
        done.append(
            {
                "val_accuracy": list(ended.val_accuracy),
                "best_epoch": ended.best,
                "said": {dataset.samples[place].id: [round(float(p), 6) for p in row] for place, row in rows},
            }
        )
        write_json(out, {"of": of, "folds": done})
    said = {id: row for fold in done for id, row in fold["said"].items()}
    places = [place for place, sample in enumerate(dataset.samples) if sample.id in said]
    plain = evaluate(
        dataset.labels[places],
        np.array([said[dataset.samples[place].id] for place in places]),
        [dataset.samples[place].group for place in places],
        dataset.classes,
    )
    ours = read_json(run.folder / "metrics.json")[part]
    found = {"of": of, "folds": done, "reported_on": part, "plain": plain, "btkit": ours}
    write_json(out, found)
    return found


def _part(material: Material, name: str) -> Part:
    places = material.places(name)
    return Part(material.slices[places], material.dataset.labels[places])


def table(found: dict[str, Any]) -> str:
    """Both beside each other, as Markdown."""
    lines = [f"| {found['reported_on']} | btkit | plain torch |", "| --- | --- | --- |"]
    for name in FIGURES:
        cells = (_cell(found[who], name) for who in ("btkit", "plain"))
        lines.append(f"| {name.replace('_', ' ')} | {' | '.join(cells)} |")
    if found["plain"]["by_group"]:
        cells = (_cell(found[who]["by_group"], "balanced_accuracy") for who in ("btkit", "plain"))
        lines.append(f"| balanced accuracy by patient | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(figures: dict[str, Any], name: str) -> str:
    low, high = figures[f"{name}_ci"]
    return f"{figures[name]:.4f} [{low:.3f}, {high:.3f}]"


def main(arguments: Sequence[str]) -> None:
    """Trains and prints."""
    import click

    @click.command()
    @click.argument("run", type=click.Path(path_type=Path, exists=True))
    @click.option("--out", default="plain.json", show_default=True, type=click.Path(path_type=Path))
    def command(run: Path, out: Path) -> None:
        try:
            click.echo(table(again(find_run(str(run), run.parent), out, Reporter(Console(stderr=True)))))
        except BtkitError as error:
            raise click.UsageError(str(error)) from error

    command(list(arguments))


if __name__ == "__main__":
    main(sys.argv[1:])
