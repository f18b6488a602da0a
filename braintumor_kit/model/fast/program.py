"""A functional Keras model as a straight list of torch calls."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import torch
from torch import Tensor

from braintumor_kit.model.fast.fuse import fold_normalization, take_paddings_in, write_over
from braintumor_kit.model.fast.graph import Call, Graph, graph_of
from braintumor_kit.model.fast.lowerings import Elementwise, Setting, lower
from braintumor_kit.model.fast.over_group import SumOver


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
    statistics, and global averages and dense layers are float32. Batch statistics, gradients and `trainable`
    behave as Keras' own. Values and settings of the model are not changed, and weights that are assigned later are
    seen. Models inside the model are written out, in either of Keras' data formats.

    Args:
        model: functional, with any inputs and outputs, or the graph of one or a part of it.
        dtype: of convolutions: torch.float32 or torch.bfloat16.
        frozen: for inference alone: convolutions take copies of the weights, with batch normalisation folded in.
            Made for the weights of the moment: of those assigned later, convolutions see nothing and others do.
        rectifier: what is computed for a ReLU, such as one with another gradient.
        sum_over_group: sums over processes that train together, gradients included; batch normalisation then takes the
            statistics of all their slices.

    Raises:
        ValueError: for models of another form, such as subclassed ones.
    """

    def __init__(
        self,
        model: keras.Model | Graph,
        dtype: torch.dtype = torch.float32,
        frozen: bool = False,
        rectifier: Elementwise | None = None,
        sum_over_group: SumOver | None = None,
    ) -> None:
        graph = take_paddings_in(model if isinstance(model, Graph) else graph_of(model))
        graph = write_over(fold_normalization(graph) if frozen else graph)
        setting = Setting(dtype, bool(graph.channels_first), graph.channel_axes, frozen, rectifier, sum_over_group)
        self.dtype = dtype
        self.frozen = frozen
        self._channels_first = setting.channels_first
        self._inputs, self._outputs = graph.inputs, graph.outputs
        self._steps = [
            Step(lower(call, setting) or _as_it_is(call, setting), call.inputs, call.outputs, last)
            for call, last in zip(graph.calls, _last_uses(graph), strict=True)
        ]

    def __call__(self, *inputs: Tensor, training: bool = False) -> Any:
        """The model's output, or the tuple of its outputs, for pictures in the layout of the model, (N, H, W, C) as a
        rule, and of the dtype that its inputs declare."""
        values = dict(zip(self._inputs, (_to_torch(value, self._channels_first) for value in inputs), strict=True))
        learning = training and not self.frozen
        for step in self._steps:
            result = step.run(learning, *(values[number] for number in step.inputs))
            for number in step.last:
                del values[number]
            if len(step.outputs) == 1:
                values[step.outputs[0]] = result
            else:
                values |= zip(step.outputs, result, strict=True)
        outputs = tuple(_to_keras(values[number], self._channels_first) for number in self._outputs)
        return outputs[0] if len(outputs) == 1 else outputs


def _as_it_is(call: Call, setting: Setting) -> Callable[..., Any]:
    """Calls a layer without a lowering on Keras' own layout, with the arguments that the graph gives it."""
    operation, arguments, first = call.layer, call.arguments, setting.channels_first
    takes_training = "training" in getattr(operation, "_call_context_args", {})

    def run(training: bool, *values: Tensor) -> Any:
        tensors = {id(key): _to_keras(value, first) for key, value in zip(arguments.keras_tensors, values, strict=True)}
        args, kwargs = arguments.fill_in(tensors)
        if takes_training:
            kwargs = {**kwargs, "training": training}
        made = keras.tree.flatten(operation(*args, **kwargs))
        converted = [_to_torch(value, first) for value in made]
        return converted[0] if len(converted) == 1 else converted

    return run


def _to_torch(value: Tensor, channels_first: bool) -> Tensor:
    """(N, H, W, C) seen as (N, C, H, W): for contiguous pictures this is torch's channels_last memory, uncopied."""
    return value.permute(0, 3, 1, 2) if value.ndim == 4 and not channels_first else value


def _to_keras(value: Tensor, channels_first: bool) -> Tensor:
    return value.permute(0, 2, 3, 1) if value.ndim == 4 and not channels_first else value


def _last_uses(graph: Graph) -> list[tuple[int, ...]]:
    """After which call each value is needed no more, so that inference holds few of them."""
    left = graph.readers()
    last = []
    for call in graph.calls:
        left.subtract(call.inputs)
        last.append(tuple(number for number in set(call.inputs) if not left[number]))
    return last
