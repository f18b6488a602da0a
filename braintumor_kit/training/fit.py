"""Fitting a classifier as a recipe's [training] and [callbacks] say."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import torch

from braintumor_kit.contracts import InputError
from braintumor_kit.errors import is_out_of_memory
from braintumor_kit.files import make_folder
from braintumor_kit.memory import kept_memory
from braintumor_kit.model.build import LOGITS, Classifier
from braintumor_kit.model.fast import Program, graph_of
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
    History,
    Plateau,
    RateSchedule,
    Steps,
    Stopping,
    require_tensorboard,
    tensorboard_writer,
)
from braintumor_kit.training.checkpoint import (
    ANEW,
    Checkpoint,
    Keeper,
    Position,
    Remembers,
    load_checkpoint,
    put_back,
    recall,
)
from braintumor_kit.training.compiled import compile_where_it_pays
from braintumor_kit.training.features import Features, Frozen, feature_stores, frozen_part
from braintumor_kit.training.finite import FiniteLoss
from braintumor_kit.training.group import ALONE, Alike, Group, SumOverGroup
from braintumor_kit.training.optimizers import make_optimizer
from braintumor_kit.training.out_of_memory import with_less_memory
from braintumor_kit.training.task import Fitted, Task, Watch
from braintumor_kit.training.trainee import Trainee

LATEST = Path("checkpoints") / "latest.safetensors"
"""The checkpoint that a training goes on from, in its run folder."""


@dataclass(frozen=True)
class Phase:
    """A phase of training with every value in force."""

    epochs: int
    trainable: str
    learning_rate: float
    schedule: ScheduleTable


def fit(
    classifier: Classifier,
    task: Task,
    folder: Path,
    watch: Watch,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    resume: bool = False,
    group: Group = ALONE,
) -> Fitted:
    """Trains phase by phase and leaves the classifier with the weights of the best epoch.

    Args:
        folder: of the run, which is there; `history.csv` and `checkpoints/` are written in it as training goes on.
        callbacks: further ones.
        resume: go on from the checkpoint in the folder, on the same trajectory: in float32 on a CPU the history, times
            aside, and the weights are those of a training that was never interrupted, bit for bit.
        group: of the processes that train together, whose parts the task's batches are; the first writes the files,
            and all have to see the folder.

    Raises:
        WorkError: where the loss is not finite, memory does not suffice, or a file cannot be written.
        InputError: where there is no checkpoint to go on from, or it is not of this network.
    """
    checkpoint = load_checkpoint(folder / LATEST) if resume else None
    if group.writes:
        make_folder((folder / LATEST).parent, parents=False)
    if checkpoint is not None:
        task = task.of_batch_size(_batch_size(checkpoint.position.batch_size, task))
    while True:
        try:
            return _fit(classifier, task, folder, watch, callbacks, checkpoint, group)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            said = str(error)
        # Out here, where the error and with it what the step had allocated is gone.
        task = with_less_memory(classifier, task, said, watch)
        if has_checkpoint(folder):
            checkpoint = load_checkpoint(folder / LATEST).in_steps_of(task.train.batch_size)


def _fit(
    classifier: Classifier,
    task: Task,
    folder: Path,
    watch: Watch,
    callbacks: Sequence[keras.callbacks.Callback],
    checkpoint: Checkpoint | None,
    group: Group,
) -> Fitted:
    training = task.training
    group.take_over([variable.value for variable in classifier.model.variables])
    draws_curves = task.callbacks.tensorboard and group.writes
    listeners = [watch.epoch, *([tensorboard_writer(folder / "tensorboard")] if draws_curves else [])]
    history = History(folder / "history.csv" if group.writes else None, task.train, listeners)
    average = WeightAverage(classifier.model.variables, training.ema) if training.ema else None
    best = best_weights(classifier, folder, training, average, group.writes)
    steps = Steps(watch.step, task.train.steps, sum(phase.epochs for phase in phases(training)))
    always = [history, *([average] if average else []), best, steps, *callbacks]
    remembering: dict[str, Remembers] = {"history": history, "best": best, **({"average": average} if average else {})}
    averages = average.tensors if average else []
    if checkpoint is not None:
        _check_position(checkpoint.position, task)
        put_back(checkpoint, classifier.logits, averages)
        recall(remembering, checkpoint.memories)
        best.check()  # after which the network holds these
        put_back(checkpoint, classifier.logits, averages)
    with kept_memory():
        for number, phase in enumerate(phases(training)):
            begin = _beginning(number, phase, len(history.epochs), task.train.batch_size, checkpoint)
            if begin is not None:
                kept = Kept(folder / LATEST, begin, averages, remembering)
                _run_phase(phase, kept, classifier, task, always, watch, group)
    if group.writes:
        best.restore()
    return Fitted(tuple(history.epochs), best.epoch, best.best, task.train.batch_size)


def best_weights(
    classifier: Classifier,
    folder: Path,
    training: TrainingTable,
    average: WeightAverage | None = None,
    writes: bool = True,
) -> BestWeights:
    """Keeper of the weights of the best epoch, in a run folder."""
    return BestWeights(classifier.logits, folder / "checkpoints", training.select, average, writes)


def _batch_size(kept: int, task: Task) -> int:
    """The slices a step that a checkpoint counts in: the recipe's, or fewer where memory had run out.

    Raises:
        InputError: where it is another for no such reason.
    """
    asked, workers = task.train.batch_size, task.train.parts
    halved = task.training.on_out_of_memory == "halve" and 0 < kept < asked and asked % kept == 0
    if kept != asked and not halved:
        each = f", for each of {workers} workers" if workers > 1 else ""
        said = f"the checkpoint counts steps of {kept} slices, and training.batch_size is {asked // workers}{each}"
        raise InputError(f"{said}. {ANEW}")
    return kept


def _check_position(at: Position, task: Task) -> None:
    """Finds a checkpoint that stands nowhere in the training."""
    lengths = [phase.epochs for phase in phases(task.training)]
    inside = at.phase < len(lengths) and at.first_epoch <= at.epoch <= sum(lengths) and at.step <= task.train.steps
    if not inside:
        raise InputError(f"the checkpoint is damaged, or of another training: it stands at {at}. {ANEW}")


def has_checkpoint(folder: Path) -> bool:
    """Whether a training in that run folder can go on."""
    return (folder / LATEST).is_file()


def forget_checkpoint(folder: Path) -> None:
    """Removes what only an unfinished training needs."""
    (folder / LATEST).unlink(missing_ok=True)


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
            (phase.learning_rate or training.learning_rate) * training.rate_factor,
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


@dataclass(frozen=True)
class Lesson:
    """What a phase's epochs run on: the whole network on slices, or the rest of it on features of its frozen part."""

    trainee: Trainee
    train: Batches
    validation: Batches
    features: tuple[keras.callbacks.Callback, ...] = ()


