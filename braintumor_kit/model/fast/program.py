"""A functional Keras model as a straight list of torch calls."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import keras
import torch
from torch import Tensor

from braintumor_kit.model.fast.lowerings import Call, lower


@dataclass(frozen=True)
class Step:
    """One call: `run(training, *values at inputs)` gives the values at `outputs`; `last` are not needed after it."""

    run: Callable[..., Any]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    last: tuple[int, ...]


class Program:
    """Computes what a functional Keras model computes, at torch's speed and on the model's own variables.

    Convolutions run in `dtype` and in channels_last memory, batch normalisation is one fused call with float32
    statistics, and global averages and the classifying layer are float32.
    Batch statistics, gradients and `trainable` behave as Keras' own. Nothing of the
    model is changed, and weights that are assigned later are seen.

    Args:
        model: functional, one input (N, H, W, C), one output, channels_last data format.
        dtype: of convolutions: torch.float32 or torch.bfloat16.

    Raises:
        ValueError: for models of another form.
    """

    def __init__(self, model: keras.Model, dtype: torch.dtype = torch.float32) -> None:
        if len(model.inputs) != 1 or len(model.outputs) != 1:
            raise ValueError(f"model '{model.name}' has more than one input or output.")
        for layer in model.layers:
            if getattr(layer, "data_format", "channels_last") != "channels_last":
                raise ValueError(f"layer '{layer.name}' is {layer.data_format}; build the model in channels_last.")
        self.dtype = dtype
        self._numbers: dict[int, int] = {}
        steps = [self._step(node, dtype) for node in _nodes(model)]
        self._input = self._number(model.inputs[0])
        self._output = self._number(model.outputs[0])
        self._steps = _with_last_uses(steps, keep=self._output)

    def __call__(self, pictures: Tensor, training: bool = False) -> Tensor:
        """The model's output for pictures (N, H, W, C)."""
        values = {self._input: _to_torch(pictures)}
        for step in self._steps:
            result = step.run(training, *(values[number] for number in step.inputs))
            for number in step.last:
                del values[number]
            if len(step.outputs) == 1:
                values[step.outputs[0]] = result
            else:
                values |= zip(step.outputs, result, strict=True)
        return _to_keras(values[self._output])

    def _number(self, tensor: Any) -> int:
        return self._numbers.setdefault(id(tensor), len(self._numbers))

    def _step(self, node: Any, dtype: torch.dtype) -> Step:
        tensors = node.arguments.keras_tensors
        plain = all(value is None for value in node.arguments.kwargs.values())
        run = lower(Call(node.operation, tuple(tensor.shape for tensor in tensors), dtype)) if plain else None
        return Step(
            run or _as_it_is(node),
            tuple(self._number(tensor) for tensor in tensors),
            tuple(self._number(tensor) for tensor in node.outputs),
            (),
        )


def _nodes(model: keras.Model) -> Iterator[Any]:
    """Calls of the model's graph, inputs first. Keras has no public name for them (3.15)."""
    by_depth = model._nodes_by_depth
    for depth in sorted(by_depth, reverse=True):
        yield from (node for node in by_depth[depth] if not node.is_input)


def _as_it_is(node: Any) -> Callable[..., Any]:
    """Calls a layer without a lowering on Keras' own layout, with the arguments that the graph gives it."""
    operation, arguments = node.operation, node.arguments
    takes_training = "training" in getattr(operation, "_call_context_args", {})

    def run(training: bool, *values: Tensor) -> Any:
        tensors = {id(key): _to_keras(value) for key, value in zip(arguments.keras_tensors, values, strict=True)}
        args, kwargs = arguments.fill_in(tensors)
        if takes_training:
            kwargs = {**kwargs, "training": training}
        return keras.tree.map_structure(_to_torch, operation(*args, **kwargs))

    return run


def _to_torch(value: Tensor) -> Tensor:
    """(N, H, W, C) seen as (N, C, H, W): for contiguous pictures this is torch's channels_last memory, uncopied."""
    return value.permute(0, 3, 1, 2) if value.ndim == 4 else value


def _to_keras(value: Tensor) -> Tensor:
    return value.permute(0, 2, 3, 1) if value.ndim == 4 else value


def _with_last_uses(steps: list[Step], keep: int) -> list[Step]:
    """Marks after which step each value is needed no more, so that inference holds few of them."""
    left = Counter(number for step in steps for number in set(step.inputs))
    left[keep] += 1
    marked = []
    for step in steps:
        left.subtract(set(step.inputs))
        marked.append(Step(step.run, step.inputs, step.outputs, tuple(n for n in set(step.inputs) if not left[n])))
    return marked
