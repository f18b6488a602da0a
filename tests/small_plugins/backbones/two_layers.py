"""Two convolutions, for tests that fit many networks."""

import keras
from keras import layers

from braintumor_kit.contracts import Backbone, NoOptions, Trunk

PLAIN = {"data_format": "channels_last", "dtype": "float32"}


class TwoLayers(Backbone[NoOptions]):
    """Two convolutions and nothing else."""

    api_version = 1
    Options = NoOptions

    def build(self, image_size: int, channels: int) -> Trunk:
        x = inputs = keras.Input((image_size, image_size, channels), dtype="float32")
        x = layers.Conv2D(8, 3, strides=4, use_bias=False, name="conv1", **PLAIN)(x)
        x = layers.BatchNormalization(momentum=0.5, dtype="float32", name="bn1")(x)
        x = layers.ReLU(dtype="float32", name="relu1")(x)
        x = layers.Conv2D(16, 3, strides=2, activation="relu", name="conv2", **PLAIN)(x)
        return Trunk(keras.Model(inputs, x), (1 / 255,), (0.0,), "conv2", {"stage1": "relu1", "stage2": "conv2"})
