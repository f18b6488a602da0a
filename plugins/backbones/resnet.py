"""keras-hub's ResNets, with Keras presets or timm checkpoints."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import keras
import keras_hub
from pydantic import Field
from safetensors import SafetensorError

from braintumor_kit.contracts import InputError
from braintumor_kit.contracts.backbones import Backbone, Trunk
from braintumor_kit.contracts.options import NameOrPath
from braintumor_kit.contracts.presets import HUGGING_FACE, KAGGLE, preset_folder
from braintumor_kit.contracts.pretrained import (
    IMAGENET_OFFSET,
    IMAGENET_SCALE,
    RGB,
    DownloadedWeightsOptions,
    WeightsUnavailableError,
    fit_channels,
    fit_scaling,
    random_instead,
    root_cause,
)


class Architecture(NamedTuple):
    """What tells one ResNet from another."""

    version: int
    block: str
    blocks: tuple[int, ...]

    def __str__(self) -> str:
        counts = "-".join(map(str, self.blocks))
        return f"ResNet of version {self.version} with {counts} {self.block.replace('_', ' ')}s"


class Scaling(NamedTuple):
    """The pixels that a network wants, `pixel * scale + offset`, one value or one a colour."""

    scale: tuple[float, ...]
    offset: tuple[float, ...]


_BLOCKS = {
    18: ("basic_block", (2, 2, 2, 2)),
    34: ("basic_block", (3, 4, 6, 3)),
    50: ("bottleneck_block", (3, 4, 6, 3)),
    101: ("bottleneck_block", (3, 4, 23, 3)),
    152: ("bottleneck_block", (3, 8, 36, 3)),
}
_IMAGENET = {
    (18, 1): "resnet_18_imagenet",
    (50, 1): "resnet_50_imagenet",
    (101, 1): "resnet_101_imagenet",
    (152, 1): "resnet_152_imagenet",
    (50, 2): "resnet_v2_50_imagenet",
    (101, 2): "resnet_v2_101_imagenet",
}
_USUAL_SCALING = {1: Scaling(IMAGENET_SCALE, IMAGENET_OFFSET), 2: Scaling((1 / 127.5,), (-1.0,))}

# What keras-hub raises over a folder that is not what it expects.
_UNREADABLE = (ValueError, TypeError, LookupError, AttributeError, OSError, RuntimeError, SafetensorError)


class ResNetOptions(DownloadedWeightsOptions):
    """Which ResNet, and where its weights come from."""

    depth: Literal[18, 34, 50, 101, 152] = Field(18, description="How many layers have weights.")
    version: Literal[1, 2] = Field(
        1,
        description="1 as published at CVPR 2016; 2 as at ECCV 2016, with normalisation and ReLU first.",
    )
    weights: NameOrPath = Field(
        "none",
        description='"none" for random ones, "imagenet" for keras-hub\'s preset, the name of a preset, '
        '"hf://timm/...", or a folder: a preset or a timm checkpoint (config.json, model.safetensors).',
    )


class ResNet(Backbone[ResNetOptions]):
    """keras-hub's ResNet 18 to 152, version 1 or 2, with random, Keras preset or timm weights.

    With pretrained weights and other than three channels, the first kernel is summed over colours
    (`fit_channels`) and scale and offset are their means over colours.

    Sources: He et al., Deep Residual Learning for Image Recognition, CVPR 2016; He et al., Identity Mappings
    in Deep Residual Networks, ECCV 2016.
    """

    api_version = 1
    Options = ResNetOptions

    def build(self, image_size: int, channels: int) -> Trunk:
        if self.options.weights == "none":
            return self._random(image_size, channels, "random")
        handle, origin = self._source()
        try:
            folder = preset_folder(handle, origin)
        except WeightsUnavailableError as error:
            return self._random(image_size, channels, random_instead(error, self.options.if_unavailable))
        return self._pretrained(folder, image_size, channels, origin)

    @property
    def _architecture(self) -> Architecture:
        return Architecture(self.options.version, *_BLOCKS[self.options.depth])

    def _source(self) -> tuple[str, str]:
        """The weights as `preset_folder` takes them, and as a person would name them."""
        weights, presets = self.options.weights, keras_hub.models.ResNetBackbone.presets
        if weights.startswith((KAGGLE, HUGGING_FACE)) or Path(weights).is_absolute():
            return weights, weights
        name = self._imagenet_preset() if weights == "imagenet" else weights
        if name not in presets:
            raise InputError(
                f'weights = "{name}" of the backbone resnet is neither a folder that exists nor a name that '
                f'keras-hub knows: "none", "imagenet", "hf://timm/...", {", ".join(sorted(presets))}'
            )
        return presets[name]["kaggle_handle"], f"keras-hub's {name}"

    def _imagenet_preset(self) -> str:
        depth, version = self.options.depth, self.options.version
        if (depth, version) in _IMAGENET:
            return _IMAGENET[depth, version]
        depths = ", ".join(str(d) for d, v in _IMAGENET if v == version)
        timm = f'weights = "hf://timm/resnet{depth}.a1_in1k", ' if version == 1 else ""
        raise InputError(
            f"keras-hub has no ImageNet weights for the backbone resnet of depth = {depth}, version = "
            f'{version}: use {timm}weights = "none", or a depth that has them ({depths})'
        )

    def _random(self, image_size: int, channels: int, origin: str) -> Trunk:
        version, block, blocks = self._architecture
        backbone = keras_hub.models.ResNetBackbone(
            input_conv_filters=[64],
            input_conv_kernel_sizes=[7],
            stackwise_num_filters=[64, 128, 256, 512],
            stackwise_num_blocks=list(blocks),
            stackwise_num_strides=[1, 2, 2, 2],
            block_type=block,
            use_pre_activation=version == 2,
            **_shape(image_size, channels),
        )
        return self._trunk(backbone, channels, _USUAL_SCALING[version], origin)

    def _pretrained(self, folder: Path, image_size: int, channels: int, origin: str) -> Trunk:
        try:
            backbone = keras_hub.models.ResNetBackbone.from_preset(str(folder), **_shape(image_size, RGB))
            scaling = _declared_scaling(folder) or _USUAL_SCALING[self.options.version]
        except _UNREADABLE as error:
            raise InputError(
                f"{origin} cannot be read as a keras-hub preset or timm checkpoint of a ResNet: {root_cause(error)}"
            ) from error
        found = _architecture_of(backbone)
        if found != self._architecture:
            raise InputError(
                f"{origin} holds a {found}, and depth = {self.options.depth}, version = "
                f"{self.options.version} asks for a {self._architecture}: change depth or version to match"
            )
        return self._trunk(backbone, channels, scaling, origin)

    def _trunk(self, backbone: keras.Model, channels: int, scaling: Scaling, origin: str) -> Trunk:
        name = f"resnet{self.options.depth}" + ("v2" if self.options.version == 2 else "")
        stages = {"stem": "pool1_pool"} | {
            f"stage{i + 1}": f"stack{i}_block{count - 1}_out" for i, count in enumerate(self._architecture.blocks)
        }
        if self.options.version == 2:
            # A block's output is normalised and rectified by the next block; after the last, by this layer.
            stages["stage4"] = "post_relu"
        return Trunk(
            _plain_model(backbone, channels, name),
            scale=fit_scaling(scaling.scale, channels),
            offset=fit_scaling(scaling.offset, channels),
            explain_layer=stages["stage4"],
            stages=stages,
            weights=origin,
        )


def _shape(image_size: int, channels: int) -> dict[str, Any]:
    """Arguments that keep a backbone independent of Keras' global settings."""
    return {
        "image_shape": (image_size, image_size, channels),
        "data_format": "channels_last",
        "dtype": "float32",
    }


