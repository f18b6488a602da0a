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

from braintumor_kit.model.fast.depthwise import depthwise
from braintumor_kit.model.fast.graph import Call
from braintumor_kit.model.fast.kernels import constant_weights, live_weights
from braintumor_kit.model.fast.over_group import SumOver, normalized_over_group

Lowered = Callable[..., Tensor]
Lowering = Callable[[Call, "Setting"], Lowered | None]
Elementwise = Callable[[Tensor], Tensor]

CONVOLUTIONS = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)


@dataclass(frozen=True)
class Setting:
    """How a program runs.

    Attributes:
        dtype: of convolutions.
        channels_first: layout of pictures in the Keras model.
        channel_axes: what that model calls their axis of channels.
        frozen: weights are constants.
        rectifier: stands in for every plain ReLU.
        sum_over_group: sums over processes that train together.
    """

    dtype: torch.dtype
    channels_first: bool
    channel_axes: tuple[int, int]
    frozen: bool
    rectifier: Elementwise | None = None
    sum_over_group: SumOver | None = None

    def activation(self, function: Any, over: bool = False) -> Elementwise | None:
        """An activation that works on each number by itself, in torch, writing over its input where it may; None for
        all others, which may look along an axis (softmax, glu) and so depend on the layout."""
        if self.rectifier and function is keras.activations.relu:
            return self.rectifier
        return _elementwise(function, over)

    def is_of_channels(self, call: Call, axis: int) -> bool:
        """Whether `axis` is that of channels or features, of all pictures or all rows that the call reads."""
        if call.ranks == {4}:
            return axis in self.channel_axes
        return call.ranks == {2} and axis in (1, -1)


def lower(call: Call, setting: Setting) -> Lowered | None:
    """The call in torch, or None where it is to be made as it is."""
    lowering = LOWERINGS.get(type(call.layer)) if call.is_plain else None
    return lowering(call, setting) if lowering else None


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Pixels before and after along one axis for TensorFlow's "same": output = ceil(size / stride)."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def is_convolution(call: Call) -> bool:
    """Whether it is a convolution that is said in torch, so that it can take its neighbours in."""
    layer = call.layer
    if type(layer) not in CONVOLUTIONS or not call.is_plain:
        return False
    return layer.dilation_rate in ((1, 1), 1) and _elementwise(layer.activation) is not None


def _convolution(call: Call, setting: Setting) -> Lowered | None:
    layer, activation = call.layer, setting.activation(call.layer.activation, over=True)
    if activation is None or not is_convolution(call):
        return None
    if setting.frozen:
        weights = constant_weights(layer, setting.dtype, call.normalization)
    else:
        weights = live_weights(layer, setting.dtype)
    by_channel = isinstance(layer, keras.layers.DepthwiseConv2D)
    pad, strides, dtype = _padding(call), layer.strides, setting.dtype

    def run(training: bool, x: Tensor) -> Tensor:
        kernel, bias = weights()
        x, padding = pad(x.to(dtype))
        if by_channel:
            return activation(depthwise(x, kernel, bias, strides, padding))
        return activation(F.conv2d(x, kernel, bias, strides, padding, 1, layer.groups))

    return run


def _padding(call: Call) -> Callable[[Tensor], tuple[Tensor, int | tuple[int, int]]]:
    """Gives the picture, padded where torch's own symmetric padding cannot, and the padding left to torch."""
    (kh, kw), (sh, sw) = call.layer.kernel_size, call.layer.strides

    def same(x: Tensor) -> tuple[Tensor, int | tuple[int, int]]:
        (top, bottom), (left, right) = same_padding(x.shape[2], kh, sh), same_padding(x.shape[3], kw, sw)
        if top == bottom and left == right:
            return x, (top, left)
        return F.pad(x, (left, right, top, bottom)), 0

    return same if call.layer.padding == "same" else lambda x: (x, call.padding)


def _batch_normalization(call: Call, setting: Setting) -> Lowered | None:
    layer = call.layer
    if layer.renorm or not setting.is_of_channels(call, layer.axis):
        return None
    gamma = layer.gamma.value if layer.scale else None
    beta = layer.beta.value if layer.center else None
    mean, variance = layer.moving_mean.value.data, layer.moving_variance.value.data

    def run(training: bool, x: Tensor) -> Tensor:
        if not (training and layer.trainable):
            return F.batch_norm(x, mean, variance, gamma, beta, False, 0.0, layer.epsilon)
        if setting.sum_over_group:
            y, of_all = normalized_over_group(x, gamma, beta, layer.epsilon, setting.sum_over_group)
            mean.lerp_(of_all[0], 1 - layer.momentum)
            variance.lerp_(of_all[1], 1 - layer.momentum)
            return y
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


