"""Opening a saved model without running anything from it."""

import zipfile
from pathlib import Path

import keras

from braintumor_kit.contracts import InputError


def load_model(path: Path) -> keras.Model:
    """A picture classifier from a `.keras` file, in safe mode: a file that would run code is refused.

    Raises:
        InputError: where the file is missing, damaged, unsafe or no picture classifier.
    """
    if not path.is_file():
        raise InputError(f"there is no model file '{path}'.")
    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    # What a damaged or foreign file makes Keras raise is not one kind of error.
    except (
        OSError,
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        ImportError,
        zipfile.BadZipFile,
    ) as error:
        reason = str(error).strip().splitlines()
        raise InputError(f"'{path}' cannot be loaded as a Keras model: {reason[0] if reason else error!r}") from error
    if len(model.inputs) != 1 or len(model.input_shape) != 4 or len(model.output_shape) != 2:
        raise InputError(f"'{path}' is no picture classifier: it must take (N, H, W, C) and give (N, classes).")
    return model
