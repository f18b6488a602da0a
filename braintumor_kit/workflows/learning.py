"""What a recipe trains: its classifier, and what is fitted to what."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from braintumor_kit.contracts import InputError
from braintumor_kit.data.dataset import Dataset
from braintumor_kit.model.build import Classifier, build_classifier
from braintumor_kit.model.precision import PRECISIONS, keras_device, resolve_precision
from braintumor_kit.progress import Reporter
from braintumor_kit.recipe.load import Recipe
from braintumor_kit.training.batches import Batches, Labels, balanced_weights
from braintumor_kit.training.group import ALONE, Group
from braintumor_kit.training.store import store_of
from braintumor_kit.training.task import Task
from braintumor_kit.workflows.material import Material


def build(recipe: Recipe, dataset: Dataset) -> Classifier:
    """The classifier that the recipe asks for."""
    tables = recipe.tables
    backbone = recipe.backbone.make()
    with recipe.backbone.info.blamed("building its trunk"):
        classifier = build_classifier(backbone, len(dataset.classes), tables.pixels.image_size, tables.training.dropout)
    if tables.pixels.colour == "rgb" and classifier.channels != 3:
        raise InputError(f'[pixels] colour = "rgb", but backbone {recipe.backbone.info.name} takes grey slices.')
    return classifier


def make_task(recipe: Recipe, material: Material, reporter: Reporter, group: Group = ALONE) -> Task:
    """What the recipe says is fitted to what; in a group, this one's part of every step and of validation."""
    tables = recipe.tables
    labels, classes = material.dataset.labels, len(material.dataset.classes)
    device = torch.device(keras_device())

    def batches(
        part: str, places: NDArray[np.int64], weights: Sequence[float] | None = None, seed: int | None = None
    ) -> Batches:
        with reporter.bar(f"copying {part} to the device") as progress:
            store = store_of(material.slices, places, device, progress)
        learned = Labels(labels[places], classes, weights)
        if seed is None:
            return Batches([store], learned, tables.training.batch_size)
        return Batches(
            [store], learned, tables.training.batch_size * group.size, seed, rank=group.rank, parts=group.size
        )

    train, validation = material.places("train"), material.places("validation")
    balanced = tables.training.class_weights == "balanced"
    weights = balanced_weights(labels[train], classes) if balanced else None
    return Task(
        batches("train", train, weights, tables.seed),
        batches("validation", validation[group.rank :: group.size]),
        tables.training,
        tables.augment,
        tables.callbacks,
        PRECISIONS[resolve_precision(tables.training.precision)],
        tables.seed,
    )


def check_shares(recipe: Recipe, material: Material) -> None:
    """Finds early that there are more workers than slices of validation.

    Raises:
        InputError: where that is so.
    """
    workers, slices = recipe.tables.training.workers, len(material.places("validation"))
    if slices < workers:
        raise InputError(f"training.workers = {workers}, and validation has {slices} slices to share: ask for fewer.")
