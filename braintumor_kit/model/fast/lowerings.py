"""How each ordinary Keras layer is said in torch.

A lowering takes a call of a layer (the layer, the shapes that it is called on, the dtype of convolutions) and gives a
function `(training, *tensors) -> tensor` that reads the layer's variables when it runs. Pictures are (N, C, H, W) in
torch's channels_last memory; weights keep Keras' shapes and are viewed in torch's. A call that has no lowering, or of a
form that its lowering does not cover, is made as it is.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import torch
from torch import Tensor
from torch.nn import functional as F

Lowered = Callable[..., Tensor]
Lowering = Callable[["Call"], Lowered | None]
Elementwise = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Call:
    """One call of a layer in a model's graph.

    Attributes:
        layer: what is called.
        shapes: Keras' shapes of its inputs, (None, H, W, C) for pictures.
        dtype: of convolutions.
    """

    layer: Any
    shapes: tuple[tuple[int | None, ...], ...]
    dtype: torch.dtype

    @property
    def ranks(self) -> set[int]:
        """Of its inputs."""
        return {len(shape) for shape in self.shapes}

    def is_of_channels(self, axis: int) -> bool:
        """Whether `axis` is the last one, that of channels or features, of all pictures or all rows."""
        return self.ranks in ({2}, {4}) and axis in (-1, min(self.ranks) - 1)


def lower(call: Call) -> Lowered | None:
    """The call in torch, or None where it is to be made as it is."""
    lowering = LOWERINGS.get(type(call.layer))
    return lowering(call) if lowering else None


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Pixels before and after along one axis for TensorFlow's "same": output = ceil(size / stride)."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def _convolution(call: Call) -> Lowered | None:
    layer, dtype, activation = call.layer, call.dtype, _elementwise(call.layer.activation)
    if layer.dilation_rate != (1, 1) or activation is None:
        return None
    pad = _padding(layer)

    def run(training: bool, x: Tensor) -> Tensor:
        kernel = layer.kernel.value.permute(3, 2, 0, 1).to(dtype, memory_format=torch.channels_last)
        bias = layer.bias.value.to(dtype) if layer.use_bias else None
        x, padding = pad(x.to(dtype))
        return activation(F.conv2d(x, kernel, bias, layer.strides, padding, 1, layer.groups))

    return run


def _depthwise(call: Call) -> Lowered | None:
    layer, dtype, activation = call.layer, call.dtype, _elementwise(call.layer.activation)
    if layer.dilation_rate not in ((1, 1), 1) or activation is None:
        return None
    pad = _padding(layer)

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


def _batch_normalization(call: Call) -> Lowered | None:
    layer = call.layer
    if layer.renorm or not call.is_of_channels(layer.axis):
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
        count = x.numel() // x.shape[1]
        if count == 1:  # torch refuses to normalise one value a channel; it is its own mean, without variance
            batch_mean = x.detach().float().flatten()
            y = F.batch_norm(x - x, variance * 0, variance * 0 + 1, gamma, beta, False, 0.0, layer.epsilon)
        else:
            y = F.batch_norm(x, batch_mean, batch_variance, gamma, beta, True, 1.0, layer.epsilon)
        mean.lerp_(batch_mean, 1 - layer.momentum)
        variance.lerp_(batch_variance * ((count - 1) / count), 1 - layer.momentum)
        return y

    return run


def _activation_layer(call: Call) -> Lowered | None:
    activation = _elementwise(call.layer.activation)
    return (lambda training, x: activation(x)) if activation else None


def _relu(call: Call) -> Lowered | None:
    layer = call.layer
    if layer.negative_slope or layer.threshold:
        return None
    if layer.max_value is None:
        return lambda training, x: F.relu(x)
    return lambda training, x: F.hardtanh(x, 0.0, float(layer.max_value))


def _elementwise(function: Any) -> Elementwise | None:
    """An activation that works on each number by itself, in torch; None for all others, which may look along an
    axis (softmax, glu) and so depend on the layout."""
    return (lambda x: x) if function is None else ELEMENTWISE.get(function)


def _add(call: Call) -> Lowered | None:
    if len(call.ranks) != 1:
        return None

    def run(training: bool, first: Tensor, *others: Tensor) -> Tensor:
        for other in others:
            first = first + other
        return first

    return run


def _concatenate(call: Call) -> Lowered | None:
    if not call.is_of_channels(call.layer.axis):
        return None
    return lambda training, *parts: torch.cat(parts, dim=1)


def _zero_padding(call: Call) -> Lowered | None:
    (top, bottom), (left, right) = call.layer.padding
    return lambda training, x: F.pad(x, (left, right, top, bottom))


def _max_pooling(call: Call) -> Lowered | None:
    layer = call.layer
    if layer.padding != "valid":
        return None
    return lambda training, x: F.max_pool2d(x, layer.pool_size, layer.strides)


def _average_pooling(call: Call) -> Lowered | None:
    layer = call.layer
    if layer.padding != "valid":
        return None
    return lambda training, x: F.avg_pool2d(x, layer.pool_size, layer.strides)


def _global_average_pooling(call: Call) -> Lowered | None:
    keep = call.layer.keepdims
    return lambda training, x: x.mean(dim=(2, 3), keepdim=keep, dtype=torch.float32)


def _dropout(call: Call) -> Lowered | None:
    layer = call.layer
    if layer.noise_shape is not None:
        return None
    return lambda training, x: F.dropout(x, layer.rate, training)


def _dense(call: Call) -> Lowered | None:
    layer = call.layer
    if call.ranks != {2}:
        return None

    def run(training: bool, x: Tensor) -> Tensor:  # few numbers that decide the answer: always float32
        y = F.linear(x.float(), layer.kernel.value.T, layer.bias.value if layer.use_bias else None)
        return layer.activation(y) if layer.activation else y

    return run


def _rescaling(call: Call) -> Lowered | None:
    layer = call.layer
    if call.ranks != {4} or any(torch.as_tensor(value).ndim > 1 for value in (layer.scale, layer.offset)):
        return None

    def per_channel(value: Any, like: Tensor) -> Tensor:
        tensor = torch.as_tensor(value, dtype=torch.float32, device=like.device)
        return tensor.reshape(1, -1, 1, 1) if tensor.ndim else tensor

    return lambda training, x: x.float() * per_channel(layer.scale, x) + per_channel(layer.offset, x)


ELEMENTWISE: dict[Any, Elementwise] = {
    keras.activations.linear: lambda x: x,
    keras.activations.relu: F.relu,
    keras.activations.relu6: F.relu6,
    keras.activations.silu: F.silu,
    keras.activations.leaky_relu: keras.activations.leaky_relu,
    keras.activations.elu: F.elu,
    keras.activations.sigmoid: torch.sigmoid,
    keras.activations.tanh: torch.tanh,
    keras.activations.gelu: keras.activations.gelu,
    keras.activations.hard_silu: F.hardswish,
    keras.activations.hard_sigmoid: F.hardsigmoid,
}

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
