"""A moving average of the weights, which is evaluated and kept in their place."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import keras
import torch


class WeightAverage(keras.callbacks.Callback):
    """Exponential moving average of every float variable, batch statistics included.

    Early on the momentum is min(momentum, (1 + t) / (10 + t)) after t steps, so that the random start is soon
    forgotten (as in TensorFlow's ExponentialMovingAverage).

    Args:
        variables: what is averaged.
        momentum: share of the average that each step keeps.
    """

    def __init__(self, variables: list[keras.Variable], momentum: float) -> None:
        super().__init__()
        self._variables = [variable for variable in variables if variable.value.dtype.is_floating_point]
        self._average = [value.clone() for value in self._values]
        self._momentum = momentum
        self._steps = 0

    @property
    def _values(self) -> list[torch.Tensor]:
        """Asked for anew each time: the fast path gives kernels other memory when it first meets them."""
        return [variable.value.data for variable in self._variables]

    @property
    def tensors(self) -> list[torch.Tensor]:
        """The averages, which steps change in place."""
        return self._average

    def memory(self) -> dict[str, int]:
        """How many steps went into the averages."""
        return {"steps": self._steps}

    def recall(self, memory: Mapping[str, int]) -> None:
        """Takes up what it remembered."""
        self._steps = memory["steps"]

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the variables hold the average."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        for value, average in zip(self._values, self._average, strict=True):
            if average.stride() != value.stride():  # one pass over all of them needs the same order in memory
                average.data = torch.empty_like(value).copy_(average)

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        self._steps += 1
        momentum = min(self._momentum, (1 + self._steps) / (10 + self._steps))
        torch._foreach_lerp_(self._average, self._values, 1 - momentum)

    def on_test_begin(self, logs: dict[str, float] | None = None) -> None:
        self._exchange()

    def on_test_end(self, logs: dict[str, float] | None = None) -> None:
        self._exchange()

    def _exchange(self) -> None:
        for value, average in zip(self._values, self._average, strict=True):
            kept = value.clone()
            value.copy_(average)
            average.copy_(kept)
