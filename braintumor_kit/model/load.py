"""Opening a saved model without running anything from it."""

import math
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import keras
import numpy as np
import torch

from braintumor_kit.errors import InputError, is_out_of_memory
from braintumor_kit.model.archive import check_archive
from braintumor_kit.model.size import UNSAID, fault_of_all, fault_of_size, operations_of

MAX_CLASSES = 2000
"""That tables and figures can show; ImageNet has a thousand."""

_WORDS = 300
"""Letters of what Keras says; it may quote the whole file."""


def load_model(path: Path, any_end: bool = False) -> keras.Model:
    """A picture classifier from a `.keras` file. What it holds is read and measured before anything of it is built, and
    only ordinary layers of Keras, and those that plugins have registered, are built at all.

    Args:
        any_end: what it gives may be logits or one sigmoid as well, and pictures may be (N, C, S, S).

    Returns:
        A functional model, square pictures (N, S, S, C) of one or three channels to probabilities (N, classes).

    Raises:
        InputError: where the file is missing, damaged, unsafe or no such classifier.
    """
    if not path.is_file():
        raise InputError(f"there is no model file '{path}'.")
    config, numbers = check_archive(path)
    try:
        # In a thread of its own: the variables that are never filled go with it.
        with ThreadPoolExecutor(1) as aside:
            aside.submit(_check_sizes, config, numbers, path).result()
        with warnings.catch_warnings(action="ignore"):
            # Keras only warns where it leaves weights as they were drawn, which would be a model that guesses.
            warnings.filterwarnings("error", module=r"keras\.src\.saving")
            model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except InputError:
        raise
    except Exception as error:  # whatever a damaged file makes Keras raise is that file's fault: nothing else runs here
        if is_out_of_memory(error):
            raise InputError(f"'{path}' takes more memory than there is.") from error
        raise InputError(f"'{path}' cannot be loaded as a Keras model: {_first_words(error)}") from error
    if isinstance(model, keras.Sequential) and model.built:
        model = keras.Model(model.inputs, model.outputs)
    fault = _fault(model, any_end)
    if fault:
        raise InputError(f"'{path}' is no picture classifier: {fault}.")
    _try(model, path)
    return model


def is_channels_first(shape: tuple[int | None, ...]) -> bool:
    """Whether pictures of this shape are (N, C, H, W), as far as one can tell."""
    return shape[3] not in (1, 3) and shape[1] in (1, 3)


def _check_sizes(config: dict[str, Any], numbers: int, path: Path) -> None:
    """Builds the model without filling its variables, and refuses one that would take more memory than its weights do,
    or make or compute more of a picture than any network: a line of text may ask for it."""
    with keras.StatelessScope(initialize_variables=False):
        model = keras.saving.deserialize_keras_object(config, safe_mode=True)
    if not isinstance(model, keras.Model):
        raise InputError(f"'{path}' holds no model.")
    wanted = sum(math.prod(weight.shape) for weight in model.weights)
    if wanted > numbers:
        raise InputError(f"'{path}' describes a network of {wanted:,} numbers and holds {numbers:,}: it is damaged.")
    fault = next(filter(None, map(fault_of_size, operations_of(model))), None) or fault_of_all(model)
    if fault:
        raise InputError(f"'{path}': {fault}; that is no classifier.")


def _try(model: keras.Model, path: Path) -> None:
    """Computes a black picture: a layer may have been given what it only stumbles over there."""
    black = np.zeros([1, *(side or UNSAID for side in model.input_shape[1:])], np.float32)
    try:
        with torch.no_grad(), warnings.catch_warnings(action="ignore"):
            given = keras.ops.convert_to_numpy(model(black, training=False))
    except Exception as error:  # of whatever kind: nothing but layers of the file was at work
        if is_out_of_memory(error):
            raise InputError(f"'{path}' takes more memory than there is.") from error
        raise InputError(f"'{path}' cannot be computed: {_first_words(error)}") from error
    if not np.isfinite(given).all():
        raise InputError(f"'{path}' makes numbers that are not finite of a black picture: its weights are damaged.")


def _first_words(error: Exception) -> str:
    return (str(error).strip().splitlines() or [repr(error)])[0][:_WORDS]


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
    if given[-1] is not None and given[-1] > MAX_CLASSES:
        return f"it tells {given[-1]:,} classes, more than {MAX_CLASSES:,}"
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
