"""Contract of a backbone, API version 1.

A backbone builds the convolutional trunk and says three things about it: how pixels 0..255 are scaled before it,
which layer's output is the one to explain, and where its stages end, so that a recipe can freeze up to one of them.
btkit adds the scaling, global average pooling, dropout and the classifying layer.

    class Tiny(Backbone[NoOptions]):
        "Three convolutions."
        api_version = 1
        Options = NoOptions

        def build(self, image_size: int, channels: int) -> Trunk:
            x = inputs = keras.Input((image_size, image_size, channels), dtype="float32")
            for i, width in enumerate((16, 32, 64), start=1):
                x = keras.layers.Conv2D(width, 3, strides=2, activation="relu", name=f"conv{i}",
                                        data_format="channels_last", dtype="float32")(x)
            return Trunk(keras.Model(inputs, x), scale=(1 / 255,), offset=(0.0,), explain_layer="conv3",
                         stages={"stage1": "conv1", "stage2": "conv2", "stage3": "conv3"}, weights="random")
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from braintumor_kit.contracts.plugin import OptionsT, Plugin

if TYPE_CHECKING:
    import keras

PROMISES: Mapping[str, str] = {
    "builds": "`build` gives a trunk for 96, 224 and 225 pixels of 1 and of 3 channels, (N, size, size, channels) to "
    "(N, h, w, features)",
    "plain_layers": "the trunk is a functional model of ordinary Keras layers with names of their own, channels_last, "
    "float32",
    "explained_layer_spatial": "`explain_layer` is a layer of the trunk whose output has several rows and columns",
    "stages_in_order": "`stages` names layers of the trunk, those nearer the input first",
    "pixels_scaled": "`scale` and `offset`, or the trunk's own first layers, bring pixels 0..255 to within -16..16 "
    "before the first layer that has weights",
    "survives_saving": "the classifier around it, saved and loaded in safe mode by Keras alone, gives the same "
    "probabilities",
    "learns": "one small step along the gradient of its weights lowers the loss on the batch that it was taken on",
    "stays_frozen": "with its layers frozen, a step of training leaves every weight as it was, bit by bit",
    "ignores_data_format": "it is the same channels_last, float32 network when Keras' global data format is "
    "channels_first and its dtype policy mixed",
    "finite_in_bfloat16": "with convolutions in bfloat16 its features are finite",
}
"""What every backbone promises, with the options of its example."""

WAIVED_BY: Mapping[str, str] = {}
"""Promises that a property, declared untrue with a reason, waives."""


@dataclass(frozen=True)
class Trunk:
    """A built convolutional trunk.

    Attributes:
        model: a functional Keras model of ordinary Keras layers (no custom class: the saved model must open where
            btkit is not installed), channels_last, float32: (N, H, W, C) scaled pixels to (N, h, w, features).
        scale: the trunk wants `pixel * scale + offset` for pixels in 0..255; one value for all channels or one a
            channel. Weights that want pixels less a mean and no smaller (caffe's) say so in `known_failures`, under
            `pixels_scaled`.
        offset: as `scale`.
        explain_layer: name of the layer of `model` whose output explainers look at, normally the last one that is
            spatial and follows its ReLU.
        stages: from input to output, each stage's name and the name of the layer that ends it. `trainable = "stage4"`
            in a recipe freezes everything before that stage.
        weights: where the weights come from, for the record: "random", or a preset, a package, a file.
    """

    model: keras.Model
    scale: tuple[float, ...]
    offset: tuple[float, ...]
    explain_layer: str
    stages: Mapping[str, str] = field(default_factory=dict)
    weights: str = "random"


class Backbone(Plugin[OptionsT]):
    """A plugin that builds the convolutional trunk."""

    kind: ClassVar[str] = "backbone"
    current_api_version: ClassVar[int] = 1

    default_channels: ClassVar[int] = 3
    """Channels that the trunk takes; grey slices are repeated to that many. 3 for ImageNet weights."""

    @abstractmethod
    def build(self, image_size: int, channels: int) -> Trunk:
        """Builds the trunk for square pictures of `image_size` pixels.

        Random weights follow from Keras' global seed, which btkit sets before. The global data format and dtype
        policy neither matter nor change: layers are told `data_format="channels_last"` and `dtype="float32"`.

        Raises:
            InputError: where the weights cannot be had (no network, no such file, another architecture), saying how
                to get them.
        """
