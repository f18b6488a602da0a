"""Where a training stands, kept on disk, so that it can go on from there exactly.

Every draw follows from (seed, epoch, step), so what has to be kept is the state that steps change: variables of the
network and of the optimizer, the averages, the metrics of the epoch so far, and what callbacks remember.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

import keras
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from braintumor_kit.contracts import InputError
from braintumor_kit.files import whole
from braintumor_kit.training.trainee import Trainee

FORMAT = 2
ANEW = "Remove it, and the training begins anew in the same folder, with --accept-changes."
SECONDS = 20.0
"""At least so long between two checkpoints inside an epoch, where the recipe does not say how long."""

SHARE = 0.05
"""Of the time, at most so much then goes into writing checkpoints inside epochs."""


Count = Annotated[int, Field(ge=0)]


class Remembers(Protocol):
    """A callback whose memory outlives the process."""

    def memory(self) -> dict[str, Any]:
        """What it remembers, as plain JSON values."""

    def recall(self, memory: Mapping[str, Any]) -> None:
        """Takes up what it remembered."""


@dataclass(frozen=True)
class Position:
    """Where a training stands.

    Attributes:
        phase: number of the phase, from 0.
        first_epoch: with which the phase began.
        epoch: in which training stands, from 0 over all phases.
        step: steps of it that are done.
        stopped: whether a callback has ended the phase early.
        batch_size: slices a step; 0 in checkpoints of before it was kept.
    """

    phase: Count = 0
    first_epoch: Count = 0
    epoch: Count = 0
    step: Count = 0
    stopped: bool = False
    batch_size: Count = 0


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint file holds.

    Attributes:
        tensors: by group and number, such as "optimizer.3".
        memories: of callbacks, by name.
    """

    position: Position
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    memories: Mapping[str, Any] = field(default_factory=dict)

    def group(self, name: str) -> list[Tensor]:
        """The tensors of a group, in order."""
        count = sum(key.startswith(f"{name}.") for key in self.tensors)
        return [self.tensors[f"{name}.{number}"] for number in range(count)]

    def in_steps_of(self, size: int) -> "Checkpoint":
        """The same place in the training, counted in smaller steps, of a divisor of its batch size."""
        step = self.position.step * self.position.batch_size // size
        return replace(self, position=replace(self.position, step=step, batch_size=size))