def _activation_layer(call: Call, setting: Setting) -> Lowered | None:
    activation = setting.activation(call.layer.activation, over=call.overwrites is not None)
    return (lambda training, x: activation(x)) if activation else None


def _relu(call: Call, setting: Setting) -> Lowered | None:
    layer, over = call.layer, call.overwrites is not None
    if layer.negative_slope or layer.threshold:
        return None
    if layer.max_value is None:
        if setting.rectifier:
            rectifier = setting.rectifier
            return lambda training, x: rectifier(x)
        return lambda training, x: F.relu(x, inplace=over)
    return lambda training, x: F.hardtanh(x, 0.0, float(layer.max_value), inplace=over)


def _elementwise(function: Any, over: bool = False) -> Elementwise | None:
    if over and function is keras.activations.relu:
        return F.relu_
    return (lambda x: x) if function is None else ELEMENTWISE.get(function)


def _add(call: Call, setting: Setting) -> Lowered | None:
    if len(call.ranks) != 1:
        return None
    place = call.overwrites

    def run(training: bool, *terms: Tensor) -> Tensor:
        total, *rest = terms if place is None else (terms[place], *terms[:place], *terms[place + 1 :])
        free = place is not None
        for term in rest:
            alike = total.shape == term.shape and total.dtype == term.dtype
            total = total.add_(term) if free and alike else total + term
            free = True
        return total

    return run


def _concatenate(call: Call, setting: Setting) -> Lowered | None:
    if not setting.is_of_channels(call, call.layer.axis):
        return None
    return lambda training, *parts: torch.cat(parts, dim=1)


def _zero_padding(call: Call, setting: Setting) -> Lowered | None:
    (top, bottom), (left, right) = call.layer.padding
    return lambda training, x: F.pad(x, (left, right, top, bottom))


def _max_pooling(call: Call, setting: Setting) -> Lowered | None:
    layer = call.layer
    if layer.padding != "valid":
        return None
    return lambda training, x: F.max_pool2d(x, layer.pool_size, layer.strides, call.padding)


def _average_pooling(call: Call, setting: Setting) -> Lowered | None:
    layer = call.layer
    if layer.padding != "valid":
        return None
    return lambda training, x: F.avg_pool2d(x, layer.pool_size, layer.strides)


def _global_average_pooling(call: Call, setting: Setting) -> Lowered | None:
    keep = call.layer.keepdims
    return lambda training, x: x.mean(dim=(2, 3), keepdim=keep, dtype=torch.float32)


def _dropout(call: Call, setting: Setting) -> Lowered | None:
    layer = call.layer
    if layer.noise_shape is not None:
        return None
    return lambda training, x: F.dropout(x, layer.rate, training)


def _dense(call: Call, setting: Setting) -> Lowered | None:
    layer = call.layer
    if call.ranks != {2}:
        return None
    kernel, bias = layer.kernel.value, layer.bias.value if layer.use_bias else None

    def run(training: bool, x: Tensor) -> Tensor:  # few numbers that decide the answer: always float32
        y = F.linear(x.float(), kernel.T, bias)
        return layer.activation(y) if layer.activation else y

    return run


def _rescaling(call: Call, setting: Setting) -> Lowered | None:
    scale, offset = (torch.as_tensor(value, dtype=torch.float32) for value in (call.layer.scale, call.layer.offset))
    if call.ranks != {4} or max(scale.ndim, offset.ndim) > (0 if setting.channels_first else 1):
        return None
    scale, offset = (value.reshape(1, -1, 1, 1) for value in torch.broadcast_tensors(scale, offset))
    places: dict[torch.device, tuple[Tensor, Tensor]] = {}  # copied to a device once, not once a step

    def run(training: bool, x: Tensor) -> Tensor:
        if x.device not in places:
            places[x.device] = scale.to(x.device), offset.to(x.device)
        on_device = places[x.device]
        return (x.float() * on_device[0]).add_(on_device[1])

    return run


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
    keras.layers.DepthwiseConv2D: _convolution,
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
