"""A model and a data set whose classes differ: what both can speak of."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from braintumor_kit.errors import InputError

TUMOUR, HEALTHY = "tumour", "notumor"
TUMOURS = ("glioma", "meningioma", "pituitary")


@dataclass(frozen=True)
class Common:
    """Classes that both speak of.

    Attributes:
        classes: their names.
        of_model: which of them each class of the model belongs to, (K,).
        of_source: which of them each class of the source is, by its name.
    """

    classes: tuple[str, ...]
    of_model: tuple[int, ...]
    of_source: dict[str, int]

    def probabilities(self, given: NDArray[np.floating]) -> NDArray[np.float64]:
        """The model's probabilities (N, K) summed to (N, len(classes))."""
        summed = np.zeros((len(given), len(self.classes)))
        for column, target in enumerate(self.of_model):
            summed[:, target] += given[:, column]
        return summed


def common_classes(model: Sequence[str], source: Sequence[str]) -> Common:
    """What a model and a source can both speak of: the model's classes, or tumour and none where either tells no more.

    Raises:
        InputError: where the source has classes that the model knows nothing of.
    """
    if set(source) <= set(model):
        return Common(tuple(model), tuple(range(len(model))), {name: model.index(name) for name in source})
    merged = [TUMOUR if name in TUMOURS else name for name in model]
    named = {name: TUMOUR if name in TUMOURS else name for name in source}
    tells_apart = TUMOUR in source or TUMOUR in model
    if not tells_apart or not set(named.values()) <= set(merged) or HEALTHY not in merged:
        unknown = ", ".join(sorted(set(source) - set(model)))
        raise InputError(
            f"the source has classes that the model does not know: {unknown}; the model tells {', '.join(model)}."
        )
    classes = tuple(dict.fromkeys(merged))
    return Common(
        classes,
        tuple(classes.index(name) for name in merged),
        {name: classes.index(to) for name, to in named.items()},
    )
