"""How each ordinary Keras layer is said in torch.

A lowering takes a layer and the dtype of convolutions and gives a function `(training, *tensors) -> tensor` that reads
the layer's variables when it runs. Pictures are (N, C, H, W) in torch's channels_last memory whatever the layer's data
format; weights keep Keras' shapes and are viewed in torch's. A layer without a lowering is called as it is.
"""

from collections.abc import Callable
from typing import Any

import keras
import torch
from keras import layers
from torch import Tensor
from torch.nn import functional as F

Lowered = Callable[..., Tensor]
Lowering = Callable[[Any, torch.dtype], Lowered | None]


def lower(operation: Any, dtype: torch.dtype) -> Lowered | None:
    """The operation in torch, or None where it is to be called as it is."""
    lowering = LOWERINGS.get(type(operation))
    return lowering(operation, dtype) if lowering else None


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Pixels before and after along one axis for TensorFlow's "same": output = ceil(size / stride)."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def _convolution(layer: layers.Conv2D, dtype: torch.dtype) -> Lowered | None:
    if layer.dilation_rate != (1, 1):
        return None
    pad, activation = _padding(layer), _activation(layer.activation)

    def run(training: bool, x: Tensor) -> Tensor:
        kernel = layer.kernel.value.permute(3, 2, 0, 1).to(dtype, memory_format=torch.channels_last)
        bias = layer.bias.value.to(dtype) if layer.use_bias else None
        x, padding = pad(x.to(dtype))
        return activation(F.conv2d(x, kernel, bias, layer.strides, padding, 1, layer.groups))

    return run


def _depthwise(layer: layers.DepthwiseConv2D, dtype: torch.dtype) -> Lowered | None:
    if layer.dilation_rate not in ((1, 1), 1):
        return None
    pad, activation = _padding(layer), _activation(layer.activation)

    def run(training: bool, x: Tensor) -> Tensor:
        height, width, channels, multiplier = layer.kernel.shape
        kernel = layer.kernel.value.permute(2, 3, 0, 1).reshape(channels * multiplier, 1, height, width).to(dtype)
        bias = layer.bias.value.to(dtype) if layer.use_bias else None
        x, padding = pad(x.to(dtype))
        return activation(F.conv2d(x, kernel, bias, layer.strides, padding, 1, channels))

    return run


def _padding(layer: Any) -> Callable[[Tensor], tuple[Tensor, int | tuple[int, int]]]:
    """Gives the picture, padded where torch's own symmetric padding cannot, and the padding left to torch."""
    (kh, kw), (sh, sw) = layer.kernel_size, layer.strides

    def same(x: Tensor) -> tuple[Tensor, int | tuple[int, int]]:
        (top, bottom), (left, right) = same_padding(x.shape[2], kh, sh), same_padding(x.shape[3], kw, sw)
        if top == bottom and left == right:
            return x, (top, left)
        return F.pad(x, (left, right, top, bottom)), 0

    return same if layer.padding == "same" else lambda x: (x, 0)


def _batch_normalization(layer: layers.BatchNormalization, dtype: torch.dtype) -> Lowered | None:
    if layer.renorm:
        return None

    def run(training: bool, x: Tensor) -> Tensor:
        gamma = layer.gamma.value if layer.scale else None
        beta = layer.beta.value if layer.center else None
        mean, variance = layer.moving_mean.value.data, layer.moving_variance.value.data
        if not (training and layer.trainable):
            return F.batch_norm(x, mean, variance, gamma, beta, False, 0.0, layer.epsilon)
        # torch keeps the unbiased variance, Keras the biased one: the batch's own statistics are taken by momentum 1
        # into fresh buffers, and Keras' moving average of them is written here.
        batch_mean, batch_variance = torch.zeros_like(mean), torch.zeros_like(variance)
        y = F.batch_norm(x, batch_mean, batch_variance, gamma, beta, True, 1.0, layer.epsilon)
        count = x.numel() // x.shape[1]
        mean.lerp_(batch_mean, 1 - layer.momentum)
        variance.lerp_(batch_variance * ((count - 1) / count), 1 - layer.momentum)
        return y

    return run


