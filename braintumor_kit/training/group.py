"""The processes that train one network together, each on its part of every step.

They hold the same weights, statistics and metrics after each step, and these are those of one process on the whole
step: torch's DistributedDataParallel (Li et al. 2020) averages the gradients, and what steps change beside them is
averaged here.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import torch
from torch import Tensor, distributed

from braintumor_kit.training.batches import Batches


@dataclass(frozen=True)
class Group:
    """A place among them. What needs the others is called by all, in the same order.

    Attributes:
        rank: from 0, which alone writes files.
        size: how many there are; 1 is an ordinary training.
    """

    rank: int = 0
    size: int = 1

    @property
    def writes(self) -> bool:
        """Whether this one writes what is kept."""
        return self.rank == 0

    def take_over(self, values: Sequence[Tensor]) -> None:
        """Has all hold the values of the first, in place."""
        for value in values if self.size > 1 else ():
            if value.dtype.is_floating_point:
                same = value.detach().contiguous().clone()
                distributed.broadcast(same, src=0)
                value.data.copy_(same)

    def add(self, values: Tensor) -> Tensor:
        """The sum over all, bit for bit the same in each; in place."""
        distributed.all_reduce(values)
        return values


ALONE = Group()
"""One process, which has nobody to wait for."""


class TogetherProgram:
    """A program whose gradients are the mean over the group, as DistributedDataParallel makes it.

    Args:
        program: that computes the logits; for training alone.
        parameters: those that are trained.
    """

    def __init__(self, program: Callable[..., Tensor], parameters: Sequence[torch.nn.Parameter]) -> None:
        self._parallel = torch.nn.parallel.DistributedDataParallel(_Trained(program, parameters))

    def __call__(self, inputs: Tensor, weight: float) -> Tensor:
        """Logits of this one's part of a step.

        Args:
            weight: of the part in the mean over all: its share of the step's slices times the size of the group.
        """
        logits: Tensor = self._parallel(inputs)
        if weight != 1:
            logits.register_hook(lambda gradient: gradient * weight)
        return logits


class _Trained(torch.nn.Module):
    """What DistributedDataParallel takes: a module with parameters."""

    def __init__(self, program: Callable[..., Tensor], parameters: Sequence[torch.nn.Parameter]) -> None:
        super().__init__()
        self._program = program
        self._trained = torch.nn.ParameterList(parameters)

    def forward(self, inputs: Tensor) -> Tensor:
        return self._program(inputs, training=True)


class SumOverGroup:
    """Sums statistics of a batch over the group, gradients included: for batch normalisation over the whole step.

    Args:
        weight: gives that of this one's part; where it is 0, it has no slices of its own and adds nothing.
    """

    def __init__(self, weight: Callable[[], float]) -> None:
        self._weight = weight

    def __call__(self, values: Tensor) -> Tensor:
        summed: Tensor = _Sum.apply(values if self._weight() else values * 0)
        return summed


class _Sum(torch.autograd.Function):
    """The sum over the group. Each one's values count in the loss of all: their gradient is the sum of all of them."""

    @staticmethod
    def forward(context: Any, values: Tensor) -> Tensor:
        summed = values.clone()
        distributed.all_reduce(summed)
        return summed

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        summed = gradients[0].clone()
        distributed.all_reduce(summed)
        return summed


class Alike(keras.callbacks.Callback):
    """Keeps statistics and metrics those of the whole step, in each process; first among those that act after a step.

    What a step adds to moving statistics is weighed by the part's share of its slices, what it adds to the sums and
    counts of metrics is divided by the size of the group, which leaves their ratio. That a loss was not finite
    anywhere is known everywhere. The reduction is one message a step.

    Args:
        group: of more than one.
        trainee: what is trained, compiled.
        train, validation: this one's parts.
    """

    def __init__(self, group: Group, trainee: Any, train: Batches, validation: Batches) -> None:
        super().__init__()
        self._group, self._trainee, self._train, self._validation = group, trainee, train, validation
        self._before = torch.zeros(0)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self._before = _flat(self._statistics() + self._metrics())

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        statistics, metrics = self._statistics(), self._metrics()
        after = _flat(statistics + metrics)
        share = self._train.share(self._trainee.step)
        of_metrics = float(share > 0) / self._group.size
        count = sum(value.numel() for value in statistics)
        weights = torch.full_like(after, of_metrics)
        weights[:count] = share
        message = torch.cat([(after - self._before) * weights, self._trainee.loss_was_bad()])
        self._group.add(message)
        self._trainee.hear_of_bad_loss(message[-1])
        _put(self._before + message[:-1], statistics + metrics)

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
        if batch == len(self._validation) - 1:
            metrics = self._metrics()
            _put(self._group.add(_flat(metrics) / self._group.size), metrics)

    def _statistics(self) -> list[Tensor]:
        """Of layers: all that is no weight to train."""
        variables = self._trainee.network.non_trainable_variables
        return [variable.value for variable in variables if variable.value.dtype.is_floating_point]

    def _metrics(self) -> list[Tensor]:
        return [variable.value for variable in self._trainee.metrics_variables]


def _flat(values: Sequence[Tensor]) -> Tensor:
    return torch.cat([value.detach().reshape(-1) for value in values])


def _put(flat: Tensor, values: Sequence[Tensor]) -> None:
    with torch.no_grad():
        for value, part in zip(values, flat.split([value.numel() for value in values]), strict=True):
            value.copy_(part.view_as(value))
