"""Which classes and functions of Keras are ordinary: what a saved model may name, since none of them carries code,
reads files or asks a network.

Keras' own safe mode refuses pickled code. It still imports any module of Keras that a file names, and builds layers
that open files (StringLookup) or unpack other models (TFSMLayer): these are left out here.
"""

import sys
from collections.abc import Mapping
from typing import Any

import keras

_LAYERS = "keras.src.layers."
_FAMILIES = tuple(
    f"{_LAYERS}{family}."
    for family in (
        "activations", "attention", "convolutional", "core", "merging", "normalization", "pooling", "regularization",
        "reshaping", "rnn", "preprocessing.image_preprocessing",
    )
)  # fmt: skip
_ALONE = {f"{_LAYERS}preprocessing.{name}" for name in ("normalization", "rescaling", "pipeline")}
_CODE = f"{_LAYERS}core.lambda_layer"

_MODELS = {"Functional", "Sequential"}
_MODEL_PLACES = {"keras", "keras.models", "keras.src.models.functional", "keras.src.models.sequential"}

_KINDS: Mapping[str, tuple[Any, ...]] = {
    "keras": (keras.DTypePolicy,),
    "keras.dtype_policies": (keras.DTypePolicy, keras.dtype_policies.DTypePolicyMap),
    "keras.initializers": (keras.initializers.Initializer,),
    "keras.regularizers": (keras.regularizers.Regularizer,),
    "keras.constraints": (keras.constraints.Constraint,),
    "keras.random": (keras.random.SeedGenerator,),
    "keras.optimizers": (keras.optimizers.Optimizer,),
    "keras.optimizers.schedules": (keras.optimizers.schedules.LearningRateSchedule,),
    "keras.losses": (keras.losses.Loss,),
    "keras.metrics": (keras.metrics.Metric,),
}
"""Public modules of Keras, and the kinds of classes that a file may take from them."""

_OPERATIONS = {f"keras.src.ops.{name}" for name in ("numpy", "nn", "math", "image", "linalg")}
_CORE_OPERATIONS = {"Cast", "StopGradient"}  # the others of that module take functions

_FUNCTIONS = ("activations", "losses", "metrics", "initializers", "regularizers", "constraints")
_LOOKUPS = {"get", "serialize", "deserialize"}

_OWN = {"keras", "keras_hub", "keras_cv", "keras_nlp"}
"""Packages whose registered classes are judged like any others: that they are imported says nothing."""


def is_ordinary_layer(kind: type) -> bool:
    """Whether a class is one of the ordinary layers of `keras.layers`."""
    place = kind.__module__
    known = (place.startswith(_FAMILIES) and place != _CODE) or place in _ALONE
    return known and getattr(keras.layers, kind.__name__, None) is kind


def is_ordinary(class_name: str, module: str | None, registered_name: str | None) -> bool:
    """Whether a saved model may name that class: an ordinary one of Keras, or one that a plugin which is loaded, or the
    user's own code, has registered with `keras.saving.register_keras_serializable`."""
    registered = keras.saving.get_registered_object(registered_name or class_name)
    if registered is not None:
        return registered.__module__.partition(".")[0] not in _OWN
    if class_name in _MODELS:
        return module in _MODEL_PLACES
    if module == "keras.layers":
        kind = getattr(keras.layers, class_name, None)
        return isinstance(kind, type) and is_ordinary_layer(kind)
    if module is not None and module in _KINDS:
        return _is_kind(getattr(sys.modules.get(module or ""), class_name, None), _KINDS[module])
    if module in _OPERATIONS or (module == "keras.src.ops.core" and class_name in _CORE_OPERATIONS):
        return _is_kind(getattr(sys.modules.get(module or ""), class_name, None), (keras.Operation,))
    return False


def is_ordinary_function(name: str, module: str | None) -> bool:
    """Whether a saved model may name that function: an activation, loss or the like of Keras."""
    places = _FUNCTIONS if module == "builtins" else tuple(place for place in _FUNCTIONS if module == f"keras.{place}")
    return name not in _LOOKUPS and any(callable(getattr(getattr(keras, place), name, None)) for place in places)


def _is_kind(found: object, kinds: tuple[Any, ...]) -> bool:
    return isinstance(found, type) and issubclass(found, kinds)