@dataclass(frozen=True)
class Kept:
    """What is kept of a phase as it goes on.

    Attributes:
        path: of the checkpoint.
        begin: where the phase begins or goes on.
        averages, remembering: what is kept beside the network.
    """

    path: Path
    begin: Checkpoint
    averages: Sequence[torch.Tensor]
    remembering: Mapping[str, Remembers]


def _beginning(
    number: int, phase: Phase, epochs: int, batch_size: int, checkpoint: Checkpoint | None
) -> Checkpoint | None:
    """Where a phase begins, after so many epochs of those before it; None where it is over already."""
    at = checkpoint.position if checkpoint else Position()
    if checkpoint is None or number > at.phase:
        return Checkpoint(Position(number, epochs, epochs, batch_size=batch_size))
    over = number < at.phase or at.stopped or at.epoch >= at.first_epoch + phase.epochs
    return None if over else checkpoint


def _run_phase(
    phase: Phase, kept: Kept, classifier: Classifier, task: Task, always: list[keras.callbacks.Callback], watch: Watch,
    group: Group,
) -> None:  # fmt: skip
    first_epoch = kept.begin.position.first_epoch
    classifier.model.trainable = True
    for layer in frozen_layers(classifier, phase.trainable):
        layer.trainable = False
    lesson = _on_features(phase, first_epoch, classifier, task, watch) or _on_slices(classifier, task, group)
    lesson.trainee.compile(
        optimizer=make_optimizer(task.training, phase.learning_rate),
        loss=keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=task.training.label_smoothing),
        metrics=[keras.metrics.CategoricalAccuracy(name="accuracy")],
    )
    if not lesson.features:
        first_batch, steps = task.train[0][0], phase.epochs * task.train.steps
        asked = task.training.compile
        if group.size > 1 and asked == "auto":
            asked = False  # each would time it for itself, and they have to choose alike
        compile_where_it_pays(lesson.trainee, first_batch, asked, steps, watch.say)
    elif task.training.compile is True:
        watch.say("what runs on features is not compiled: there is little of it")
    finite = FiniteLoss(lesson.trainee, task.train.steps, task.dtype, kept.path)
    waiting = _waiting_callbacks(task.callbacks, first_epoch, phase.schedule)
    keeper = Keeper(
        kept.path, lesson.trainee, classifier.logits, kept.averages, {**kept.remembering, **waiting}, kept.begin,
        task.train.steps, finite.check, task.training.checkpoint_seconds, group.writes,
    )  # fmt: skip
    callbacks = [
        Clock(lesson.trainee, lesson.train, task.seed),
        RateSchedule(phase.schedule, phase.learning_rate, first_epoch, phase.epochs, task.train.steps),
        *([Alike(group, lesson.trainee, lesson.train, lesson.validation)] if group.size > 1 else []),
        finite,
        *always,
        *waiting.values(),
        *lesson.features,  # all that measures the epoch's time has begun
        keeper,
    ]
    if keeper.position.step:  # the rest of the epoch in which training stopped
        lesson.train.skipped = keeper.position.step
        _run_epochs(lesson, keeper.position.epoch, keeper.position.epoch + 1, callbacks)
        lesson.train.skipped = 0
    if not keeper.position.stopped:
        _run_epochs(lesson, keeper.position.epoch, first_epoch + phase.epochs, callbacks)


