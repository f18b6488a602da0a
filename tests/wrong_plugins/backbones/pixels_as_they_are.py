"""Pixels go into the first convolution as they are, 0 to 255."""

import keras
from keras import layers

from braintumor_kit.contracts import Backbone, NoOptions, Trunk

BREAKS = "pixels_scaled"
PLAIN = {"data_format": "channels_last", "dtype": "float32"}


class Small(Backbone[NoOptions]):
    """Two convolutions of pixels as they are."""

    api_version = 1
    Options = NoOptions

    def build(self, image_size: int, channels: int) -> Trunk:
        x = inputs = keras.Input((image_size, image_size, channels), dtype="float32")
        x = layers.Conv2D(8, 3, strides=4, activation="relu", name="conv1", **PLAIN)(x)
        x = layers.Conv2D(16, 3, strides=4, activation="relu", name="conv2", **PLAIN)(x)
        stages = {"stage1": "conv1", "stage2": "conv2"}
        return Trunk(keras.Model(inputs, x), (1.0,), (0.0,), "conv2", stages)
