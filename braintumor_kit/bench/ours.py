"""btkit in the races: the whole of `fit` as a recipe runs it, and inference as `predict` runs it."""

import tempfile
from pathlib import Path
from typing import Any

import keras
import numpy as np

from braintumor_kit.bench.gate import Gate
from braintumor_kit.bench.laps import LapsOfFit
from braintumor_kit.data.cache import Slices
from braintumor_kit.model.build import Classifier
from braintumor_kit.model.infer import Predictor
from braintumor_kit.model.precision import PRECISIONS
from braintumor_kit.progress import Reporter
from braintumor_kit.recipe.load import load_recipe
from braintumor_kit.training.fit import fit
from braintumor_kit.training.task import Task, Watch
from braintumor_kit.workflows.learning import build, make_task
from braintumor_kit.workflows.material import gather
from braintumor_kit.workflows.open_data import open_dataset


def fit_laps(settings: dict[str, Any], gate: Gate) -> None:
    """Training as `btkit run` trains: slices from the cache, augmentation, metrics, callbacks. Validation and what
    follows it do not count, as in `images_per_second` of history.csv."""
    classifier, task = prepared_task(settings)
    with tempfile.TemporaryDirectory() as folder:
        fit(classifier, task, Path(folder), Watch(lambda row: None), [LapsOfFit(settings, gate)])


def inference_laps(settings: dict[str, Any], gate: Gate) -> None:
    """Probabilities of uint8 slices."""
    classifier, _ = prepared_task(settings)
    predictor = Predictor(classifier.model, PRECISIONS[settings["dtype"]])
    size, count = settings["image_size"], settings["steps"] * settings["batch_size"]
    slices = Slices(np.random.default_rng(0).integers(0, 256, (count, size, size, 1), np.uint8), np.arange(count))
    predictor.over(slices)
    for _ in gate.laps():
        predictor.over(slices)
        gate.done(count)


def frozen_lap(settings: dict[str, Any], gate: Gate) -> None:
    """Three epochs of the classifying layer on a frozen trunk; tells the seconds of each, validation included."""
    classifier, task = prepared_task(settings)
    with tempfile.TemporaryDirectory() as folder:
        for _ in gate.laps():
            fitted = fit(classifier, task, Path(folder), Watch(lambda row: None))
            gate.done(task.train.samples, epochs=[row.seconds for row in fitted.history])


def data_lap(settings: dict[str, Any], gate: Gate) -> None:
    """Lists, fingerprints and decodes the pictures, or finds them in the cache."""
    recipe = load_recipe(Path(settings["recipe"]))
    for _ in gate.laps():
        (material,) = gather(recipe, open_dataset(recipe, Reporter()), Reporter())
        gate.done(len(material.dataset.samples))


def prepared_task(settings: dict[str, Any]) -> tuple[Classifier, Task]:
    """The classifier and what it is fitted to, from the recipe that the benchmark wrote beside its pictures."""
    recipe = load_recipe(Path(settings["recipe"]), settings.get("overrides", ()))
    keras.utils.set_random_seed(0)
    dataset = open_dataset(recipe, Reporter())
    classifier = build(recipe, dataset)
    return classifier, make_task(recipe, gather(recipe, dataset, Reporter())[0], Reporter())
