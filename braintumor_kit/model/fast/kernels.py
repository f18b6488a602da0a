"""Weights of convolutions as torch reads them: live views on Keras' variables, or constants for inference.

Keras keeps a kernel as (height, width, in, out), torch convolves with (out, in, height, width) in the memory order out,
height, width, in. A variable keeps its shape and its values here; only the order of its numbers in memory becomes
torch's, so that no step has to transpose it.
"""

from collections.abc import Callable
from typing import Any

import keras
import torch
from torch import Tensor

Weights = Callable[[], tuple[Tensor, Tensor | None]]
"""Gives kernel (out, in / groups, height, width) and bias (out,), ready for a convolution."""


def live_weights(layer: Any, dtype: torch.dtype) -> Weights:
    """The layer's weights as they are whenever they are asked for, with gradients back to its variables."""
    kernel = layer.kernel.value
    bias = layer.bias.value if layer.use_bias else None
    view, back = (_depthwise_view, _depthwise_view) if _is_depthwise(layer) else (_view, _keras_view)
    kernel.data = back(_in_torch_order(view(kernel.data)))
    shape = _torch_shape(layer)

    def weights() -> tuple[Tensor, Tensor | None]:
        return view(kernel).reshape(shape).to(dtype), None if bias is None else bias.to(dtype)

    return weights


def constant_weights(layer: Any, dtype: torch.dtype, normalization: Any = None) -> Weights:
    """A copy of the layer's weights, a batch normalisation after it folded in.

    Normalisation scales output channel c by s = gamma / sqrt(variance + epsilon): the kernel becomes k s, the bias
    (b - mean) s + beta. Worked out in float64, so that rounding is that of the last step alone.
    """
    view = _depthwise_view if _is_depthwise(layer) else _view
    kernel = view(_double(layer.kernel)).reshape(_torch_shape(layer))
    bias = _double(layer.bias) if layer.use_bias else None
    if normalization is not None:
        scale, shift = _scale_and_shift(normalization)
        kernel = kernel * scale.reshape(-1, 1, 1, 1)
        bias = shift if bias is None else bias * scale + shift
    fixed = kernel.to(dtype).contiguous(memory_format=torch.channels_last)
    fixed_bias = None if bias is None else bias.to(dtype)
    return lambda: (fixed, fixed_bias)


def _scale_and_shift(layer: Any) -> tuple[Tensor, Tensor]:
    scale = (_double(layer.moving_variance) + layer.epsilon).rsqrt()
    if layer.scale:
        scale = scale * _double(layer.gamma)
    shift = -_double(layer.moving_mean) * scale
    return scale, shift + _double(layer.beta) if layer.center else shift


def _double(variable: keras.Variable) -> Tensor:
    return variable.value.detach().double()


def _is_depthwise(layer: Any) -> bool:
    return isinstance(layer, keras.layers.DepthwiseConv2D)


def _torch_shape(layer: Any) -> tuple[int, int, int, int]:
    height, width, inner, outer = layer.kernel.shape
    return (inner * outer, 1, height, width) if _is_depthwise(layer) else (outer, inner, height, width)


def _view(kernel: Tensor) -> Tensor:
    """(height, width, in, out) as (out, in, height, width)."""
    return kernel.permute(3, 2, 0, 1)


def _keras_view(kernel: Tensor) -> Tensor:
    return kernel.permute(2, 3, 1, 0)


def _depthwise_view(kernel: Tensor) -> Tensor:
    """(height, width, channels, multiplier) as (channels, multiplier, height, width), and back."""
    return kernel.permute(2, 3, 0, 1)


def _in_torch_order(kernel: Tensor) -> Tensor:
    return kernel.contiguous(memory_format=torch.channels_last)
