"""Calls made into fewer: paddings taken in, values written over in place, normalisation folded into convolutions."""

from dataclasses import replace
from typing import Any

import keras
from keras import layers

from braintumor_kit.model.fast.graph import Call, Graph, Padding
from braintumor_kit.model.fast.lowerings import CONVOLUTIONS, is_convolution

FREE_AFTER = (*CONVOLUTIONS, layers.BatchNormalization, layers.Add, layers.ZeroPadding2D)
"""Layers whose output no gradient is computed from, so that the next layer may write over it."""


def take_paddings_in(graph: Graph) -> Graph:
    """ZeroPadding2D before a convolution becomes that convolution's own. Before max pooling, too, where it pools
    numbers that are never negative: then a border of zeros and torch's border of -inf give the same maximum."""
    makers = {call.outputs[0]: call for call in graph.calls}
    readers = graph.readers()
    taken: dict[int, Call] = {}
    calls = []
    for call in graph.calls:
        before = makers.get(call.inputs[0]) if call.inputs else None
        padding = _even_padding(before) if before and readers[call.inputs[0]] == 1 else None
        if before and padding and _can_pad(call, padding, makers.get(before.inputs[0])):
            taken[before.outputs[0]] = before
            call = replace(call, inputs=before.inputs, shapes=before.shapes, padding=padding)
        calls.append(call)
    return replace(graph, calls=tuple(call for call in calls if call.outputs[0] not in taken))


def write_over(graph: Graph) -> Graph:
    """Marks the inputs that a ReLU or a sum may write its result into: read by nobody else, and made by a layer whose
    gradient does not need them."""
    readers = graph.readers()
    free = {call.outputs[0] for call in graph.calls if _is_free_after(call)}

    def mark(call: Call) -> Call:
        if not (_is_rectifier(call.layer) or type(call.layer) is layers.Add):
            return call
        places = (place for place, number in enumerate(call.inputs) if number in free and readers[number] == 1)
        return replace(call, overwrites=next(places, None))

    return replace(graph, calls=tuple(mark(call) for call in graph.calls))


def fold_normalization(graph: Graph) -> Graph:
    """Batch normalisation right after a convolution becomes part of its weights. For inference alone."""
    makers = {call.outputs[0]: call for call in graph.calls}
    readers = graph.readers()
    folded: dict[int, Call] = {}  # by what the convolution makes
    for call in graph.calls:
        before = makers.get(call.inputs[0]) if call.inputs else None
        if before and _can_fold(before, call, graph) and readers[call.inputs[0]] == 1:
            folded[before.outputs[0]] = call
    gone = {call.outputs[0] for call in folded.values()}

    def fold(call: Call) -> Call:
        after = folded.get(call.outputs[0])
        return replace(call, normalization=after.layer, outputs=after.outputs) if after else call

    return replace(graph, calls=tuple(fold(call) for call in graph.calls if call.outputs[0] not in gone))


def _even_padding(call: Call) -> Padding | None:
    if type(call.layer) is not layers.ZeroPadding2D:
        return None
    (top, bottom), (left, right) = call.layer.padding
    return (top, left) if top == bottom and left == right else None


def _can_pad(call: Call, padding: Padding, source: Call | None) -> bool:
    if is_convolution(call):
        return bool(call.layer.padding == "valid")
    if type(call.layer) is layers.MaxPooling2D and call.is_plain and call.layer.padding == "valid":
        fits = all(2 * pad <= size for pad, size in zip(padding, call.layer.pool_size, strict=True))
        return fits and source is not None and _is_rectifier(source.layer)
    return False


def _can_fold(convolution: Call, call: Call, graph: Graph) -> bool:
    return (
        type(call.layer) is layers.BatchNormalization
        and is_convolution(convolution)
        and _is_linear(convolution.layer)
        and call.layer.axis in graph.channel_axes
        and call.is_plain
    )


def _is_free_after(call: Call) -> bool:
    """Whether the call makes a value of its own, which nothing but its readers needs any more."""
    copies = type(call.layer) is not layers.Add or len(call.inputs) > 1  # the sum of one value is that value
    return type(call.layer) in FREE_AFTER and call.is_plain and _is_linear(call.layer) and copies


def _is_linear(layer: Any) -> bool:
    return getattr(layer, "activation", None) in (None, keras.activations.linear)


def _is_rectifier(layer: Any) -> bool:
    """Whether it is a plain ReLU, with or without an upper bound."""
    if type(layer) is layers.ReLU:
        return not (layer.negative_slope or layer.threshold)
    return type(layer) is layers.Activation and layer.activation is keras.activations.relu
