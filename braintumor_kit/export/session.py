"""An exported ONNX file at work in onnxruntime."""

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from braintumor_kit.errors import InputError, is_out_of_memory
from braintumor_kit.export.answer import CALIBRATED, PICTURES, PROBABILITIES
from braintumor_kit.export.onnx_check import Checked

_WORDS = 200
_SILENT = 4  # onnxruntime's level of fatal errors alone: others are told as exceptions

_ROUNDING = 1e-3


class Session:
    """A file that was checked, on the processor, with as many threads as torch has.

    Args:
        checked: the file.
        name: how messages call it.

    Raises:
        InputError: where onnxruntime does not open it, or it makes no answers of a black picture.
    """

    def __init__(self, checked: Checked, name: str) -> None:
        self._name, self._shape, self._outputs = name, checked.shape, checked.outputs
        self._classes = len(checked.about.classes)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = _SILENT
        options.intra_op_num_threads = torch.get_num_threads()
        try:
            self._session = onnxruntime.InferenceSession(checked.content, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # of many kinds, by what is wrong
            raise InputError(f"{name} cannot be opened by onnxruntime: {_first_words(error)}.") from error
        self(np.zeros((1, *self._shape), np.float32))

    def __call__(self, pictures: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """Its outputs by name, rows of pictures (N, S, S, C) in 0..255.

        Raises:
            InputError: where it cannot compute, or gives no probabilities.
        """
        try:
            made = self._session.run(list(self._outputs), {PICTURES: pictures})
        except Exception as error:  # of many kinds, by what a node stumbles over
            if is_out_of_memory(error):
                raise InputError(f"{self._name} takes more memory than there is.") from error
            raise InputError(f"{self._name} cannot be computed: {_first_words(error)}.") from error
        answers = dict(zip(self._outputs, made, strict=True))
        for output, values in answers.items():
            self._check(output, values, len(pictures))
        return answers

    def _check(self, output: str, values: NDArray[np.float32], count: int) -> None:
        distribution = output in (PROBABILITIES, CALIBRATED)
        wanted = (count, self._classes) if distribution else (count,)
        if not isinstance(values, np.ndarray) or values.shape != wanted or values.dtype != np.float32:
            raise InputError(f"{self._name} is damaged: what it gives as {output} is not float32 {wanted}.")
        if not np.isfinite(values).all():
            raise InputError(f"{self._name} makes numbers that are not finite: its weights are damaged or too large.")
        if distribution and not (values.min() >= 0 and np.abs(values.sum(axis=1) - 1).max() < _ROUNDING):
            raise InputError(f"{self._name} is damaged: what it gives as {output} are no probabilities.")


def _first_words(error: Exception) -> str:
    return " ".join(str(error).split())[:_WORDS].rstrip(".") or type(error).__name__