class _Said(BaseModel):
    """What stands in a checkpoint beside its tensors."""

    model_config = ConfigDict(strict=True)

    format: Literal[2]
    position: Position
    memories: dict[str, dict[str, Any]]


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Writes a checkpoint, whole or not at all.

    Raises:
        WorkError: where it cannot be written; the one before stays.
    """
    said = {"format": FORMAT, "position": asdict(checkpoint.position), "memories": checkpoint.memories}
    with whole(path, lasting=True) as beside:
        save_file(dict(checkpoint.tensors), beside, metadata={"btkit": json.dumps(said)})


def load_checkpoint(path: Path) -> Checkpoint:
    """Reads a checkpoint; no code in it is ever run.

    Raises:
        InputError: where there is none, or it is no checkpoint of this format.
    """
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {})["btkit"]
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no mapping)
    except FileNotFoundError as error:
        raise InputError(f"there is no checkpoint {path}: the training had not begun; run its recipe anew.") from error
    except (OSError, SafetensorError, LookupError, ValueError) as error:
        raise InputError(f"{path} is no checkpoint of btkit: {error}. {ANEW}") from error
    try:
        checked = _Said.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        if first["loc"] == ("format",):
            raise InputError(f"{path} is a checkpoint of another version of btkit. {ANEW}") from error
        raise InputError(f"{path} is damaged: {'.'.join(map(str, first['loc']))}: {first['msg']}. {ANEW}") from error
    return Checkpoint(checked.position, tensors, checked.memories)


class Keeper(keras.callbacks.Callback):
    """Writes checkpoints while a phase goes on, and has its callbacks take up what they remembered.

    It has to come last among the callbacks: it keeps what the others remember once they have all acted.

    Args:
        path: of the checkpoint.
        trainee: what is trained, compiled; its optimizer is built here.
        network: whose variables are kept: all of them, the frozen ones too.
        averages: further tensors that steps change, in place.
        remembering: callbacks, by the name under which their memory is kept.
        begin: where the phase begins, or the checkpoint of it that it goes on from.
        steps: steps of a whole epoch.
        check: called before each checkpoint; raises where what was trained is not worth keeping.
        seconds: between two checkpoints inside an epoch; None finds what costs little.
        writes: False where another process writes them.

    Attributes:
        position: of the latest checkpoint.
    """

    def __init__(
        self,
        path: Path,
        trainee: Trainee,
        network: keras.Model,
        averages: Sequence[Tensor],
        remembering: Mapping[str, Remembers],
        begin: Checkpoint,
        steps: int,
        check: Callable[[], None],
        seconds: float | None = None,
        writes: bool = True,
    ) -> None:
        super().__init__()
        self._path, self._trainee, self._network, self._check = path, trainee, network, check
        self._averages, self._remembering, self._steps, self._seconds = averages, remembering, steps, seconds
        self._memories, self._metrics_kept = begin.memories, begin.group("metrics")
        self._written, self._cost = time.monotonic(), 0.0
        self._writes = writes
        self.position = begin.position
        trainee.optimizer.build(trainee.trainable_variables)
        if begin.tensors:
            assign(_values(trainee.optimizer.variables), begin.group("optimizer"), "optimizer")
        else:
            self._keep(begin.position)

    def on_train_begin(self, logs: Any = None) -> None:
        """Keras' own callbacks forget everything here."""
        recall(self._remembering, self._memories)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Keras has just reset the metrics."""
        if self._metrics_kept:
            assign(_values(self._trainee.metrics_variables), self._metrics_kept, "metrics")
            self._metrics_kept = []

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        done = self._trainee.step + 1
        wait = max(SECONDS, self._cost / SHARE) if self._seconds is None else self._seconds
        if done < self._steps and time.monotonic() - self._written > wait:
            self._keep(replace(self.position, epoch=self._trainee.epoch, step=done))

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._keep(replace(self.position, epoch=epoch + 1, step=0, stopped=bool(self._trainee.stop_training)))

    def _keep(self, position: Position) -> None:
        self._check()
        began = time.monotonic()
        self._memories = {name: callback.memory() for name, callback in self._remembering.items()}
        if self._writes:
            save_checkpoint(self._path, Checkpoint(position, self._tensors(position.step > 0), self._memories))
        self.position, self._written = position, time.monotonic()
        self._cost = self._written - began

    def _tensors(self, inside_epoch: bool) -> dict[str, Tensor]:
        groups = {
            "network": _values(self._network.variables),
            "optimizer": _values(self._trainee.optimizer.variables),
            "average": self._averages,
            "metrics": _values(self._trainee.metrics_variables) if inside_epoch else [],
        }
        # Copies: safetensors refuses tensors that share memory or are not contiguous.
        return {
            f"{name}.{number}": tensor.detach().cpu().contiguous().clone()
            for name, tensors in groups.items()
            for number, tensor in enumerate(tensors)
        }


def recall(remembering: Mapping[str, Remembers], memories: Mapping[str, Any]) -> None:
    """Has callbacks take up what they remembered.

    Raises:
        InputError: where a memory is missing or is none of theirs.
    """
    for name, callback in remembering.items():
        if name not in memories:
            raise InputError(f"the checkpoint knows nothing of {name}: it is of another recipe, or damaged. {ANEW}")
        try:
            callback.recall(memories[name])
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"the checkpoint is damaged: its memory of {name} is none. {ANEW}") from error


def _values(variables: Sequence[keras.Variable]) -> list[Tensor]:
    return [variable.value for variable in variables]


def put_back(checkpoint: Checkpoint, network: keras.Model, averages: Sequence[Tensor]) -> None:
    """Gives a network and its averages the values of a checkpoint.

    Raises:
        InputError: where they are not those of this network.
    """
    assign(_values(network.variables), checkpoint.group("network"), "network")
    assign(averages, checkpoint.group("average"), "averages")


def assign(values: Sequence[Tensor], kept: Sequence[Tensor], what: str) -> None:
    """Puts kept values in the place of others, of the same shapes.

    Raises:
        InputError: where shapes differ.
    """
    if [tuple(value.shape) for value in values] != [tuple(value.shape) for value in kept]:
        raise InputError(f"the checkpoint's {what} is that of another recipe or of another version of btkit. {ANEW}")
    with torch.no_grad():
        for value, old in zip(values, kept, strict=True):
            value.copy_(old)
