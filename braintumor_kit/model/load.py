"""Opening a saved model without running anything from it."""

import zipfile
from pathlib import Path

import keras

from braintumor_kit.errors import InputError


def load_model(path: Path) -> keras.Model:
    """A picture classifier from a `.keras` file, in safe mode: a file that would run code is refused.

    Returns:
        A functional model, square pictures (N, S, S, C) of one or three channels to probabilities (N, classes).

    Raises:
        InputError: where the file is missing, damaged, unsafe or no such classifier.
    """
    if not path.is_file():
        raise InputError(f"there is no model file '{path}'.")
    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    # What a damaged or foreign file makes Keras raise is not one kind of error.
    except (OSError, ValueError, TypeError, LookupError, AttributeError, ImportError, zipfile.BadZipFile) as error:
        reason = str(error).strip().splitlines()
        raise InputError(f"'{path}' cannot be loaded as a Keras model: {reason[0] if reason else error!r}") from error
    if isinstance(model, keras.Sequential) and model.built:
        model = keras.Model(model.inputs, model.outputs)
    fault = _fault(model)
    if fault:
        raise InputError(f"'{path}' is no picture classifier: {fault}.")
    return model


def _fault(model: keras.Model) -> str | None:
    """Why a model is none that takes (N, S, S, C) and gives (N, classes) probabilities; None where it is one."""
    if len(getattr(model, "inputs", None) or ()) != 1 or len(model.outputs) != 1:
        return "it must have one input and one output"
    if len(model.input_shape) != 4 or model.input_shape[1] != model.input_shape[2]:
        return f"it takes {model.input_shape}, not square pictures (N, S, S, C)"
    if model.input_shape[3] not in (1, 3):
        return f"it takes {model.input_shape}; its last axis must be 1 or 3 channels"
    if len(model.output_shape) != 2 or model.output_shape[-1] is None or model.output_shape[-1] < 2:
        return f"it gives {model.output_shape}, not (N, classes)"
    if not _ends_in_softmax(model):
        return f"its last layer '{model.layers[-1].name}' gives no probabilities (softmax)"
    return None


def _ends_in_softmax(model: keras.Model) -> bool:
    last = model.layers[-1]
    while isinstance(last, keras.Model) and last.layers:
        last = last.layers[-1]
    return isinstance(last, keras.layers.Softmax) or getattr(last, "activation", None) is keras.activations.softmax