def _architecture_of(backbone: Any) -> Architecture:
    """A ResNet-vd counts as the ResNet that it is but for its stem and its shortcuts."""
    version = 2 if backbone.use_pre_activation else 1
    return Architecture(version, backbone.block_type.removesuffix("_vd"), tuple(backbone.stackwise_num_blocks))


def _declared_scaling(folder: Path) -> Scaling | None:
    """The scaling that the weights' own folder states, if it does."""
    try:
        converter = keras_hub.layers.ImageConverter.from_preset(str(folder))
    except FileNotFoundError:  # a preset without image_converter.json
        return None
    if converter is None:  # a timm checkpoint without pretrained_cfg
        return None
    return Scaling(_values(converter.scale, 1.0), _values(converter.offset, 0.0))


def _values(values: float | Sequence[float] | None, default: float) -> tuple[float, ...]:
    if values is None:
        return (default,)
    return (float(values),) if isinstance(values, int | float) else tuple(float(value) for value in values)


def _plain_model(backbone: Any, channels: int, name: str) -> keras.Model:
    """The same network and weights as an ordinary functional model, which opens without keras-hub."""
    height, width, _ = backbone.input_shape[1:]
    inputs = keras.Input((height, width, channels), dtype="float32", name="pixels")
    replaced = {"pool1_pool": _pool("pool1_pool", 1, strides=2)} if backbone.use_pre_activation else {}
    clone = keras.models.clone_model(
        backbone,
        inputs,
        clone_function=lambda layer: replaced.get(layer.name) or layer.__class__.from_config(layer.get_config()),
        call_function=_call,
    )
    model = keras.Model(inputs, clone.output, name=name)
    kernel, *others = backbone.get_weights()
    model.set_weights([fit_channels(kernel, channels, axis=2), *others])
    return model


def _call(layer: Any, x: Any, *args: Any, **kwargs: Any) -> Any:
    """Calls a cloned layer; puts a pooling layer in the place of version 2's padding with minus infinity.

    That padding is no layer, has no stable name and knows one data format only. Version 2 pads, and then
    takes the greatest of 3 x 3 values at every other place. This layer takes the greatest of 3 x 3 at every
    place ("same" pads with what never wins), and `pool1_pool` every other one of those, which is equal.
    """
    if isinstance(layer, keras.layers.Layer):
        return layer(x, *args, **kwargs)
    return _pool("pool1_max", 3, strides=1, padding="same")(x)


def _pool(name: str, size: int, strides: int, padding: str = "valid") -> keras.Layer:
    return keras.layers.MaxPooling2D(
        size, strides=strides, padding=padding, data_format="channels_last", dtype="float32", name=name
    )