def _run_epochs(lesson: Lesson, first: int, end: int, callbacks: list[keras.callbacks.Callback]) -> None:
    if first < end:
        lesson.trainee.fit(
            lesson.train,
            validation_data=lesson.validation,
            initial_epoch=first,
            epochs=end,
            callbacks=callbacks,
            shuffle=False,  # the batches come in their own order; Keras would shuffle them once more
            verbose=0,
        )


def _on_slices(classifier: Classifier, task: Task, group: Group) -> Lesson:
    over_group = SumOverGroup(lambda: trainee.weight) if group.size > 1 and task.training.sync_batch_norm else None
    network, guided = classifier.logits, None
    if task.guidance:
        network, guided = (
            keras.Model(network.inputs, [classifier.last_cells, network.output]),
            (task.guidance, task.train),
        )
    program = Program(network, task.dtype, sum_over_group=over_group)
    trainee = Trainee(classifier, program, task.augmentation, task.seed, group, guided)
    return Lesson(trainee, task.train, task.validation)


def _on_features(phase: Phase, first_epoch: int, classifier: Classifier, task: Task, watch: Watch) -> Lesson | None:
    """The lesson on features, where the phase has a frozen part and there is room for what it gives."""
    if task.guidance:
        if frozen_part(graph_of(classifier.logits)) is not None:
            watch.say("masks move with their slices: the frozen part is computed anew in every step")
        return None
    if not task.training.feature_views or (task.training.ema and first_epoch):
        return None  # after a phase that moved them, frozen weights and their average differ, and validation takes both
    parts = frozen_part(graph_of(classifier.logits))
    if parts is None:
        return None
    if task.train.parts > 1:
        watch.say("with several workers the frozen part is computed anew in every step: none has all of its outputs")
        return None
    augmentation = task.augmentation if task.augmentation != AugmentTable() else None
    views = min(task.training.feature_views, phase.epochs) if augmentation else 1
    frozen = Frozen(Program(parts[0], task.dtype, frozen=True), classifier.channels, augmentation, task.seed)
    stores = feature_stores(frozen, task.train.stores[0], task.validation.stores[0], views)
    if stores is None:
        watch.say("no room to keep the outputs of the frozen part: it is computed anew in every epoch")
        return None
    shown = f"{views} augmented views" if augmentation else "one view, since nothing is augmented"
    watch.say(f"the frozen part is computed once ({shown} of each training slice); epochs run on the rest")
    train, validation = task.train.over(stores[:-1]), task.validation.over(stores[-1:])
    work = Features(frozen, task.train.stores[0], stores[:-1], task.validation.stores[0], stores[-1], watch.features)
    trainee = Trainee(classifier, Program(parts[1], task.dtype), None, task.seed)
    return Lesson(trainee, train, validation, (work,))


def _waiting_callbacks(
    callbacks: CallbacksTable, first_epoch: int, schedule: ScheduleTable
) -> dict[str, Plateau | Stopping]:
    """Those that wait for an improvement, by the names under which their memory is kept."""
    chosen: dict[str, Plateau | Stopping] = {}
    if callbacks.reduce_lr_on_plateau:
        warm = first_epoch + math.ceil(schedule.warmup_epochs)
        chosen["reduce_lr_on_plateau"] = Plateau(warm, **callbacks.reduce_lr_on_plateau.model_dump())
    if callbacks.early_stopping:
        chosen["early_stopping"] = Stopping(**callbacks.early_stopping.model_dump())
    return chosen
