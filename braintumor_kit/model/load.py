"""Opening a saved model without running anything from it."""

import zipfile
from pathlib import Path

import keras

from braintumor_kit.errors import InputError


def load_model(path: Path, any_end: bool = False) -> keras.Model:
    """A picture classifier from a `.keras` file, in safe mode: a file that would run code is refused.

    Args:
        any_end: what it gives may be logits or one sigmoid as well, and pictures may be (N, C, S, S).

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
    fault = _fault(model, any_end)
    if fault:
        raise InputError(f"'{path}' is no picture classifier: {fault}.")
    return model


def is_channels_first(shape: tuple[int | None, ...]) -> bool:
    """Whether pictures of this shape are (N, C, H, W), as far as one can tell."""
    return shape[3] not in (1, 3) and shape[1] in (1, 3)


def _fault(model: keras.Model, any_end: bool) -> str | None:
    """Why a model is none that takes (N, S, S, C) and gives (N, classes) probabilities; None where it is one."""
    if len(getattr(model, "inputs", None) or ()) != 1 or len(model.outputs) != 1:
        return "it must have one input and one output"
    taken, given = model.input_shape, model.output_shape
    first = any_end and len(taken) == 4 and is_channels_first(taken)
    if len(taken) != 4 or taken[2] != taken[3 if first else 1]:
        return f"it takes {taken}, not square pictures (N, S, S, C)"
    if taken[1 if first else 3] not in (1, 3):
        return f"it takes {taken}; its last axis must be 1 or 3 channels"
    if len(given) != 2 or given[-1] is None or given[-1] < (1 if any_end else 2):
        return f"it gives {given}, not (N, classes)"
    if not any_end and not _ends_in_softmax(model):
        return f"its last layer '{model.layers[-1].name}' gives no probabilities (softmax)"
    return None


def _ends_in_softmax(model: keras.Model) -> bool:
    last = model.layers[-1]
    while isinstance(last, keras.Model) and last.layers:
        last = last.layers[-1]
    return isinstance(last, keras.layers.Softmax) or getattr(last, "activation", None) is keras.activations.softmax
