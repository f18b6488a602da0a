"""From a torch state dict to the weights of Keras layers.

Conventions: torch keeps a convolution's kernel as (out, in, height, width) and a depthwise one as
(channels, 1, height, width); Keras as (height, width, in, out) and (height, width, channels, 1).
"""

import warnings
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
import torch

from braintumor_kit.backend import use_torch_backend
from braintumor_kit.contracts.pretrained import fit_channels
from braintumor_kit.errors import InputError

use_torch_backend()
import keras  # noqa: E402  (after what puts it on torch)

StateDict = Mapping[str, torch.Tensor]
"""torch's tensors by name."""

_NORM_PARTS = ("weight", "bias", "running_mean", "running_var")  # Keras: gamma, beta, mean, variance
_KERNEL_AXES = 4
_NAMED = 3  # how many keys an error message names


def read_state_dict(path: Path) -> StateDict:
    """Reads a checkpoint's tensors, without ever running code from the file.

    A checkpoint that keeps its state dict under the key `state_dict` or `model` is unwrapped.

    Raises:
        InputError: if there is no such file, or it is not a plain state dict.
    """
    if not path.is_file():
        raise InputError(f"{path}: there is no such file; weights can be a .pth file that holds a state dict")
    try:
        with warnings.catch_warnings(action="ignore"):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged or hostile file provokes is that file's fault
        raise InputError(
            f"{path} cannot be read as weights ({type(error).__name__}): expected a state dict of tensors as "
            "torch.save(model.state_dict()) writes it; btkit loads nothing else, since it could run code"
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not _is_state_dict(content):
        raise InputError(f"{path} holds no state dict: expected names and tensors, found {type(content).__name__}")
    return content


def _is_state_dict(content: object) -> bool:
    return isinstance(content, dict) and all(
        isinstance(name, str) and isinstance(tensor, torch.Tensor) and _is_plain(tensor)
        for name, tensor in content.items()
    )


def _is_plain(tensor: torch.Tensor) -> bool:
    """Whether a tensor is one of real numbers that are all there: not sparse, and not one number said to be many."""
    if tensor.layout is not torch.strided or tensor.device.type != "cpu":
        return False
    held = tensor.untyped_storage().nbytes()
    return not tensor.is_complex() and not tensor.is_quantized and tensor.numel() * tensor.element_size() <= held


def port_state_dict(
    state: StateDict, model: keras.Model, modules: Mapping[str, str], ignored: Collection[str], origin: str
) -> None:
    """Gives the layers of `model` the weights of `state`, after checking that the two fit exactly.

    Args:
        state: torch's tensors by name.
        model: a functional model of Conv2D and DepthwiseConv2D, with bias or without, and BatchNormalization with
            scale and centre.
        modules: for each layer that has weights, the torch module that it stands for ("layer1.0.conv1").
        ignored: torch modules that have no counterpart, such as the classifier.
        origin: where the weights come from, for the message.

    Raises:
        InputError: if a weight is missing, has another shape, or is left over; nothing is assigned then.
    """
    wanted = {
        key: shape for name, module in modules.items() for key, shape in torch_shapes(model.get_layer(name), module)
    }
    _check(state, wanted, ignored, origin, model.name)
    for name, module in modules.items():
        layer = model.get_layer(name)
        layer.set_weights([from_torch(layer, state[key]) for key, _ in torch_shapes(layer, module)])


def fit_first_kernel(state: StateDict, key: str, channels: int) -> StateDict:
    """The state dict with the first convolution's kernel, at `key`, made to take that many channels."""
    kernel = state.get(key)
    if kernel is None or kernel.ndim != _KERNEL_AXES:
        return state  # port_state_dict will say what is wrong with it
    fitted = fit_channels(kernel.detach().to(torch.float32).numpy(), channels, axis=1)
    return {**state, key: torch.from_numpy(fitted)}


def torch_shapes(layer: keras.Layer, module: str) -> list[tuple[str, tuple[int, ...]]]:
    """The torch keys of a layer's weights, with their shapes in torch, in the order of Keras' weights."""
    if isinstance(layer, keras.layers.BatchNormalization):
        return [(f"{module}.{part}", tuple(layer.gamma.shape)) for part in _NORM_PARTS]
    if isinstance(layer, keras.layers.DepthwiseConv2D):
        height, width, channels, multiplier = layer.kernel.shape
        return [(f"{module}.weight", (channels, multiplier, height, width)), *_bias(layer, module)]
    if isinstance(layer, keras.layers.Conv2D):
        height, width, channels, filters = layer.kernel.shape
        return [(f"{module}.weight", (filters, channels, height, width)), *_bias(layer, module)]
    raise TypeError(f"{layer.name}: no torch counterpart of a {type(layer).__name__}")


def _bias(layer: keras.Layer, module: str) -> list[tuple[str, tuple[int, ...]]]:
    return [(f"{module}.bias", tuple(layer.bias.shape))] if layer.use_bias else []


def from_torch(layer: keras.Layer, tensor: torch.Tensor) -> np.ndarray:
    """One torch weight in the axis order of `layer`, float32."""
    array = tensor.detach().to("cpu", torch.float32).numpy()
    if array.ndim == 1:  # of a normalisation, or a bias
        return array
    if isinstance(layer, keras.layers.DepthwiseConv2D):
        return array.transpose(2, 3, 0, 1)
    return array.transpose(2, 3, 1, 0)


def _check(
    state: StateDict,
    wanted: Mapping[str, tuple[int, ...]],
    ignored: Collection[str],
    origin: str,
    network: str,
) -> None:
    missing = [key for key in wanted if key not in state]
    unexpected = [key for key in state if key not in wanted and not _may_be_left(key, ignored)]
    misshapen = [
        f"{key} {tuple(state[key].shape)} for {shape}"
        for key, shape in wanted.items()
        if key in state and tuple(state[key].shape) != shape
    ]
    faults = {"missing": missing, "unexpected": unexpected, "of another shape": misshapen}
    found = "; ".join(f"{len(keys)} {fault} ({_some(keys)})" for fault, keys in faults.items() if keys)
    if found:
        raise InputError(f"{origin} does not fit {network}: {found}")


def _may_be_left(key: str, ignored: Collection[str]) -> bool:
    """Batch normalisation's counter of batches plays no part where the momentum is fixed."""
    return key.endswith(".num_batches_tracked") or key.rpartition(".")[0] in ignored


def _some(keys: list[str]) -> str:
    return ", ".join(keys[:_NAMED]) + (", ..." if len(keys) > _NAMED else "")
