"""A functional Keras model as a flat list of calls: the graph, with models inside it written out."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

import keras
from keras.src.models.functional import Functional  # Keras has no public name for it (3.15)

Padding = tuple[int, int]

INDIFFERENT = (keras.layers.Rescaling, keras.layers.Flatten)
"""Layers whose data format says nothing of the model: a scale is the same in both, and most leave Flatten's alone."""


@dataclass(frozen=True)
class Call:
    """One call of a layer or operation. Values are numbered; a call reads some and makes others.

    Attributes:
        layer: what is called.
        arguments: Keras' record of how it is called.
        inputs, outputs: numbers of the values that it reads and makes.
        shapes: Keras' shapes of its inputs, such as (None, H, W, C) for pictures.
        padding: zeros above and below, left and right that the call adds itself, taken over from a layer before it.
        overwrites: place among the inputs of a value that nobody needs any more and that may be written over.
        normalization: the layer after it whose arithmetic its weights take in, for inference.
    """

    layer: Any
    arguments: Any
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    shapes: tuple[tuple[int | None, ...], ...]
    padding: Padding = (0, 0)
    overwrites: int | None = None
    normalization: Any = None

    @property
    def ranks(self) -> set[int]:
        """Of its inputs."""
        return {len(shape) for shape in self.shapes}

    @property
    def is_plain(self) -> bool:
        """Whether it is called with tensors and nothing else, of a layer that does what its class alone says."""
        return _is_plain(self.arguments) and not _does_more(self.layer)


@dataclass(frozen=True)
class Graph:
    """A model's calls in the order in which they can be made.

    Attributes:
        calls: of layers and operations; none of them is a functional model.
        inputs, outputs: numbers of the model's own inputs and outputs.
        channels_first: layout of pictures in the model; None where no layer of it cares.
        names: the value that each layer or model inside makes, by its name and by its path such as "trunk/conv1"; by
            its last use where it is used more than once.
    """

    calls: tuple[Call, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    channels_first: bool | None
    names: Mapping[str, int] = field(default_factory=dict)

    @property
    def channel_axes(self) -> tuple[int, int]:
        """What Keras calls the axis of channels of pictures, counted from either end."""
        return (1, -3) if self.channels_first else (3, -1)

    def readers(self) -> Counter[int]:
        """How often each value is read, the model's outputs counted in."""
        return Counter([*(number for call in self.calls for number in call.inputs), *self.outputs])

    def divided(self, count: int) -> tuple["Graph", "Graph"]:
        """The first `count` calls and the rest, each a graph of its own; the first gives what the rest takes."""
        first, rest = self.calls[:count], self.calls[count:]
        made = [*self.inputs, *(number for call in first for number in call.outputs)]
        wanted = {number for call in rest for number in call.inputs} | set(self.outputs)
        between = tuple(number for number in made if number in wanted)
        return replace(self, calls=first, outputs=between), replace(self, calls=rest, inputs=between)


def graph_of(model: keras.Model) -> Graph:
    """Writes out the graph of a functional model, or of a sequential one, which Keras runs as such.

    Raises:
        ValueError: where the model is not functional, or mixes channels_first and channels_last layers.
    """
    functional = _functional(model)
    if functional is None:
        raise ValueError(f"model '{model.name}' is not functional.")
    numbers = count()
    inputs = tuple(next(numbers) for _ in functional.inputs)
    calls: list[Call] = []
    names: dict[str, int] = {}
    outputs = tuple(_write_out(functional, inputs, numbers, calls, names))
    return Graph(tuple(calls), inputs, outputs, _channels_first(calls), names)


def _write_out(
    model: Functional,
    inputs: tuple[int, ...],
    numbers: Iterator[int],
    calls: list[Call],
    names: dict[str, int],
    path: str = "",
) -> Iterator[int]:
    """Appends the calls of one use of a model; gives the numbers of its outputs."""
    known = {id(tensor): number for tensor, number in zip(model.inputs, inputs, strict=True)}
    for node in _nodes(model):
        tensors = node.arguments.keras_tensors
        given = tuple(known[id(tensor)] for tensor in tensors)
        inside = _functional(node.operation)
        if inside is not None and _is_plain(node.arguments) and _takes(inside, tensors):
            made = tuple(_write_out(inside, given, numbers, calls, names, f"{path}{node.operation.name}/"))
        else:
            made = tuple(next(numbers) for _ in node.outputs)
            shapes = tuple(tensor.shape for tensor in tensors)
            calls.append(Call(node.operation, node.arguments, given, made, shapes))
        known |= {id(tensor): number for tensor, number in zip(node.outputs, made, strict=True)}
        names |= dict.fromkeys((node.operation.name, f"{path}{node.operation.name}"), made[0])
    yield from (known[id(tensor)] for tensor in model.outputs)


def _is_plain(arguments: Any) -> bool:
    """`training` does not count: what the whole model is called with overrules it (as in Keras 3.15)."""
    return all(value is None for name, value in arguments.kwargs.items() if name != "training")


def _does_more(layer: Any) -> bool:
    """Whether a layer adds a loss of its output or low-rank weights, is quantized, or has weights of another dtype."""
    additions = ("activity_regularizer", "lora_enabled", "quantization_mode")
    return any(getattr(layer, name, None) for name in additions) or (
        isinstance(layer, keras.Layer) and layer.variable_dtype != "float32"
    )


def _takes(model: Functional, tensors: list[Any]) -> bool:
    """Whether a model takes these tensors as they are: Keras casts and reshapes those that do not fit."""

    def kinds(of: list[Any]) -> list[Any]:
        return [(tensor.dtype, len(tensor.shape)) for tensor in of]

    return kinds(model.inputs) == kinds(tensors)


def _functional(operation: Any) -> Functional | None:
    """The functional model that an operation is, where calling it means walking its graph and no more."""
    if isinstance(operation, keras.Sequential) and type(operation).call is keras.Sequential.call:
        operation = operation._functional
    return operation if isinstance(operation, Functional) and type(operation).call is Functional.call else None


def _nodes(model: Functional) -> Iterator[Any]:
    """Calls of the model's graph, inputs first. Keras has no public name for them (3.15)."""
    by_depth = model._nodes_by_depth
    for depth in sorted(by_depth, reverse=True):
        yield from (node for node in by_depth[depth] if not node.is_input)


def _channels_first(calls: list[Call]) -> bool | None:
    formats: dict[str, str] = {}
    for call in calls:
        layout = getattr(call.layer, "data_format", None)
        if layout and not isinstance(call.layer, INDIFFERENT):
            formats.setdefault(layout, call.layer.name)
    if len(formats) > 1:
        raise ValueError(f"layers {' and '.join(repr(name) for name in formats.values())} differ in data format.")
    return next(iter(formats)) == "channels_first" if formats else None
