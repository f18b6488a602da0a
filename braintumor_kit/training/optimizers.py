"""Keras' optimizers with one pass over the weights a step, and with no wait for the device.

The numbers are those of `keras.optimizers`; their state is kept in the memory order of the weights it belongs to, which
for convolutions on the fast path is torch's.
"""

import math
from typing import Any

import keras
import torch
from torch import Tensor

from braintumor_kit.recipe.tables import TrainingTable


def make_optimizer(training: TrainingTable, learning_rate: float) -> keras.optimizers.Optimizer:
    """The recipe's optimizer; weight decay, where asked for, is decoupled and of kernels alone."""
    decay = training.weight_decay or None
    match training.optimizer:
        case "adam":
            optimizer: keras.optimizers.Optimizer = FusedAdam(learning_rate, weight_decay=decay)
        case "adamw":
            optimizer = FusedAdam(learning_rate, weight_decay=training.weight_decay, name="adamw")
        case _:
            optimizer = keras.optimizers.SGD(learning_rate, momentum=0.9, nesterov=True, weight_decay=decay)
    if training.weight_decay:
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer


class FusedAdam(keras.optimizers.Adam):
    """Adam (Kingma and Ba 2015) as Keras defines it, by torch's fused kernel. With `weight_decay` it is AdamW
    (Loshchilov and Hutter 2019), as in Keras."""

    _done: int | None = None  # updates so far, known to the host: asking `iterations` would wait for a GPU

    def add_variable_from_reference(self, reference_variable: keras.Variable, *args: Any, **kwargs: Any) -> Any:
        variable = super().add_variable_from_reference(reference_variable, *args, **kwargs)
        values = variable.value.data
        variable.value.data = torch.empty_like(reference_variable.value.data).copy_(values)
        return variable

    def load_own_variables(self, store: Any) -> None:
        super().load_own_variables(store)
        self._done = None

    def _backend_update_step(
        self, grads: list[Tensor], trainable_variables: list[keras.Variable], learning_rate: Any
    ) -> None:
        """Called by Keras with the gradients of a step (its own way in for backends, 3.15).

        Keras divides by sqrt(v) + epsilon before it corrects the bias of v, torch after: torch's epsilon is
        epsilon / sqrt(1 - beta_2^t).
        """
        if self._done is None:
            self._done = int(self.iterations.numpy())
        self._done += 1
        weights = [variable.value.data for variable in trainable_variables]
        places = [self._get_variable_index(variable) for variable in trainable_variables]
        step = weights[0].new_full((), float(self._done))
        with torch.no_grad():
            torch._fused_adam_(
                weights,
                [_ordered_as(grad, weight) for grad, weight in zip(grads, weights, strict=True)],
                [self._momentums[place].value.data for place in places],
                [self._velocities[place].value.data for place in places],
                [],
                [step] * len(weights),
                lr=learning_rate.value.data,
                beta1=self.beta_1,
                beta2=self.beta_2,
                weight_decay=0.0,
                eps=self.epsilon / math.sqrt(1 - self.beta_2**self._done),
                amsgrad=False,
                maximize=False,
            )


def _ordered_as(gradient: Tensor, weight: Tensor) -> Tensor:
    """The gradient in the memory order of its weight, as the fused kernel takes for granted."""
    if gradient.stride() == weight.stride():
        return gradient
    return torch.empty_like(weight).copy_(gradient)
