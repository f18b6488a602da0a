"""The layer to explain is the pooled one, of one row and one column."""

import keras
from keras import layers

from braintumor_kit.contracts import Backbone, NoOptions, Trunk

BREAKS = "explained_layer_spatial"
PLAIN = {"data_format": "channels_last", "dtype": "float32"}


class Small(Backbone[NoOptions]):
    """Two convolutions and squeeze-and-excitation."""

    api_version = 1
    Options = NoOptions

    def build(self, image_size: int, channels: int) -> Trunk:
        x = inputs = keras.Input((image_size, image_size, channels), dtype="float32")
        x = layers.Conv2D(8, 3, strides=4, activation="relu", name="conv1", **PLAIN)(x)
        x = conv = layers.Conv2D(16, 3, strides=4, activation="relu", name="conv2", **PLAIN)(x)
        x = layers.GlobalAveragePooling2D(keepdims=True, name="squeeze", **PLAIN)(x)
        x = layers.Conv2D(16, 1, activation="sigmoid", name="gate", **PLAIN)(x)
        x = layers.Multiply(dtype="float32")([conv, x])
        stages = {"stage1": "conv1", "stage2": "conv2"}
        return Trunk(keras.Model(inputs, x), (1 / 255,), (0.0,), "squeeze", stages)
