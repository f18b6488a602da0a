"""A convolution has a regulariser of the author's own, without which the saved model does not open."""

from typing import Any

import keras
from keras import layers

from braintumor_kit.contracts import Backbone, NoOptions, Trunk

BREAKS = "survives_saving"
PLAIN = {"data_format": "channels_last", "dtype": "float32"}


@keras.saving.register_keras_serializable()
class Weak(keras.regularizers.Regularizer):
    def __call__(self, x: Any) -> Any:
        return 1e-6 * keras.ops.sum(keras.ops.abs(x))

    def get_config(self) -> dict[str, Any]:
        return {}


class Small(Backbone[NoOptions]):
    """Two convolutions, weakly regularised."""

    api_version = 1
    Options = NoOptions

    def build(self, image_size: int, channels: int) -> Trunk:
        x = inputs = keras.Input((image_size, image_size, channels), dtype="float32")
        x = layers.Conv2D(8, 3, strides=4, activation="relu", name="conv1", kernel_regularizer=Weak(), **PLAIN)(x)
        x = layers.Conv2D(16, 3, strides=4, activation="relu", name="conv2", **PLAIN)(x)
        stages = {"stage1": "conv1", "stage2": "conv2"}
        return Trunk(keras.Model(inputs, x), (1 / 255,), (0.0,), "conv2", stages)
