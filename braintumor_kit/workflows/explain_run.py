"""What `btkit explain` explains: a split of a run, or picture files; and the whole way from there to the folder."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from braintumor_kit.contracts import InputError
from braintumor_kit.data.cache import decoded_slices
from braintumor_kit.data.dataset import BadImage
from braintumor_kit.files import write_json
from braintumor_kit.model.precision import resolve_precision
from braintumor_kit.progress import Reporter
from braintumor_kit.recipe.load import recipe_of
from braintumor_kit.registry import Registry
from braintumor_kit.runs import Run, table_of
from braintumor_kit.workflows.draw_explanations import draw_overlays, draw_summary
from braintumor_kit.workflows.evaluate_explanations import Evaluation, evaluate_explanations
from braintumor_kit.workflows.explain import Drawing, Request, explain_into, plan
from braintumor_kit.workflows.open_data import open_dataset
from braintumor_kit.workflows.pictures import SplitPictures, split_name, split_pictures
from braintumor_kit.workflows.trained import Trained


@dataclass(frozen=True)
class Wish:
    """How explanations are made.

    Attributes:
        precision: of convolutions, "auto" is bfloat16 where the device computes it natively.
        drawing: of overlays.
        evaluation: how the maps are measured, None not to.
        to_go_on: what the user is told to do after an interruption.
    """

    precision: str = "auto"
    drawing: Drawing = field(default_factory=Drawing)
    evaluation: Evaluation | None = None
    to_go_on: str = "the same command goes on where it stopped"


def explain(
    place: Path, trained: Trained, requests: Sequence[Request], wish: Wish, reporter: Reporter
) -> tuple[dict[str, Any] | None, list[BadImage]]:
    """Makes the folder of explanations: maps, overlays, table, sheet and, where wished, how right the maps are.

    Returns:
        The content of `explanation_metrics.json` or None, and the pictures that could not be read.

    Raises:
        InputError: where a method, target or layer does not fit the model.
        WorkError: where files cannot be written.
    """
    planned = plan(trained, requests, wish.precision, wish.drawing.align)
    reporter.say(f"explaining in {resolve_precision(wish.precision)} into {place}")
    try:
        folder, bad = explain_into(place, trained, planned, wish.precision, wish.drawing, reporter)
        draw_overlays(folder, planned, wish.drawing, reporter)
        metrics = None
        if wish.evaluation:
            metrics = evaluate_explanations(folder, trained, planned, wish.precision, wish.evaluation, reporter)
            write_json(folder.beside / "explanation_metrics.json", metrics)
        draw_summary(folder, planned)
        folder.finish()
    except KeyboardInterrupt:
        reporter.say(f"interrupted; {wish.to_go_on}")
        raise
    return metrics, bad


def run_pictures(run: Run, trained: Trained, splits: Sequence[tuple[str | None, int | None]], registry: Registry,
                 reporter: Reporter) -> list[SplitPictures]:  # fmt: skip
    """Slices of a run's own data set, read again from its source.

    Args:
        splits: name and limit of each; None is test, or validation where the run has no test.

    Raises:
        InputError: where the data are not at hand any more, or the run has no such split.
    """
    recipe = recipe_of(run.resolved, run.folder / "resolved.json", registry)
    part = {row["id"]: row["split"] for row in table_of(run, "split.csv")}
    dataset = open_dataset(recipe, reporter, "skip")
    changed = dataset.digest != run.record.get("data_digest")
    if changed:
        reporter.say("the data set has changed since the run: maps are of what it holds now")
    with reporter.bar("decoding") as progress:
        dataset, slices = decoded_slices(dataset, trained.pixels, "skip", progress)
    known = {} if changed else _recorded_probabilities(run, trained)
    split = [part.get(sample.id) for sample in dataset.samples]
    return [
        split_pictures(dataset, slices, split, split_name(name, part.values()), limit, trained.pixels, known)
        for name, limit in splits
    ]


def _recorded_probabilities(run: Run, trained: Trained) -> dict[str, tuple[float, ...]]:
    """What the run recorded of each sample; nothing where the table does not fit the model."""
    columns = [f"p_{name}" for name in trained.classes]
    try:
        return {row["id"]: tuple(float(row[name]) for name in columns) for row in table_of(run, "predictions.csv")}
    except (KeyError, ValueError, InputError):
        return {}
