"""Finds the layer to explain in a model's graph: by name, by path, or by the shape of what it gives."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from typing import Any

import keras
from keras import layers

from braintumor_kit.errors import InputError
from braintumor_kit.model.fast import Graph
from braintumor_kit.model.fast.graph import Call
from braintumor_kit.spelling import nearest

SHOWN = 12
"""Candidates that a message names, those nearest the output."""

LINEAR = (
    layers.Rescaling, layers.ZeroPadding2D, layers.Conv2D, layers.DepthwiseConv2D, layers.BatchNormalization,
    layers.AveragePooling2D, layers.Dropout, layers.SpatialDropout2D,
)  # fmt: skip
"""Layers that are affine functions of their one input at inference, if they have no activation."""


def up_to_scores(graph: Graph) -> Graph:
    """The graph up to what the softmax (or sigmoid) at its end is taken of; as it is where it ends in none.

    Dense and convolution layers that have the softmax built in are replaced by twins without it, which share values
    but not variables.
    """
    last = {number: place for place, call in enumerate(graph.calls) for number in call.outputs}
    place = last[graph.outputs[0]]
    call = graph.calls[place]
    if _is_squashing_layer(call.layer):
        return replace(graph, calls=graph.calls[:place] + graph.calls[place + 1 :], outputs=call.inputs[:1])
    if getattr(call.layer, "activation", None) in _SQUASHING:
        calls = list(graph.calls)
        calls[place] = replace(call, layer=_without_activation(call.layer))
        return replace(graph, calls=tuple(calls))
    return graph


def ends_in_dense(graph: Graph) -> bool:
    """Whether the last layer is a dense one without activation: what it gives can be nothing but scores."""
    last = next(call.layer for call in reversed(graph.calls) if graph.outputs[0] in call.outputs)
    return type(last) is layers.Dense and last.activation is keras.activations.linear


def explained_value(graph: Graph, name: str | None) -> tuple[str, int]:
    """The name of the layer to explain and the number of the value that it makes.

    Args:
        name: of a layer or of a model inside, plain or as a path ("trunk/conv1"); None for the last value on the way
            to the scores that has rows and columns.

    Raises:
        InputError: where there is no such layer, it is not spatial, or the scores do not depend on it.
    """
    spatial = spatial_values(graph)
    if name is None:
        if not spatial:
            raise InputError(
                "the model has no layer with rows and columns on the way to its scores, which this method looks at; "
                "methods on pixels need none (integrated_gradients, smoothgrad, occlusion, rise)."
            )
        value = next(reversed(spatial))
        return spatial[value], value
    value = graph.names.get(name, -1)
    if value in spatial:
        return name, value
    raise InputError(missing_layer(name, list(spatial.values()), exists=value >= 0))


def spatial_values(graph: Graph) -> dict[int, str]:
    """The values (N, rows, columns, channels) of more than one pixel that the scores depend on, in the order in which
    they are made, and the name of the layer that makes each."""
    shapes = {number: shape for call in graph.calls for number, shape in zip(call.inputs, call.shapes, strict=True)}
    needed = _needed(graph)
    rows_and_columns = slice(2, 4) if graph.channels_first else slice(1, 3)
    return {
        call.outputs[0]: call.layer.name
        for call in graph.calls
        if call.outputs[0] in needed
        and len(shape := shapes.get(call.outputs[0], ())) == 4
        and all(size != 1 for size in shape[rows_and_columns])
    }


def missing_layer(name: str, candidates: list[str], exists: bool) -> str:
    """What to say of a layer that cannot be explained."""
    shown = ", ".join(candidates[-SHOWN:][::-1]) or "none"
    if exists:
        fault = f"layer '{name}' gives no maps of rows and columns that the scores depend on."
        return f"{fault} Candidates, last first: {shown}."
    near = nearest(name, candidates)
    hint = f"did you mean '{near}'? " if near else ""
    return f"the model has no layer '{name}'; {hint}Candidates, last first: {shown}."


def divided_at(graph: Graph, value: int) -> tuple[Graph, Graph]:
    """All calls up to the one that makes a value, and the rest. What else the rest reads does not depend on it."""
    place = next(place for place, call in enumerate(graph.calls) if value in call.outputs)
    return graph.divided(place + 1)


def affine_beginning(graph: Graph) -> int:
    """How many calls at the beginning of the graph are one affine function of the picture, of which alone the rest
    is a function: scaling, padding, the first convolution and its normalisation."""
    readers = graph.readers()
    value, count = graph.inputs[0], 0
    for call in graph.calls:
        if call.inputs != (value,) or readers[value] != 1 or not _is_affine(call):
            break
        value, count = call.outputs[0], count + 1
    return count


def rectifiers_apart(graph: Graph) -> Graph:
    """The graph with each ReLU that is built into another layer as a call of its own: whatever computes that layer,
    a program can then put another rectifier there. The layers are replaced by twins as in `up_to_scores`."""
    numbers = count(1 + max(number for call in graph.calls for number in (*call.inputs, *call.outputs)))
    calls: list[Call] = []
    for call in graph.calls:
        layer = call.layer
        if getattr(layer, "activation", None) is keras.activations.relu and not isinstance(layer, layers.Activation):
            between = (next(numbers),)
            calls.append(replace(call, layer=_without_activation(layer), outputs=between))
            call = replace(call, layer=layers.ReLU(name=layer.name), inputs=between)
        calls.append(call)
    return replace(graph, calls=tuple(calls))


def other_activations(graph: Graph) -> Iterator[str]:
    """Names of layers whose activation is neither linear nor ReLU, the plain one."""
    known = (None, keras.activations.linear, keras.activations.relu)
    plain = (*LINEAR, layers.ReLU, layers.Activation, layers.Add, layers.Concatenate, layers.MaxPooling2D,
             layers.GlobalAveragePooling2D, layers.Flatten, layers.Dense)  # fmt: skip
    for call in graph.calls:
        layer = call.layer
        bent = isinstance(layer, layers.ReLU) and (layer.negative_slope or layer.threshold or layer.max_value)
        if getattr(layer, "activation", None) not in known or type(layer) not in plain or bent:
            yield layer.name


_SQUASHING = (keras.activations.softmax, keras.activations.sigmoid)


def _is_squashing_layer(layer: Any) -> bool:
    if isinstance(layer, layers.Activation):
        return layer.activation in _SQUASHING
    return type(layer).__name__ in ("Softmax", "Sigmoid") and getattr(layer, "axis", -1) in (-1, 1)


def _without_activation(layer: Any) -> Any:
    """A layer of the same kind and values that ends linearly."""
    # Its values are set: initializers that draw would take a seed from Python's random numbers, which are the user's.
    config = {name: "zeros" if name.endswith("_initializer") else value for name, value in layer.get_config().items()}
    twin = type(layer).from_config({**config, "activation": "linear"})
    twin.build(layer._build_shapes_dict["input_shape"] if layer._build_shapes_dict else layer.input.shape)
    twin.set_weights(layer.get_weights())
    return twin


def _needed(graph: Graph) -> set[int]:
    """Values that the scores depend on."""
    needed = set(graph.outputs)
    for call in reversed(graph.calls):
        if needed & set(call.outputs):
            needed |= set(call.inputs)
    return needed


def _is_affine(call: Call) -> bool:
    linear = getattr(call.layer, "activation", None) in (None, keras.activations.linear)
    return type(call.layer) in LINEAR and linear and call.is_plain and len(call.inputs) == 1