def _activation_layer(layer: Any, dtype: torch.dtype) -> Lowered | None:
    if getattr(layer.activation, "__name__", "") == "softmax":
        return None
    activation = _activation(layer.activation)
    return lambda training, x: activation(x)


def _relu(layer: layers.ReLU, dtype: torch.dtype) -> Lowered | None:
    if layer.negative_slope or layer.threshold:
        return None
    if layer.max_value is None:
        return lambda training, x: F.relu(x)
    return lambda training, x: F.hardtanh(x, 0.0, float(layer.max_value))


def _activation(function: Any) -> Callable[[Tensor], Tensor]:
    """Keras' activation functions work on tensors of any layout; the common ones are said in torch directly."""
    if function is None:
        return lambda x: x
    known: dict[str, Callable[[Tensor], Tensor]] = {
        "linear": lambda x: x,
        "relu": F.relu,
        "relu6": F.relu6,
        "silu": F.silu,
    }
    return known.get(getattr(function, "__name__", ""), function)


def _add(layer: layers.Add, dtype: torch.dtype) -> Lowered:
    def run(training: bool, first: Tensor, *others: Tensor) -> Tensor:
        for other in others:
            first = first + other
        return first

    return run


def _concatenate(layer: layers.Concatenate, dtype: torch.dtype) -> Lowered | None:
    if layer.axis not in (-1, 3):
        return None
    return lambda training, *pictures: torch.cat(pictures, dim=1)


def _zero_padding(layer: layers.ZeroPadding2D, dtype: torch.dtype) -> Lowered:
    (top, bottom), (left, right) = layer.padding
    return lambda training, x: F.pad(x, (left, right, top, bottom))


def _max_pooling(layer: layers.MaxPooling2D, dtype: torch.dtype) -> Lowered | None:
    if layer.padding != "valid":
        return None
    return lambda training, x: F.max_pool2d(x, layer.pool_size, layer.strides)


def _average_pooling(layer: layers.AveragePooling2D, dtype: torch.dtype) -> Lowered | None:
    if layer.padding != "valid":
        return None
    return lambda training, x: F.avg_pool2d(x, layer.pool_size, layer.strides)


def _global_average_pooling(layer: layers.GlobalAveragePooling2D, dtype: torch.dtype) -> Lowered:
    return lambda training, x: x.mean(dim=(2, 3), keepdim=layer.keepdims, dtype=torch.float32)


def _dropout(layer: layers.Dropout, dtype: torch.dtype) -> Lowered | None:
    if layer.noise_shape is not None:
        return None
    return lambda training, x: F.dropout(x, layer.rate, training)


def _dense(layer: layers.Dense, dtype: torch.dtype) -> Lowered:
    activation = layer.activation

    def run(training: bool, x: Tensor) -> Tensor:  # few numbers that decide the answer: always float32
        y = F.linear(x.float(), layer.kernel.value.T, layer.bias.value if layer.use_bias else None)
        return activation(y) if activation else y

    return run


def _rescaling(layer: layers.Rescaling, dtype: torch.dtype) -> Lowered:
    def per_channel(value: Any, like: Tensor) -> Tensor:
        tensor = torch.as_tensor(value, dtype=torch.float32, device=like.device)
        return tensor.reshape(1, -1, 1, 1) if tensor.ndim else tensor

    return lambda training, x: x.float() * per_channel(layer.scale, x) + per_channel(layer.offset, x)


LOWERINGS: dict[type, Lowering] = {
    keras.layers.Conv2D: _convolution,
    keras.layers.DepthwiseConv2D: _depthwise,
    keras.layers.BatchNormalization: _batch_normalization,
    keras.layers.Activation: _activation_layer,
    keras.layers.ReLU: _relu,
    keras.layers.Add: _add,
    keras.layers.Concatenate: _concatenate,
    keras.layers.ZeroPadding2D: _zero_padding,
    keras.layers.MaxPooling2D: _max_pooling,
    keras.layers.AveragePooling2D: _average_pooling,
    keras.layers.GlobalAveragePooling2D: _global_average_pooling,
    keras.layers.Dropout: _dropout,
    keras.layers.Dense: _dense,
    keras.layers.Rescaling: _rescaling,
}
