"""What processes do together for the tests of data-parallel training; they import it by name."""

import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import torch
from numpy.typing import NDArray
from test_training import Small, batches, material
from torch import distributed

from braintumor_kit.contracts import NoOptions
from braintumor_kit.engines.together import Tell
from braintumor_kit.errors import WorkError
from braintumor_kit.model.build import Classifier, build_classifier
from braintumor_kit.model.fast import Program
from braintumor_kit.recipe.tables import AugmentTable, CallbacksTable, TrainingTable
from braintumor_kit.training.batches import Batches, Labels
from braintumor_kit.training.fit import fit
from braintumor_kit.training.group import ALONE, Group, SumOverGroup
from braintumor_kit.training.randomness import seed_everything
from braintumor_kit.training.store import Mapped
from braintumor_kit.training.task import Task, Watch
from braintumor_kit.training.trainee import Trainee

COUNT = 13
"""Slices of an epoch of steps of 6 (two workers): the last step has one slice, and so a part without any."""


def network(frozen_statistics: bool) -> Classifier:
    made = without_dropout()
    for layer in made.logits.layers:
        if isinstance(layer, keras.layers.BatchNormalization) and frozen_statistics:
            layer.trainable = False
    return made


def here() -> Group:
    return Group(distributed.get_rank(), distributed.get_world_size())


@dataclass(frozen=True)
class Gradients:
    """Tells rank, and of each step the gradients of the network's weights, by name; no draw, no optimizer."""

    sync: bool
    frozen_statistics: bool

    def __call__(self, tell: Tell) -> None:
        group, made = here(), network(self.frozen_statistics)
        trainee: Trainee
        over = SumOverGroup(lambda: trainee.weight) if self.sync else None
        trainee = Trainee(made, Program(made.logits, torch.float32, sum_over_group=over), AugmentTable(), 0, group)
        slices, labels = material(COUNT)
        parts = Batches(
            [Mapped(slices.array, torch.device("cpu"))], Labels(labels, 2), 6, 1, rank=group.rank, parts=group.size
        )
        loss = keras.losses.CategoricalCrossentropy(from_logits=True)
        for step in range(parts.steps):
            pictures, wanted = parts[step]
            trainee.weight = parts.share(step) * group.size
            trainee.zero_grad()
            loss(wanted, trainee(pictures, training=True)).backward()
            tell((group.rank, step, gradients(made)))


def gradients(made: Classifier) -> dict[str, NDArray[np.float32]]:
    return {item.path: item.value.grad.numpy().copy() for item in made.logits.trainable_variables}


def without_dropout() -> Classifier:
    seed_everything(5)
    return build_classifier(Small(NoOptions()), 2, 32, dropout=0.0)


def small_task(values: Mapping[str, Any], group: Group = ALONE, callbacks: Mapping[str, Any] | None = None) -> Task:
    """37 slices in steps of 8, and 11 of validation, of which a worker has its part."""
    slices, labels = material()
    training = TrainingTable.model_validate({"learning_rate": 1e-2, "epochs": 3, **values})
    store = Mapped(slices.array, torch.device("cpu"), np.arange(37))
    train = Batches([store], Labels(labels[:37], 2), 8, 5, rank=group.rank, parts=group.size)
    validation = batches(slices, labels, np.arange(37, 48)[group.rank :: group.size], 8 // group.size)
    tables = AugmentTable(), CallbacksTable.model_validate(callbacks or {})
    return Task(train, validation, training, *tables, torch.float32, 5)


@dataclass(frozen=True)
class Fits:
    """Fits a network, and tells rank, history and weights."""

    folder: Path
    values: tuple[tuple[str, Any], ...]

    def __call__(self, tell: Tell) -> None:
        group, made = here(), without_dropout()
        task = small_task(dict(self.values), group, {"reduce_lr_on_plateau": {"patience": 0, "min_delta": 1.0}})
        fitted = fit(made, task, self.folder, Watch(lambda row: None), group=group)
        tell((group.rank, fitted, [item.numpy() for item in made.model.variables], group.writes))


@dataclass(frozen=True)
class Refuses:
    """One raises while the other waits for it."""

    rank: int

    def __call__(self, tell: Tell) -> None:
        if distributed.get_rank() == self.rank:
            raise WorkError("the loss is not finite")
        distributed.barrier()


@dataclass(frozen=True)
class Dies:
    """One is killed while the other waits for it."""

    rank: int
    by: int = signal.SIGKILL

    def __call__(self, tell: Tell) -> None:
        if distributed.get_rank() == self.rank:
            os.kill(os.getpid(), self.by)
        distributed.barrier()


@dataclass(frozen=True)
class Stumbles:
    """One fails for a reason that btkit does not know."""

    def __call__(self, tell: Tell) -> None:
        if distributed.get_rank() == 1:
            raise ZeroDivisionError("no such thing")
        distributed.barrier()


@dataclass(frozen=True)
class Counts:
    """Tells its rank, its threads and what all ranks come to."""

    def __call__(self, tell: Tell) -> None:
        ranks = torch.tensor([float(distributed.get_rank())])
        distributed.all_reduce(ranks)
        tell((distributed.get_rank(), torch.get_num_threads(), float(ranks)))
