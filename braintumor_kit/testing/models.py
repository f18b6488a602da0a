"""Small classifiers whose answers are known, and pictures for them.

They are made from NumPy's own generators, so that nothing is drawn from the random numbers of the process.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from braintumor_kit.backend import use_torch_backend

use_torch_backend()
import keras  # noqa: E402  (after what puts it on torch)
from keras import layers  # noqa: E402

SIDE = 64
BLOB = 16
"""Side of a planted blob, in pixels."""

CLASSES = ("horizontal", "vertical", "neither")
ROWS, COLUMNS = 0, 1
"""Numbers of the classes of a blob striped along its rows, and along its columns."""

_PLAIN = {"data_format": "channels_last", "dtype": "float32"}
_UNDRAWN = {"kernel_initializer": "zeros", "dtype": "float32"}
"""An initializer that draws would take its seed from Python's random numbers."""

_CONVOLUTION = _PLAIN | _UNDRAWN
_STRENGTH = 400.0
_THRESHOLD = 0.1
_ANSWERS = 10.0
"""Makes what a random model says depend on the picture: its features vary little once they are averaged."""


def stripes_model() -> keras.Model:
    """Tells which way the blobs of a picture are striped, and looks at nothing else.

    Four filters measure edges of each direction and sign; what has edges of one direction and few of the other is
    evidence of that class and against the other, wherever it lies. Evidence is averaged over the picture.
    """
    x = inputs = keras.Input((SIDE, SIDE, 3), dtype="float32")
    x = layers.Rescaling(1 / 255, dtype="float32")(x)
    x = layers.Conv2D(4, 3, padding="same", activation="relu", name="edges", **_CONVOLUTION)(x)
    x = layers.AveragePooling2D(4, **_PLAIN)(x)
    x = layers.Conv2D(2, 1, activation="relu", name="evidence", **_CONVOLUTION)(x)
    x = layers.GlobalAveragePooling2D(**_PLAIN)(x)
    x = layers.Dense(3, name="logits", **_UNDRAWN)(x)
    model = keras.Model(inputs, layers.Softmax(dtype="float32")(x), name="stripes")
    down = np.array([[1, 1, 1], [0, 0, 0], [-1, -1, -1]], np.float32) / np.float32(9)
    edges: NDArray[np.float32] = np.repeat(np.stack([down, -down, down.T, -down.T], axis=-1)[:, :, None], 3, axis=2)
    evidence = np.array([[1, -2], [1, -2], [-2, 1], [-2, 1]], np.float32)
    scores = np.float32(_STRENGTH) * np.array([[1, -0.5, 0], [-0.5, 1, 0]], np.float32)
    _set(
        model,
        {
            "edges": [edges, np.zeros(4, np.float32)],
            "evidence": [evidence[None, None], np.full(2, -_THRESHOLD, np.float32)],
            "logits": [scores, np.array([0, 0, 1], np.float32)],
        },
    )
    return model


def _set(model: keras.Model, weights: Mapping[str, list[NDArray[np.float32]]]) -> None:
    for name, values in weights.items():
        model.get_layer(name).set_weights(values)


def blobs(*planted: tuple[int, int, int]) -> NDArray[np.float32]:
    """One picture (SIDE, SIDE, 3), 0..255, black but for blobs: each its top, its left, and ROWS or COLUMNS."""
    picture = np.zeros((SIDE, SIDE, 3), np.float32)
    stripe = np.where(np.arange(BLOB) // 2 % 2 == 0, 220, 40).astype(np.float32)
    for top, left, way in planted:
        blob = np.broadcast_to(stripe[:, None] if way == ROWS else stripe[None], (BLOB, BLOB))
        picture[top : top + BLOB, left : left + BLOB] = blob[..., None]
    return picture


def random_model(seed: int = 0, *, constant: bool = False) -> keras.Model:
    """A classifier of three classes with random weights.

    Args:
        constant: without weights in its last layer, so that it says the same of every picture.
    """
    x = inputs = keras.Input((SIDE, SIDE, 3), dtype="float32")
    x = layers.Rescaling(1 / 127.5, -1.0, dtype="float32")(x)
    x = layers.Conv2D(12, 5, strides=2, padding="same", use_bias=False, **_CONVOLUTION)(x)
    x = layers.BatchNormalization(dtype="float32")(x)
    x = layers.ReLU(dtype="float32")(x)
    x = layers.Conv2D(16, 3, strides=2, padding="same", activation="relu", **_CONVOLUTION)(x)
    x = layers.Conv2D(16, 3, strides=2, padding="same", activation="relu", name="features", **_CONVOLUTION)(x)
    x = layers.GlobalAveragePooling2D(**_PLAIN)(x)
    x = layers.Dense(3, name="logits", **_UNDRAWN)(x)
    model = keras.Model(inputs, layers.Softmax(dtype="float32")(x), name="random")
    random = np.random.default_rng(seed)
    for layer in model.layers:
        if "Conv2D" in type(layer).__name__ or isinstance(layer, layers.Dense):
            layer.set_weights([_drawn(weight, random) for weight in layer.get_weights()])
    kernel, bias = model.get_layer("logits").get_weights()
    model.get_layer("logits").set_weights([(0 if constant else _ANSWERS) * kernel, bias])
    return model


def _drawn(weight: NDArray[np.float32], random: np.random.Generator) -> NDArray[np.float32]:
    """He's initialisation for kernels; small values for biases."""
    deviation = np.sqrt(2 / np.prod(weight.shape[:-1])) if weight.ndim > 1 else 0.1
    return random.normal(0, deviation, weight.shape).astype(np.float32)


def noise(count: int, seed: int = 0) -> NDArray[np.float32]:
    """Pictures (count, SIDE, SIDE, 3) of coarse and fine grey noise, 0..255."""
    random = np.random.default_rng(seed)
    coarse = np.kron(random.uniform(0, 155, (count, SIDE // 8, SIDE // 8)), np.ones((1, 8, 8)))
    grey = coarse + random.uniform(0, 100, (count, SIDE, SIDE))
    return np.repeat(grey[..., None], 3, axis=3).astype(np.float32)
