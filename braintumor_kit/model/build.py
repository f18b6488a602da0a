"""The whole classifier: pixel scaling, trunk, global average pooling, dropout, classifying layer, softmax."""

from collections.abc import Mapping
from dataclasses import dataclass

import keras
from keras import layers

from braintumor_kit.contracts import Backbone, PluginError, Trunk

LOGITS = "logits"
PROBABILITIES = "probabilities"


@dataclass(frozen=True)
class Classifier:
    """A network and what is known of it.

    Attributes:
        model: pictures (N, H, W, C) in 0..255 to class probabilities (N, classes); flat, ordinary float32 Keras layers.
        logits: the same layers up to the scores before the softmax.
        explain_layer: name of the layer that explainers look at.
        stages: name of each stage of the trunk and of the layer that ends it, in order.
        weights: where the trunk's first weights come from.
    """

    model: keras.Model
    logits: keras.Model
    explain_layer: str
    stages: Mapping[str, str]
    weights: str

    @property
    def channels(self) -> int:
        """Channels of the pictures that the model takes."""
        return int(self.model.input_shape[-1])


def build_classifier(backbone: Backbone, classes: int, image_size: int, dropout: float = 0.0) -> Classifier:
    """Builds the classifier around a backbone's trunk.

    Raises:
        InputError: where the backbone's weights cannot be had.
        PluginError: where the trunk is not what the contract says.
    """
    channels = backbone.default_channels
    trunk = backbone.build(image_size, channels)
    _check(trunk, backbone)
    pictures = keras.Input((image_size, image_size, channels), name="pictures")
    x = layers.Rescaling(_plain(trunk.scale), _plain(trunk.offset), name="pixel_scaling")(pictures)
    x = _inline(trunk.model, x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    if dropout:
        x = layers.Dropout(dropout, name="dropout")(x)
    x = layers.Dense(classes, name=LOGITS)(x)
    x = layers.Activation("softmax", name=PROBABILITIES)(x)
    model = _afresh(keras.Model(pictures, x, name="classifier"))
    logits = keras.Model(model.inputs, model.get_layer(LOGITS).output, name="classifier_logits")
    return Classifier(model, logits, trunk.explain_layer, dict(trunk.stages), trunk.weights)


def _plain(values: tuple[float, ...]) -> float | list[float]:
    return values[0] if len(values) == 1 else list(values)


def _inline(trunk: keras.Model, x: keras.KerasTensor) -> keras.KerasTensor:
    """The trunk's layers called one by one, so that the classifier is one flat graph and every layer of it can be
    looked at by name. Keras has no public way to do this (3.15)."""
    return trunk._run_through_graph([x])


def _afresh(model: keras.Model) -> keras.Model:
    """The model rebuilt from its own description, so that each layer belongs to this graph alone."""
    fresh = keras.Model.from_config(model.get_config())
    fresh.set_weights(model.get_weights())
    return fresh


def _check(trunk: Trunk, backbone: Backbone) -> None:
    name = type(backbone).__name__
    known = {layer.name for layer in trunk.model.layers}
    for layer in (trunk.explain_layer, *trunk.stages.values()):
        if layer not in known:
            raise PluginError(f"backbone {name} names layer '{layer}', which its trunk does not have.")
    if len(trunk.model.output_shape) != 4:
        raise PluginError(
            f"backbone {name}: the trunk's output is {trunk.model.output_shape}, not (N, h, w, features)."
        )
    foreign = [layer.name for layer in trunk.model.layers if not type(layer).__module__.startswith("keras.")]
    if foreign:
        raise PluginError(
            f"backbone {name}: layer '{foreign[0]}' is no ordinary Keras layer, so the saved model would not open "
            "where btkit is not installed."
        )
