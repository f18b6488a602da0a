"""From any Keras model to the network that explainers see."""

import keras
import torch

from braintumor_kit.errors import InputError
from braintumor_kit.explanation.graph_network import GraphNetwork
from braintumor_kit.explanation.hooked_network import HookedNetwork
from braintumor_kit.explanation.network import Layout, Network
from braintumor_kit.model.fast import graph_of
from braintumor_kit.model.load import is_channels_first


def network_of(
    model: keras.Model,
    dtype: torch.dtype = torch.float32,
    layer: str | None = None,
    shape: tuple[int, int, int] = (224, 224, 3),
) -> Network:
    """Opens a model for explainers; the model is not changed.

    Args:
        model: pictures to class probabilities or logits, flat or nested, channels first or last, frozen or not.
        dtype: of convolutions, for functional models; others compute as Keras computes them.
        layer: name of the layer to explain; by default the last one on the way to the scores that has rows and columns.
        shape: (H, W, C) of its pictures, for models that do not say.

    Raises:
        InputError: where the model is no classifier of pictures, or has no such layer.
    """
    layout = _layout(model, shape)
    try:
        graph = graph_of(model)
    except ValueError:
        return HookedNetwork(model, layout, layer)
    wrapped = any(isinstance(call.layer, keras.layers.TorchModuleWrapper) for call in graph.calls)
    return HookedNetwork(model, layout, layer) if wrapped else GraphNetwork(model, graph, layout, dtype, layer)


def is_functional(model: keras.Model) -> bool:
    """Whether the model's layers can be told one by one."""
    try:
        graph_of(model)
    except ValueError:
        return False
    return True


def _layout(model: keras.Model, unsaid: tuple[int, int, int]) -> Layout:
    shape = _input_shape(model)
    if shape is None:
        built = model.get_build_config() or {}
        called_with = built.get("input_shape") or ()
        if len(called_with) == 4:
            return Layout(unsaid[:2], unsaid[2], is_channels_first(called_with))
        return Layout(unsaid[:2], unsaid[2], keras.config.image_data_format() == "channels_first")
    if len(shape) != 4:
        raise InputError(f"model '{model.name}' takes {shape}, not pictures (N, H, W, C).")
    first = is_channels_first(shape)
    side = shape[2:4] if first else shape[1:3]
    return Layout((side[0] or unsaid[0], side[1] or unsaid[1]), int(shape[1 if first else 3] or unsaid[2]), first)


def _input_shape(model: keras.Model) -> tuple[int | None, ...] | None:
    """What a model says it takes; None where it does not say."""
    try:
        inputs = model.inputs
    except AttributeError:
        inputs = None
    if not inputs:
        return None
    if len(inputs) != 1:
        raise InputError(f"model '{model.name}' must have one input to be explained.")
    return tuple(inputs[0].shape)
