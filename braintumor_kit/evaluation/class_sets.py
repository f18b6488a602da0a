"""A model and a data set whose classes differ: what both can speak of."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from braintumor_kit.contracts.classes import canonical_class
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
    Spellings of a class (`canonical_class`) are one class.

    Raises:
        InputError: where the source has classes that the model knows nothing of.
    """
    known, asked = [canonical_class(name) for name in model], {name: canonical_class(name) for name in source}
    if set(asked.values()) <= set(known):
        return Common(tuple(model), tuple(range(len(model))), {name: known.index(to) for name, to in asked.items()})
    merged = [TUMOUR if name in TUMOURS else name for name in known]
    named = {name: TUMOUR if to in TUMOURS else to for name, to in asked.items()}
    tells_apart = TUMOUR in asked.values() or TUMOUR in known
    if not tells_apart or not set(named.values()) <= set(merged) or HEALTHY not in merged:
        unknown = ", ".join(sorted(name for name, to in asked.items() if to not in known))
        raise InputError(
            f"the source has classes that the model does not know: {unknown}; the model tells {', '.join(model)}."
        )
    classes = tuple(dict.fromkeys(merged))
    return Common(
        classes,
        tuple(classes.index(name) for name in merged),
        {name: classes.index(to) for name, to in named.items()},
    )
