"""What acts between steps and epochs of a training, beside Keras' own callbacks."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass, fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import keras

from braintumor_kit.contracts import InputError
from braintumor_kit.data.dataset import Progress
from braintumor_kit.files import reason_of, whole, write_csv
from braintumor_kit.model.build import bytes_of_file
from braintumor_kit.model.weights_file import check_weights
from braintumor_kit.recipe.tables import ScheduleTable
from braintumor_kit.training.average import WeightAverage
from braintumor_kit.training.batches import Batches
from braintumor_kit.training.randomness import seed_step
from braintumor_kit.training.schedules import rate_factor
from braintumor_kit.training.trainee import Trainee

WEIGHTS = ".weights.h5"

Logs = dict[str, float] | None


@dataclass(frozen=True)
class Epoch:
    """A row of `history.csv`; epochs count from 1, losses are in nats, `learning_rate` is that of the epoch's first
    step, `seconds` is the whole epoch and `images_per_second` its training part."""

    epoch: int
    loss: float
    accuracy: float
    val_loss: float
    val_accuracy: float
    learning_rate: float
    seconds: float
    images_per_second: float


class Clock(keras.callbacks.Callback):
    """Tells the batches and the model where training stands, and seeds each step."""

    def __init__(self, trainee: Trainee, batches: Batches, seed: int) -> None:
        super().__init__()
        self._trainee, self._batches, self._seed = trainee, batches, seed

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        self._trainee.epoch = self._batches.epoch = epoch

    def on_train_batch_begin(self, batch: int, logs: Logs = None) -> None:
        step = self._trainee.step = batch + self._batches.skipped
        self._trainee.weight = self._batches.share(step) * self._batches.parts
        seed_step(self._seed, self._trainee.epoch, step, self._batches.rank)


class Steps(keras.callbacks.Callback):
    """Tells how many steps of the whole training are done."""

    def __init__(self, progress: Progress, steps: int, epochs: int) -> None:
        super().__init__()
        self._progress, self._steps, self._total = progress, steps, steps * epochs

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        self._progress(self.model.epoch * self._steps + self.model.step + 1, self._total)


class RateSchedule(keras.callbacks.Callback):
    """Sets the learning rate before each step; past its warm-up a constant schedule leaves it to others."""

    def __init__(self, schedule: ScheduleTable, highest: float, first_epoch: int, epochs: int, steps: int) -> None:
        super().__init__()
        self._schedule, self._highest = schedule, highest
        self._first_epoch, self._steps, self._total = first_epoch, steps, epochs * steps
        self._step = 0
        warmup = math.ceil(schedule.warmup_epochs * steps) + 1
        self._acts_until = warmup if schedule.name == "constant" else self._total

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        self._step = (epoch - self._first_epoch) * self._steps

    def on_train_batch_begin(self, batch: int, logs: Logs = None) -> None:
        step = self._step + self.model.step
        if step < self._acts_until:
            factor = rate_factor(self._schedule, step, self._steps, self._total)
            self.model.optimizer.learning_rate = self._highest * factor


class Plateau(keras.callbacks.ReduceLROnPlateau):
    """Keras' ReduceLROnPlateau, which waits until warm-up is over: during it the schedule sets the rate. It remembers
    across processes, where Keras' own begins anew."""

    def __init__(self, first_epoch: int, **settings: Any) -> None:
        super().__init__(**settings)
        self._first_epoch = first_epoch

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        if epoch >= self._first_epoch:
            super().on_epoch_end(epoch, logs)

    def memory(self) -> dict[str, Any]:
        """The best value so far, and the epochs waited and left to cool down."""
        return {"best": _number(self.best), "wait": self.wait, "cooldown": self.cooldown_counter}

    def recall(self, memory: Mapping[str, Any]) -> None:
        """Takes up what it remembered."""
        self.best, self.wait, self.cooldown_counter = memory["best"], memory["wait"], memory["cooldown"]


class Stopping(keras.callbacks.EarlyStopping):
    """Keras' EarlyStopping, which remembers across processes."""

    def memory(self) -> dict[str, Any]:
        """The best value so far, and the epochs waited."""
        return {"best": _number(self.best), "wait": self.wait}

    def recall(self, memory: Mapping[str, Any]) -> None:
        """Takes up what it remembered."""
        self.best, self.wait = memory["best"], memory["wait"]


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


