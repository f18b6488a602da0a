"""A small network in many forms, and what explainers are to see of each."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import torch
from btkit_plugins.explainers.gradcam import GradCam
from keras import layers
from torch import Tensor, nn

from braintumor_kit.explanation.network import Network
from braintumor_kit.explanation.open import network_of as open_network

SIDE, CELLS = 32, 8 * 8
CLASSES = 3


def network_of(model: keras.Model, dtype: torch.dtype = torch.float32, layer: str | None = None) -> Network:
    return open_network(model, dtype, layer, (SIDE, SIDE, 3))


# One network, with one set of weights, in many forms: two strided convolutions, a residual branch, a pooled head.


def weights() -> dict[str, list[np.ndarray]]:
    """By name of the layer."""
    draws = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return draws.normal(0, 0.2, shape).astype("float32")

    return {
        "first": [normal(3, 3, 3, 8), normal(8)],
        "second": [normal(3, 3, 8, 12), normal(12)],
        "branch": [normal(3, 3, 12, 12)],
        "normal": [draws.uniform(0.5, 1.5, 12), normal(12), normal(12), draws.uniform(0.5, 1.5, 12)],
        "scores": [normal(12, CLASSES), normal(CLASSES)],
        "score": [normal(12, 1), normal(1)],
    }


WEIGHTS = weights()


def with_weights(model: keras.Model) -> keras.Model:
    for layer in model._flatten_layers(include_self=False):
        if layer.name in WEIGHTS:
            values = WEIGHTS[layer.name]
            layer.set_weights([value.reshape(w.shape) for value, w in zip(values, layer.weights, strict=True)])
    return model


def features(x: Any, data_format: str | None = None) -> Any:
    way: dict[str, Any] = {"padding": "same", "data_format": data_format}
    x = layers.Rescaling(1 / 127.5, -1)(x)
    x = layers.Conv2D(8, 3, strides=2, activation="relu", name="first", **way)(x)
    x = layers.Conv2D(12, 3, strides=2, name="second", **way)(x)
    y = layers.Conv2D(12, 3, use_bias=False, name="branch", **way)(x)
    y = layers.BatchNormalization(axis=1 if data_format == "channels_first" else -1, name="normal")(y)
    return layers.ReLU(name="last")(layers.Add(name="sum")([x, y]))


def head(x: Any, end: str | None = None, data_format: str | None = None) -> Any:
    return layers.Dense(CLASSES, activation=end, name="scores")(
        layers.GlobalAveragePooling2D(data_format=data_format)(x)
    )


def picture_input() -> Any:
    return keras.Input((SIDE, SIDE, 3))


def flat(end: str | None = "softmax") -> keras.Model:
    inputs = picture_input()
    return keras.Model(inputs, head(features(inputs), end))


def trunk(name: str = "trunk") -> keras.Model:
    inputs = picture_input()
    return keras.Model(inputs, features(inputs), name=name)


def nested() -> keras.Model:
    inputs = picture_input()
    return keras.Model(inputs, head(trunk()(inputs), "softmax"))


def doubly_nested() -> keras.Model:
    inputs, between = picture_input(), picture_input()
    outer = keras.Model(between, trunk()(between), name="outer")
    return keras.Model(inputs, head(outer(inputs), "softmax"))


def sequential() -> keras.Model:
    pool, dense = layers.GlobalAveragePooling2D(), layers.Dense(CLASSES, activation="softmax", name="scores")
    return keras.Sequential([picture_input(), trunk(), pool, dense])


def channels_first() -> keras.Model:
    inputs = keras.Input((3, SIDE, SIDE))
    return keras.Model(inputs, head(features(inputs, "channels_first"), "softmax", "channels_first"))


def any_size() -> keras.Model:
    inputs = keras.Input((None, None, 3))
    return keras.Model(inputs, head(features(inputs), "softmax"))


class Subclassed(keras.Model):
    """Ends in what it is told to: an activation of its dense layer, a layer, or a function."""

    def __init__(self, end: Any = "softmax", outputs: int = CLASSES) -> None:
        super().__init__()
        self.trunk, self.pool = trunk(), layers.GlobalAveragePooling2D()
        name, activation = "score" if outputs == 1 else "scores", end if isinstance(end, str) else None
        self.dense = layers.Dense(outputs, activation=activation, name=name)
        self.end = end if callable(end) else None

    def call(self, x: Any, training: bool = False) -> Any:
        x = self.dense(self.pool(self.trunk(x, training=training)))
        return self.end(x) if self.end else x


def subclassed(end: Any = "softmax") -> keras.Model:
    model = Subclassed(end)
    model(pictures(1))
    return model


def ended_by(end: Callable[[Any], Any]) -> keras.Model:
    inputs = picture_input()
    return keras.Model(inputs, end(head(features(inputs))))


def convolution_head() -> keras.Model:
    inputs = picture_input()
    x = layers.Conv2D(CLASSES, 1, name="scores")(features(inputs))
    return keras.Model(inputs, layers.Softmax()(layers.GlobalAveragePooling2D()(x)))


def frozen(model: keras.Model) -> keras.Model:
    for layer in model.layers[:-1]:
        layer.trainable = False
    return model


def wholly_frozen(model: keras.Model) -> keras.Model:
    model.trainable = False
    return model


FORMS: dict[str, Callable[[], keras.Model]] = {
    "flat": flat,
    "nested": nested,
    "doubly nested": doubly_nested,
    "sequential": sequential,
    "channels first": channels_first,
    "any size": any_size,
    "subclassed": subclassed,
    "logits": lambda: flat(None),
    "softmax layer": lambda: ended_by(layers.Softmax()),
    "softmax activation": lambda: ended_by(layers.Activation("softmax", dtype="float32")),
    "softmax operation": lambda: ended_by(keras.ops.softmax),
    "convolution head": convolution_head,
    "subclassed logits": lambda: subclassed(None),
    "subclassed softmax layer": lambda: subclassed(layers.Softmax()),
    "subclassed softmax activation": lambda: subclassed(layers.Activation("softmax")),
    "frozen": lambda: frozen(flat()),
    "frozen nested": lambda: frozen(nested()),
    "frozen subclassed": lambda: frozen(subclassed()),
    "wholly frozen": lambda: wholly_frozen(flat()),
    "wholly frozen subclassed": lambda: wholly_frozen(subclassed()),
}


def pictures(count: int = 3) -> Tensor:
    return 255 * torch.rand(count, SIDE, SIDE, 3, generator=torch.Generator().manual_seed(0))


TARGETS = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 1.0, -1.0]])


class Expected:
    """A of a layer by Keras alone; of the last one g = W t / cells and y = W mean(A) t + b t, worked out by hand."""

    def __init__(self, layer: str = "last") -> None:
        model = with_weights(flat(None))
        inside = keras.Model(model.inputs, [model.get_layer(layer).output, model.output])
        with torch.no_grad():
            a, logits = inside(pictures(), training=False)
        kernel = torch.tensor(WEIGHTS["scores"][0])
        self.a, self.logits = a.permute(0, 3, 1, 2), logits
        self.y = (logits * TARGETS).sum(dim=1)
        self.g = ((TARGETS @ kernel.T) / CELLS)[:, :, None, None].expand(self.a.shape)
        self.map = torch.einsum("nkij,nk->nij", self.a, self.g[:, :, 0, 0]).relu()


def assert_near(ours: Tensor, theirs: Tensor, tolerance: float = 1e-5) -> None:
    """Within `tolerance` of the largest entry, which is not zero."""
    assert ours.shape == theirs.shape
    assert ours.dtype == torch.float32
    assert float(theirs.abs().max()) > 0
    assert float((ours - theirs).abs().max()) <= tolerance * float(theirs.abs().max())


def gradcam(network: Network, images: Tensor, targets: Tensor) -> Tensor:
    return GradCam(GradCam.Options()).maps(network, images, targets)


def assert_as_expected(network: Network, expected: Expected, tolerance: float = 1e-5) -> None:
    images = pictures()
    a, g, y = network.activations_and_gradients(images, TARGETS)
    for ours, theirs in ((a, expected.a), (g, expected.g), (y, expected.y)):
        assert_near(ours, theirs, tolerance)
    assert_near(network.activations(images), expected.a, tolerance)
    assert_near(gradcam(network, images, TARGETS), expected.map, tolerance)
    assert_near(network.logits(images), expected.logits, tolerance)
    probabilities = expected.logits.softmax(dim=1)
    assert_near(network.probabilities(images), probabilities, tolerance)


class Wrapped(nn.Module):
    """A torch network whose ReLU writes over what its convolution gives."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.relu = nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.ReLU(inplace=True)
        self.normal, self.head = nn.BatchNorm2d(6), nn.Linear(6, CLASSES)
        self.broken = False

    def forward(self, x: Tensor) -> Tensor:
        a = self.relu(self.conv(self.normal_of(x)))
        if self.broken:
            raise ArithmeticError("the model breaks")
        return self.head(self.normal(a).mean(dim=(2, 3)))

    @staticmethod
    def normal_of(x: Tensor) -> Tensor:
        return x / 255 - 0.5


def wrapped() -> tuple[Wrapped, keras.Model]:
    net = Wrapped()
    wrapper = layers.TorchModuleWrapper(net, output_shape=(None, CLASSES))
    return net, keras.Sequential([keras.Input((3, SIDE, SIDE)), wrapper])
