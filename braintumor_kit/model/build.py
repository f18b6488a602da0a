"""The whole classifier: pixel scaling, trunk, global average pooling, dropout, classifying layer, softmax."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import keras
from keras import layers

from braintumor_kit.contracts import Backbone, PluginError, Trunk
from braintumor_kit.model.ordinary import is_ordinary_layer

LOGITS = "logits"
POOL = "pool"
PROBABILITIES = "probabilities"
OWN_NAMES = {"pictures", "pixel_scaling", POOL, "dropout", LOGITS, PROBABILITIES}


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

    @property
    def last_cells(self) -> keras.KerasTensor:
        """The tensor whose mean over cells the scores are made of, (N, h, w, features)."""
        return self.logits.get_layer(POOL).input


def build_classifier(backbone: Backbone, classes: int, image_size: int, dropout: float = 0.0) -> Classifier:
    """Builds the classifier around a backbone's trunk.

    Raises:
        InputError: where the backbone's weights cannot be had.
        PluginError: where the trunk is not what the contract says.
    """
    channels = backbone.default_channels
    trunk = backbone.build(image_size, channels)
    _check(trunk, backbone)
    return classifier_around(trunk, classes, image_size, channels, dropout)


def classifier_around(trunk: Trunk, classes: int, image_size: int, channels: int, dropout: float = 0.0) -> Classifier:
    """The classifier around a trunk that keeps to the contract."""
    pictures = keras.Input((image_size, image_size, channels), name="pictures")
    x = layers.Rescaling(_plain(trunk.scale), _plain(trunk.offset), name="pixel_scaling")(pictures)
    x = _inline(trunk.model, x)
    x = layers.GlobalAveragePooling2D(name=POOL)(x)
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
    """Holds a trunk to the contract; what is wrong shows here and not when the saved model does not open."""
    for fault in _faults(trunk):
        raise PluginError(f"backbone {type(backbone).__name__}: {fault}")


def _faults(trunk: Trunk) -> Iterator[str]:
    names = {layer.name for layer in trunk.model.layers}
    for name in (trunk.explain_layer, *trunk.stages.values()):
        if name not in names:
            yield f"it names layer '{name}', which its trunk does not have."
    for word in {"all", "head"} & set(trunk.stages):
        yield f"stage '{word}' needs another name: the word means something else in a recipe."
    if len(trunk.model.output_shape) != 4:
        yield f"the trunk's output is {trunk.model.output_shape}, not (N, h, w, features)."
    yield from layer_faults(trunk.model)


def layer_faults(trunk: keras.Model) -> Iterator[str]:
    """What keeps a trunk's layers from being ordinary ones, a sentence each."""
    for layer in _layers(trunk):
        yield from _layer_faults(layer)
        if not isinstance(layer, keras.Model):
            for inner in layer._flatten_layers(include_self=False):  # Keras' own wrappers may hold any layer
                yield from _kind_faults(inner)


def _layers(model: keras.Model) -> Iterator[keras.Layer]:
    """Layers of a model and of models inside it."""
    for layer in model.layers:
        yield layer
        if isinstance(layer, keras.Model):
            yield from _layers(layer)


def _layer_faults(layer: keras.Layer) -> Iterator[str]:
    yield from _kind_faults(layer)
    if layer.name in OWN_NAMES and not isinstance(layer, layers.InputLayer):
        yield f"layer '{layer.name}' needs another name: btkit has a layer of that name."
    if getattr(layer, "data_format", None) == "channels_first":
        yield f"layer '{layer.name}' is channels_first; the contract asks for channels_last."
    if layer.dtype_policy.name != "float32" and not isinstance(layer, (layers.InputLayer, keras.Model)):
        yield f"layer '{layer.name}' has dtype policy {layer.dtype_policy.name}; the contract asks for float32."
    activation = getattr(layer, "activation", None)
    if activation is not None and not str(getattr(activation, "__module__", "")).startswith("keras."):
        yield f"layer '{layer.name}' has an activation that is not one of Keras' own."


def _kind_faults(layer: keras.Layer) -> Iterator[str]:
    kind = type(layer).__name__
    if not (isinstance(layer, keras.Model) or is_ordinary_layer(type(layer))):
        yield (
            f"layer '{layer.name}' ({kind}) is no ordinary Keras layer, so the saved model would not open where "
            "btkit is not installed."
        )


def bytes_of_file(model: keras.Model) -> int:
    """At most so much a file of the model's weights takes: them, and a page of HDF5's for each with room to spare."""
    return sum(variable.value.nbytes + 2**14 for variable in model.variables) + 2**20