class History(keras.callbacks.Callback):
    """Keeps `history.csv` whole after every epoch, where this process is to, and passes each new row on."""

    def __init__(self, path: Path | None, batches: Batches, listeners: Sequence[Callable[[Epoch], None]]) -> None:
        super().__init__()
        self._path, self._samples, self._listeners = path, batches.samples, listeners
        self.epochs: list[Epoch] = []
        self._began = self._trained = self._rate = 0.0

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        self._began = time.monotonic()

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        if self.model.step == 0:
            self._rate = float(self.model.optimizer.learning_rate)

    def on_test_begin(self, logs: Logs = None) -> None:
        self._trained = time.monotonic() - self._began

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        logs = logs or {}
        seconds = time.monotonic() - self._began
        row = Epoch(
            epoch=epoch + 1,
            loss=float(logs["loss"]),
            accuracy=float(logs["accuracy"]),
            val_loss=float(logs["val_loss"]),
            val_accuracy=float(logs["val_accuracy"]),
            learning_rate=self._rate,
            seconds=round(seconds, 3),
            images_per_second=round(self._samples / self._trained, 2),
        )
        self.epochs.append(row)
        self._write()
        for tell in self._listeners:
            tell(row)

    def memory(self) -> dict[str, Any]:
        """The epochs that are done, and the rate of the first step of the one that is not."""
        return {"epochs": [asdict(row) for row in self.epochs], "rate": self._rate}

    def recall(self, memory: Mapping[str, Any]) -> None:
        """Takes up the epochs that it remembered; what was written of later ones will be made again."""
        self.epochs[:] = [Epoch(**row) for row in memory["epochs"]]
        self._rate = memory["rate"]
        self._write()

    def _write(self) -> None:
        if self._path is None:
            return
        names = [field.name for field in fields(Epoch)]
        write_csv(self._path, names, [list(asdict(item).values()) for item in self.epochs])


class BestWeights(keras.callbacks.Callback):
    """Keeps the weights of the best epoch on validation, in a file named after it.

    A file goes when the next epoch begins after a better one: by then a checkpoint is written that knows of that one.
    So the file that any checkpoint speaks of is there, with the weights of that epoch and of no other.

    Args:
        network: whose weights are kept.
        folder: for the file.
        monitor: what selects, "val_accuracy" or "val_loss".
        average: is kept in the place of the weights, where there is one.
        writes: False where another process keeps them.

    Attributes:
        best: the best value so far.
        epoch: its epoch, counted from 1; 0 before the first.
    """

    def __init__(
        self, network: keras.Model, folder: Path, monitor: str, average: WeightAverage | None, writes: bool = True
    ) -> None:
        super().__init__()
        self._writes = writes
        self._network, self._folder, self._monitor, self._average = network, folder, monitor, average
        self._sign = -1.0 if monitor == "val_loss" else 1.0
        self.best, self.epoch = -math.inf * self._sign, 0

    @property
    def path(self) -> Path:
        """Of the file with the best weights so far."""
        return self._folder / f"best-{self.epoch:04}{WEIGHTS}"

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        self._tidy()

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        value = float((logs or {})[self._monitor])
        if self._sign * value <= self._sign * self.best:
            return
        self.best, self.epoch = value, epoch + 1
        if not self._writes:
            return
        averaged = self._average.applied() if self._average else nullcontext()
        with averaged, whole(self.path, bytes_of_file(self._network), lasting=True) as beside:
            self._network.save_weights(beside)

    def memory(self) -> dict[str, Any]:
        """The best value and its epoch; its weights have a file of their own."""
        return {"best": self.best, "epoch": self.epoch}

    def recall(self, memory: Mapping[str, Any]) -> None:
        """Takes up what it remembered."""
        self.best, self.epoch = float(memory["best"]), int(memory["epoch"])

    def check(self) -> None:
        """Finds early, before epochs of work, that the best weights so far are lost. The network then holds them.

        Raises:
            InputError: where they cannot be read.
        """
        if self.epoch:
            self._load()

    def restore(self) -> None:
        """Puts the best weights back into the network.

        Raises:
            InputError: where they cannot be read.
        """
        self._load()
        self._tidy()

    def _load(self) -> None:
        try:
            check_weights(self.path, str(self.path), self.path.stat().st_size)
            self._network.load_weights(self.path)
        except (InputError, OSError, RuntimeError, LookupError, ValueError, TypeError) as error:
            raise InputError(
                f"{self.path}, the best weights so far, cannot be read: {reason_of(error)}. Put it back, or remove "
                "latest.safetensors beside it, and the training begins anew in the same folder, with --accept-changes."
            ) from error

    def _tidy(self) -> None:
        if not self._writes:
            return
        for old in self._folder.glob(f"best-*{WEIGHTS}"):
            if old != self.path:
                with suppress(OSError):  # it costs room and no more
                    old.unlink()


def require_tensorboard() -> None:
    """Raises an InputError that says how to get the extra where it is missing."""
    if find_spec("tensorboard") is None:
        raise InputError(
            "[callbacks.tensorboard] needs the package tensorboard: pip install 'braintumor-kit[tensorboard]'."
        )


def tensorboard_writer(folder: Path) -> Callable[[Epoch], None]:
    """Writes rows of the history for TensorBoard, through torch's writer: Keras' own needs tensorflow."""
    from torch.utils.tensorboard import SummaryWriter  # an extra: not everyone has the package behind it

    writer = SummaryWriter(str(folder))

    def write(row: Epoch) -> None:
        for name, value in asdict(row).items():
            if name != "epoch":
                writer.add_scalar(name, value, row.epoch)
        writer.flush()

    return write
