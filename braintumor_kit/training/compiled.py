"""torch.compile where it pays, found out by trying both on a batch of the training's own."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from braintumor_kit.errors import InputError
from braintumor_kit.training.trainee import Trainee

Asked = Literal["auto"] | bool

LAPS = 5
"""Steps of each kind that a trial times."""

WORTH = 120.0
"""A training is tried compiled, where that is for btkit to choose, if it would take so many seconds as it is: what is
shorter does not win back what compiling costs."""


@dataclass(frozen=True)
class Trial:
    """Seconds of a forward and backward pass.

    Attributes:
        eager, compiled: of a warm one.
        first: of the first compiled one, compilation included.
    """

    eager: float
    compiled: float
    first: float

    @property
    def pays(self) -> bool:
        """Whether compiled is the faster by more than the noise of timing."""
        return self.compiled < 0.98 * self.eager

    def __str__(self) -> str:
        return (
            f"compiling took {self.first:.0f} s; a step is {self.eager / self.compiled:.2f} times as fast compiled as "
            "not"
        )


def compile_where_it_pays(
    trainee: Trainee, inputs: Tensor, asked: Asked, steps: int, say: Callable[[str], None]
) -> Trial | None:
    """Lets a trainee run compiled: always where `asked` is True; where it is "auto", on a GPU, in a training of some
    length, and if a trial shows it to be faster. On CPUs it never was (0.85 to 0.98 of eager, ResNet-18, two cores).

    Args:
        inputs: a full batch, for the trial; the trainee's weights and statistics are the same after it.
        steps: of the training.

    Returns:
        What the trial showed; None where there was none.

    Raises:
        InputError: where compiling was asked for and torch cannot.
    """
    if asked is False or (asked == "auto" and inputs.device.type == "cpu"):
        return None
    with _undone(trainee):
        eager = _seconds(trainee, inputs)
        if asked == "auto" and steps * eager < WORTH:
            return None
        trainee.compile_program(len(inputs))
        try:
            first = _seconds(trainee, inputs, laps=1, warm_up=0)
        except RuntimeError as error:  # no compiler for C++ or Triton, or one that torch cannot use
            trainee.run_as_it_is()
            reason = str(error).strip().splitlines()[0]
            if asked is True:
                raise InputError(f"training.compile = true, but torch.compile does not work here: {reason}") from error
            say(f"torch.compile does not work here, so training runs as it is: {reason}")
            return None
        trial = Trial(eager, _seconds(trainee, inputs), first)
    if asked == "auto" and not trial.pays:
        trainee.run_as_it_is()
    say(f"{trial}; training runs {'compiled' if trainee.is_compiled else 'as it is'}")
    return trial


def _seconds(trainee: Trainee, inputs: Tensor, laps: int = LAPS, warm_up: int = 1) -> float:
    """Of a forward and backward pass, the best of some."""
    times = []
    for _ in range(warm_up + laps):
        began = time.perf_counter()
        trainee.call(inputs, training=True).sum().backward()
        if inputs.device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return min(times[warm_up:])


@contextmanager
def _undone(trainee: Trainee) -> Iterator[None]:
    """Puts variables back afterwards and forgets gradients."""
    kept = [(variable, variable.value.detach().clone()) for variable in trainee.network.variables]
    try:
        yield
    finally:
        for variable, value in kept:
            variable.assign(value)
        trainee.zero_grad()
