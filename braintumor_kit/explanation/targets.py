"""What a map explains: a class, the predicted one, the true one, one class against another, or every class."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from braintumor_kit.errors import InputError
from braintumor_kit.spelling import nearest

AGAINST = "-vs-"
Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class Targets:
    """The targets of a batch.

    Attributes:
        names: one an image, such as "glioma" or "glioma-vs-meningioma".
        weights: float32 (N, classes), of the logits whose sum is explained.
        classes: (N,), the class that each map speaks for.
        alone: whether each is one class alone, which has a probability.
    """

    names: tuple[str, ...]
    weights: NDArray[np.float32]
    classes: Numbers
    alone: bool


Choose = Callable[[Numbers, Numbers | None], Targets]
"""From the predicted classes (N,) and the true ones (N,), if known, to targets."""


def parse_target(text: str, classes: Sequence[str]) -> list[Choose]:
    """What `--target` says: one choice, or one a class for "all".

    Args:
        text: "predicted", "label", a class, "CLASS-vs-CLASS" or "all".
        classes: names of the model's classes.

    Raises:
        InputError: where the model lacks a class that is named.
    """
    if text == "predicted":
        return [lambda predicted, labels: _alone(predicted, classes)]
    if text == "label":
        return [lambda predicted, labels: _alone(_known(labels), classes)]
    if text == "all":
        return [_fixed([number], classes) for number in range(len(classes))]
    if text in classes:
        return [_fixed([list(classes).index(text)], classes)]
    first, against, second = text.partition(AGAINST)
    if not against:
        return [_fixed([_number(text, classes)], classes)]
    pair = [_number(first, classes), _number(second, classes)]
    if pair[0] == pair[1]:
        raise InputError(f"target '{text}': a class cannot be explained against itself.")
    return [_fixed(pair, classes)]


def _number(name: str, classes: Sequence[str]) -> int:
    if name not in classes:
        near = nearest(name, [*classes, "predicted", "label", "all"])
        hint = f"did you mean '{near}'? " if near else ""
        raise InputError(
            f"the model has no class '{name}' to explain; {hint}Targets: {', '.join(classes)}, predicted, label, "
            f"all, or two classes as '{classes[0]}{AGAINST}{classes[1]}'."
        )
    return list(classes).index(name)


def _known(labels: Numbers | None) -> Numbers:
    if labels is None:
        raise InputError("target 'label' needs slices whose true class is known; take 'predicted' or name a class.")
    return labels


def _alone(numbers: Numbers, classes: Sequence[str]) -> Targets:
    weights = np.eye(len(classes), dtype=np.float32)[numbers]
    return Targets(tuple(classes[number] for number in numbers), weights, numbers, True)


def _fixed(pair: list[int], classes: Sequence[str]) -> Choose:
    """The same target for every image: one class, or the first of two against the second."""

    def choose(predicted: Numbers, labels: Numbers | None) -> Targets:
        targets = _alone(np.full(len(predicted), pair[0]), classes)
        if len(pair) == 1:
            return targets
        targets.weights[:, pair[1]] = -1
        name = AGAINST.join(classes[number] for number in pair)
        return Targets((name,) * len(predicted), targets.weights, targets.classes, False)

    return choose
