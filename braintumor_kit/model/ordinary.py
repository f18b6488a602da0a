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
}
"""Public modules of Keras, and the kinds of classes that a file may take from them."""

_OPERATIONS = {
    "keras.src.ops.numpy": {
        "Absolute", "Add", "Clip", "Concatenate", "Divide", "Exp", "ExpandDims", "Flip", "GetItem", "Log", "Log1p",
        "Matmul", "Max", "Maximum", "Mean", "Min", "Minimum", "Multiply", "Negative", "Power", "Reshape", "Sqrt",
        "Square", "Squeeze", "Stack", "Std", "Subtract", "Sum", "Swapaxes", "Tanh", "Transpose", "TrueDivide", "Var",
        "Where",
    },
    "keras.src.ops.nn": {
        "Elu", "Gelu", "HardSigmoid", "HardSilu", "LeakyRelu", "LogSoftmax", "Mish", "Relu", "Relu6", "Selu", "Sigmoid",
        "Silu", "Softmax", "Softplus", "Softsign",
    },
    "keras.src.ops.math": {"Logsumexp", "Rsqrt"},
    "keras.src.ops.core": {"Cast", "StopGradient"},
}  # fmt: skip
"""Operations between layers. None makes much of little, as tiling does; what pads, blurs or cuts patches has layers."""

_FUNCTIONS = ("activations", "initializers", "regularizers", "constraints")
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
    if class_name in _OPERATIONS.get(module or "", ()):
        return _is_kind(getattr(sys.modules.get(module or ""), class_name, None), (keras.Operation,))
    return False


def is_ordinary_function(name: str, module: str | None) -> bool:
    """Whether a saved model may name that function: an activation or the like of Keras."""
    places = _FUNCTIONS if module == "builtins" else tuple(place for place in _FUNCTIONS if module == f"keras.{place}")
    return name not in _LOOKUPS and any(callable(getattr(getattr(keras, place), name, None)) for place in places)


def _is_kind(found: object, kinds: tuple[Any, ...]) -> bool:
    return isinstance(found, type) and issubclass(found, kinds)
