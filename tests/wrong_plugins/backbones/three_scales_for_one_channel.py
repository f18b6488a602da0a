"""The scale of RGB is given to trunks of one channel too."""

import keras
from keras import layers

from braintumor_kit.contracts import Backbone, NoOptions, Trunk

BREAKS = "builds"
PLAIN = {"data_format": "channels_last", "dtype": "float32"}
SCALE = (1 / 58.4, 1 / 57.1, 1 / 57.4)
OFFSET = (-2.12, -2.04, -1.80)


class Small(Backbone[NoOptions]):
    """Two convolutions, on ImageNet's scale."""

    api_version = 1
    Options = NoOptions

    def build(self, image_size: int, channels: int) -> Trunk:
        x = inputs = keras.Input((image_size, image_size, channels), dtype="float32")
        x = layers.Conv2D(8, 3, strides=4, activation="relu", name="conv1", **PLAIN)(x)
        x = layers.Conv2D(16, 3, strides=4, activation="relu", name="conv2", **PLAIN)(x)
        stages = {"stage1": "conv1", "stage2": "conv2"}
        return Trunk(keras.Model(inputs, x), SCALE, OFFSET, "conv2", stages)
