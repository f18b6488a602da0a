"""Fitting a classifier as a recipe's [training] and [callbacks] say."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import keras
import torch

from braintumor_kit.contracts import InputError
from braintumor_kit.model.build import LOGITS, Classifier
from braintumor_kit.recipe.tables import (
    AugmentTable,
    CallbacksTable,
    PhaseTable,
    ScheduleTable,
    TrainingTable,
)
from braintumor_kit.spelling import nearest
from braintumor_kit.training.average import WeightAverage
from braintumor_kit.training.batches import Batches
from braintumor_kit.training.callbacks import (
    BestWeights,
    Clock,
    Epoch,
    History,
    Plateau,
    RateSchedule,
    require_tensorboard,
    tensorboard_writer,
)
from braintumor_kit.training.trainee import Trainee


@dataclass(frozen=True)
class Phase:
    """A phase of training with every value in force."""

    epochs: int
    trainable: str
    learning_rate: float
    schedule: ScheduleTable


@dataclass(frozen=True)
class Fitted:
    """What a training came to. The classifier holds the weights of the best epoch.

    Attributes:
        history: one row an epoch.
        best_epoch: counted from 1.
        best: the value on validation that selected it.
    """

    history: tuple[Epoch, ...]
    best_epoch: int
    best: float


def fit(
    classifier: Classifier,
    train: Batches,
    validation: Batches,
    training: TrainingTable,
    augmentation: AugmentTable,
    callbacks: CallbacksTable,
    dtype: torch.dtype,
    seed: int,
    folder: Path,
    tell: Callable[[Epoch], None],
    watch: keras.callbacks.Callback | None = None,
) -> Fitted:
    """Trains phase by phase and leaves the classifier with the weights of the best epoch.

    Args:
        folder: of the run; `history.csv` and `checkpoints/` are written there as training goes on.
        tell: called with each finished epoch.
        watch: a callback that shows progress.

    Raises:
        WorkError: where the loss is not finite, or a file cannot be written.
    """
    trainee = Trainee(classifier, augmentation, dtype, seed)
    listeners = [tell, *([tensorboard_writer(folder / "tensorboard")] if callbacks.tensorboard else [])]
    history = History(folder / "history.csv", train, listeners)
    average = WeightAverage(classifier.model.variables, training.ema) if training.ema else None
    best = BestWeights(classifier.logits, folder / "checkpoints" / "best.weights.h5", training.select, average)
    always = [
        Clock(trainee, train, seed),
        history,
        *([average] if average else []),
        best,
        *([watch] if watch else []),
    ]
    for phase in phases(training):
        _run_phase(phase, len(history.epochs), trainee, classifier, train, validation, training, callbacks, always)
    best.restore()
    return Fitted(tuple(history.epochs), best.epoch, best.best)


def check(classifier: Classifier, training: TrainingTable, callbacks: CallbacksTable) -> None:
    """Finds what would stop a training before it begins.

    Raises:
        InputError: where a phase names a stage that the backbone lacks, or a callback needs a missing package.
    """
    for phase in phases(training):
        frozen_layers(classifier, phase.trainable)
    if callbacks.tensorboard:
        require_tensorboard()


def phases(training: TrainingTable) -> list[Phase]:
    """The phases of a training; one of all epochs where the recipe names none."""
    listed = training.phases or (PhaseTable(epochs=training.epochs or 0),)
    return [
        Phase(
            phase.epochs,
            phase.trainable or training.trainable,
            phase.learning_rate or training.learning_rate,
            phase.schedule or training.schedule,
        )
        for phase in listed
    ]


def frozen_layers(classifier: Classifier, trainable: str) -> list[keras.Layer]:
    """Layers that stay as they are when `trainable` ("all", "head" or a stage) is trained.

    Raises:
        InputError: where the backbone has no such stage.
    """
    if trainable == "all":
        return []
    if trainable == "head":
        return [layer for layer in classifier.model.layers if layer.name != LOGITS]
    names = list(classifier.stages)
    if trainable not in names:
        known = ["all", "head", *names]
        near = nearest(trainable, known)
        hint = f"; did you mean '{near}'?" if near else "."
        raise InputError(f"trainable = '{trainable}' is none of {', '.join(known)}{hint}")
    place = names.index(trainable)
    if place == 0:
        return []
    boundary = classifier.model.get_layer(classifier.stages[names[place - 1]])
    return keras.Model(classifier.model.inputs, boundary.output).layers


def make_optimizer(training: TrainingTable, learning_rate: float) -> keras.optimizers.Optimizer:
    """The recipe's optimizer; weight decay, where asked for, is decoupled and of kernels alone."""
    decay = training.weight_decay or None
    match training.optimizer:
        case "adam":
            optimizer = keras.optimizers.Adam(learning_rate, weight_decay=decay)
        case "adamw":
            optimizer = keras.optimizers.AdamW(learning_rate, weight_decay=training.weight_decay)
        case _:
            optimizer = keras.optimizers.SGD(learning_rate, momentum=0.9, nesterov=True, weight_decay=decay)
    if training.weight_decay:
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer


def _run_phase(
    phase: Phase,
    first_epoch: int,
    trainee: Trainee,
    classifier: Classifier,
    train: Batches,
    validation: Batches,
    training: TrainingTable,
    callbacks: CallbacksTable,
    always: list[keras.callbacks.Callback],
) -> None:
    classifier.model.trainable = True
    for layer in frozen_layers(classifier, phase.trainable):
        layer.trainable = False
    trainee.compile(
        optimizer=make_optimizer(training, phase.learning_rate),
        loss=keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=training.label_smoothing),
        metrics=[keras.metrics.CategoricalAccuracy(name="accuracy")],
    )
    schedule = RateSchedule(phase.schedule, phase.learning_rate, first_epoch, phase.epochs, len(train))
    trainee.fit(
        train,
        validation_data=validation,
        initial_epoch=first_epoch,
        epochs=first_epoch + phase.epochs,
        callbacks=[schedule, *always, *_plateau_callbacks(callbacks, first_epoch, phase.schedule)],
        shuffle=False,  # the batches come in their own order; Keras would shuffle them once more
        verbose=0,
    )


def _plateau_callbacks(
    callbacks: CallbacksTable, first_epoch: int, schedule: ScheduleTable
) -> list[keras.callbacks.Callback]:
    chosen: list[keras.callbacks.Callback] = []
    if callbacks.reduce_lr_on_plateau:
        warm = first_epoch + math.ceil(schedule.warmup_epochs)
        chosen.append(Plateau(warm, **callbacks.reduce_lr_on_plateau.model_dump()))
    if callbacks.early_stopping:
        chosen.append(keras.callbacks.EarlyStopping(**callbacks.early_stopping.model_dump()))
    return chosen
