"""One training: from a recipe and its material to a whole run folder."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from braintumor_kit.contracts import SPLITS
from braintumor_kit.data.held_out import HELD_OUT
from braintumor_kit.data.split import split_digest
from braintumor_kit.engines.engine import Engine
from braintumor_kit.evaluation.certainty import save_certainty
from braintumor_kit.evaluation.metrics import evaluate
from braintumor_kit.files import make_folder, whole, write_csv, write_json
from braintumor_kit.model.build import Classifier, bytes_of_file
from braintumor_kit.model.precision import resolve_precision
from braintumor_kit.progress import Reporter, log_to
from braintumor_kit.recipe.load import Recipe
from braintumor_kit.report import figures
from braintumor_kit.runs import Run, save_recipe, start_record, update_record, versions
from braintumor_kit.tracking.tracker import Tracker, tracked
from braintumor_kit.training.callbacks import Epoch
from braintumor_kit.training.fit import fit, forget_checkpoint, has_checkpoint
from braintumor_kit.training.task import Fitted, Watch
from braintumor_kit.workflows.ending import ending_recorded
from braintumor_kit.workflows.explain_tables import explain_at_end, just_trained, recorded
from braintumor_kit.workflows.guided import guided_task
from braintumor_kit.workflows.judge import judge
from braintumor_kit.workflows.material import Material
from braintumor_kit.workflows.mistakes import explain_mistakes
from braintumor_kit.workflows.report import write_report
from braintumor_kit.workflows.results import results_of
from braintumor_kit.workflows.together import fit_together
from braintumor_kit.workflows.unchanged import FOLLOWED, described


def train_into(
    run: Run,
    recipe: Recipe,
    text: str,
    material: Material,
    classifier: Classifier,
    argv: list[str],
    started: datetime,
    reporter: Reporter,
    resume: bool = False,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    engine: Engine | None = None,
) -> None:
    """Trains and evaluates in a run folder that exists, and records it.

    Args:
        text: the recipe as given.
        resume: go on from the run's checkpoint, or begin where it has none; what is known at the start was written
            before.
        callbacks: further ones; where one of them has the run fall behind others, it ends there as stopped.
        engine: that begins the workers of a training that has several.

    Raises:
        WorkError: where the work fails on the way; the run folder keeps what was done.
    """
    goes_on = resume and has_checkpoint(run.folder)
    with (
        log_to(run.folder),
        tracked(run, recipe.tables.mlflow, reporter.say, goes_on) as tracker,
        ending_recorded(run),
    ):
        if resume:
            update_record(run, status="running", ended=None, reason=None)
            _follow_changes(run, recipe, material, classifier)
        else:
            _begin(run, recipe, text, material, classifier, argv, started)
        reporter.say(f"run {run.folder}{' goes on' if resume else ''}", "resumed" if resume else "begun")
        tracker.begin()
        fitted = _fit(recipe, material, classifier, run, reporter, tracker, goes_on, callbacks, engine)
        chosen = {"best_epoch": fitted.best_epoch, f"best_{recipe.tables.training.select}": fitted.best}
        update_record(run, **chosen, batch_size=fitted.batch_size)
        _save_model(classifier, run)
        probabilities = _evaluate(recipe, material, classifier, fitted, run, reporter)
        update_record(run, results=results_of(run, classifier.model))
        _show(recipe, material, classifier, probabilities, run, reporter)
    forget_checkpoint(run.folder)


def _show(
    recipe: Recipe,
    material: Material,
    classifier: Classifier,
    probabilities: NDArray[np.float32],
    run: Run,
    reporter: Reporter,
) -> None:
    """Maps, and the report."""
    trained = just_trained(recipe, classifier, material.dataset.classes, run.folder)
    known = recorded(material, probabilities)
    explain_at_end(recipe, trained, material, known, run.folder, reporter)
    if recipe.tables.report:
        explain_mistakes(recipe, trained, material, known, run.folder, reporter)
        write_report(Run(run.folder))


def _begin(
    run: Run,
    recipe: Recipe,
    text: str,
    material: Material,
    classifier: Classifier,
    argv: list[str],
    started: datetime,
) -> None:
    """Writes what is known at the start."""
    save_recipe(run, text, recipe.resolved())
    _write_split(run, material)
    start_record(run, argv, recipe.tables.seed, started, _description(recipe, material, classifier))


def _follow_changes(run: Run, recipe: Recipe, material: Material, classifier: Classifier) -> None:
    """Where a run goes on with another recipe, other data or packages, which was accepted and is recorded, its files
    tell of these from now on."""
    now = {**_description(recipe, material, classifier), **versions()}
    if any(run.record.get(key) != now[key] for key in FOLLOWED) or not (run.folder / "split.csv").is_file():
        _write_split(run, material)
        update_record(run, **now)


def _description(recipe: Recipe, material: Material, classifier: Classifier) -> dict[str, Any]:
    dataset = material.dataset
    return {
        **described(recipe),
        "classes": list(dataset.classes),
        "samples": len(dataset.samples),
        "groups": len({sample.group for sample in dataset.samples if sample.group is not None}) or None,
        "bad_images": [{"id": bad.id, "reason": bad.reason} for bad in dataset.bad],
        "source_notes": dict(dataset.notes),
        "data_digest": dataset.digest,
        "split_digest": split_digest(dataset.samples, material.split),
        "leaks": material.leaks.as_json() if material.leaks else None,
        "backbone_weights": classifier.weights,
        "explain_layer": classifier.explain_layer,
        "parameters": classifier.model.count_params(),
        "selected_on": f"validation {recipe.tables.training.select.removeprefix('val_')}",
        "reported_on": "test" if "test" in material.split else None,
    }


def _write_split(run: Run, material: Material) -> None:
    rows = zip(material.dataset.samples, material.split, strict=True)
    write_csv(
        run.folder / "split.csv",
        ("id", "label", "group", "split"),
        ((sample.id, sample.label, sample.group, part) for sample, part in rows),
    )


def _fit(
    recipe: Recipe,
    material: Material,
    classifier: Classifier,
    run: Run,
    reporter: Reporter,
    tracker: Tracker,
    resume: bool,
    callbacks: Sequence[keras.callbacks.Callback],
    engine: Engine | None,
) -> Fitted:
    training = recipe.tables.training
    reporter.say(f"training in {resolve_precision(training.precision)}; weights: {classifier.weights}")

    def tell(row: Epoch) -> None:
        reporter.say(_epoch_line(row), "epoch", **asdict(row))
        tracker.epoch(row.epoch, {name: value for name, value in asdict(row).items() if name != "epoch"})

    with reporter.bars("features of the frozen part", "training, step") as (features, steps):
        watch = Watch(tell, steps, features, reporter.say)
        if training.workers > 1:
            return fit_together(recipe, material, classifier, run.folder, watch, resume, engine)
        task = guided_task(recipe, material, classifier, reporter)
        return fit(classifier, task, run.folder, watch, callbacks, resume)


def _epoch_line(row: Epoch) -> str:
    return (
        f"epoch {row.epoch}: loss {row.loss:.4f}, accuracy {row.accuracy:.4f}; validation loss {row.val_loss:.4f}, "
        f"accuracy {row.val_accuracy:.4f}; rate {row.learning_rate:.2g}; {row.images_per_second:.1f} images/s"
    )


def _save_model(classifier: Classifier, run: Run) -> None:
    classifier.model.trainable = True
    with whole(run.model_path, bytes_of_file(classifier.model)) as beside:
        classifier.model.save(beside)


def _evaluate(
    recipe: Recipe, material: Material, classifier: Classifier, fitted: Fitted, run: Run, reporter: Reporter
) -> NDArray[np.float32]:
    """Writes figures, metrics and predictions; gives the probabilities of every sample."""
    probabilities, certainty, flagged = judge(recipe, material, classifier, reporter)
    save_certainty(certainty, run.folder)
    calibrated = certainty.calibrated(probabilities.astype(np.float64))
    metrics = {**split_metrics(material, probabilities, calibrated), "certainty": flagged}
    write_predictions(run, material, probabilities, calibrated)
    write_json(run.folder / "metrics.json", metrics)
    folder = make_folder(run.folder / "figures", parents=False)
    _draw(folder, material, probabilities, calibrated, fitted, metrics, recipe.tables.seed)
    return probabilities


def split_metrics(
    material: Material, probabilities: NDArray[np.float32], calibrated: NDArray[np.float64]
) -> dict[str, Any]:
    """The content of `metrics.json`; a split that the protocol lacks is None."""
    labels, samples = material.dataset.labels, material.dataset.samples
    metrics: dict[str, Any] = {}
    for part in (*SPLITS, *([HELD_OUT] if HELD_OUT in material.split else [])):
        places = material.places(part)
        groups = [samples[place].group for place in places]
        plain, classes = probabilities[places].astype(np.float64), material.dataset.classes
        metrics[part] = evaluate(labels[places], plain, groups, classes, calibrated[places])
    warnings = {"warning": f"the split leaks: {material.leaks.sentence}"} if material.leaks else {}
    return {**metrics, "selected_on": "validation", "reported_on": "test" if metrics["test"] else None, **warnings}


def write_predictions(
    run: Run, material: Material, probabilities: NDArray[np.float32], calibrated: NDArray[np.float64]
) -> None:
    """Writes `predictions.csv`, one row a sample."""
    classes: Sequence[str] = material.dataset.classes
    columns = (f"{kind}_{name}" for kind in "pc" for name in classes)
    rows = zip(material.dataset.samples, material.split, probabilities, calibrated, strict=True)
    write_csv(
        run.folder / "predictions.csv",
        ("id", "split", "group", "label", "predicted", *columns),
        (
            (
                sample.id,
                part,
                sample.group,
                sample.label,
                classes[int(row.argmax())],
                *(f"{p:.9g}" for p in (*row, *sure)),
            )
            for sample, part, row, sure in rows
        ),
    )


def _draw(
    folder: Path,
    material: Material,
    probabilities: NDArray[np.float32],
    calibrated: NDArray[np.float64],
    fitted: Fitted,
    metrics: dict[str, Any],
    seed: int,
) -> None:
    part = "test" if metrics["test"] else "validation"
    places = material.places(part)
    labels = material.dataset.labels[places]
    figures.learning_curves(folder / "learning_curves.png", [asdict(row) for row in fitted.history], fitted.best_epoch)
    figures.confusion_matrices(folder / "confusion_matrix.png", metrics)
    plain = probabilities[places].astype(np.float64)
    figures.reliability_diagram(folder / "reliability.png", labels, plain, calibrated[places], part)
    figures.risk_coverage_curve(folder / "risk_coverage.png", labels, plain, part)
    figures.sample_sheet(folder / "sample_sheet.png", _samples_of_each_class(material, seed), material.dataset.classes)


def _samples_of_each_class(material: Material, seed: int, columns: int = 8) -> NDArray[np.uint8]:
    """Random training slices of each class, uint8 (classes, columns, S, S, C); black where a class has fewer."""
    random = np.random.default_rng(seed)
    train, labels = material.places("train"), material.dataset.labels
    sheet = np.zeros((len(material.dataset.classes), columns, *material.slices.array.shape[1:]), np.uint8)
    for number in range(len(sheet)):
        chosen = random.permutation(train[labels[train] == number])[:columns]
        sheet[number, : len(chosen)] = material.slices[np.sort(chosen)]
    return sheet
