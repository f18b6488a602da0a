"""A layer of the author's own is hidden inside one of Keras'."""

from typing import Any

import keras
from keras import layers

from braintumor_kit.contracts import Backbone, NoOptions, Trunk

BREAKS = "plain_layers"
PLAIN = {"data_format": "channels_last", "dtype": "float32"}


@keras.saving.register_keras_serializable()
class Halved(layers.Conv2D):
    def call(self, x: Any) -> Any:
        return super().call(x) / 2


class Small(Backbone[NoOptions]):
    """Two convolutions, one halved and under spectral normalisation."""

    api_version = 1
    Options = NoOptions

    def build(self, image_size: int, channels: int) -> Trunk:
        x = inputs = keras.Input((image_size, image_size, channels), dtype="float32")
        x = layers.Conv2D(8, 3, strides=4, activation="relu", name="conv1", **PLAIN)(x)
        conv = Halved(16, 3, strides=4, activation="relu", name="halved", **PLAIN)
        x = layers.SpectralNormalization(conv, dtype="float32", name="conv2")(x)
        stages = {"stage1": "conv1", "stage2": "conv2"}
        return Trunk(keras.Model(inputs, x), (1 / 255,), (0.0,), "conv2", stages)
