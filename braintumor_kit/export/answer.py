"""What a file for other runtimes computes: the network with its pixel scaling, and how sure its answers are."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from braintumor_kit.errors import InputError
from braintumor_kit.evaluation.certainty import Certainty
from braintumor_kit.evaluation.outliers import OutlierDetector
from braintumor_kit.model.fast import Program
from braintumor_kit.model.watched import watched_layers

PICTURES = "pictures"
PROBABILITIES, CALIBRATED, SCORE = "probabilities", "calibrated", "ood_score"

_TINY = 1e-12  # as in evaluation/calibration.py and evaluation/outliers.py


class Answer(torch.nn.Module):
    """A classifier and its certainty in one, in float32, batch normalisation folded into the convolutions.

    Args:
        model: pictures (N, S, S, C) in 0..255 to probabilities (N, classes).
        certainty: what its run settled of it; None where it settled nothing.

    Attributes:
        outputs: names of what `forward` gives: `probabilities` (N, classes) and, with a certainty, `calibrated`
            (N, classes) and, where it can tell pictures unlike the training, `ood_score` (N,).
        scored: whether it can.

    Raises:
        InputError: where the certainty is that of another network.
    """

    def __init__(self, model: keras.Model, certainty: Certainty | None) -> None:
        super().__init__()
        detector = certainty.detector if certainty else None
        watched = watched_layers(model) if detector else []
        try:
            whole = keras.Model(model.inputs, [model.output, *watched]) if watched else model
            self._run: Callable[[Tensor], Any] = Program(whole, frozen=True)
        except ValueError:  # a form that the fast path does not take, which Keras itself does
            self._run, watched = lambda pictures: model(pictures, training=False), []
        self._temperature = certainty.temperature if certainty else None
        self._score = _Score(detector, [int(layer.shape[-1]) for layer in watched]) if detector and watched else None
        self.scored = self._score is not None
        self.outputs = [PROBABILITIES, *([CALIBRATED] if certainty else []), *([SCORE] if self.scored else [])]

    def forward(self, pictures: Tensor) -> tuple[Tensor, ...]:
        made = self._run(pictures)
        probabilities, *layers = made if self._score is not None else (made,)
        probabilities = probabilities.float()
        answers = [probabilities]
        if self._temperature is not None:
            logits = probabilities.clamp(min=_TINY).log()
            answers.append((logits / self._temperature).softmax(dim=1))
        if self._score is not None:
            answers.append(self._score(layers))
        return tuple(answers)


class _Score(torch.nn.Module):
    """`OutlierDetector.scores` in torch and float32, from the watched layers themselves, (N, H, W, C) each."""

    def __init__(self, detector: OutlierDetector, channels: Sequence[int]) -> None:
        super().__init__()
        if [2 * count for count in channels] != [len(layer.mean) for layer in detector.layers]:
            raise InputError("what tells pictures unlike the training (certainty.npz) was made for another network.")
        self._keep("middle", detector.middle)
        self._keep("reach", detector.reach)
        for number, layer in enumerate(detector.layers):
            self._keep(f"mean_{number}", layer.mean)
            self._keep(f"scale_{number}", layer.scale)
            self._keep(f"into_{number}", (layer.directions / layer.spread[:, np.newaxis]).T)
            self._keep(f"back_{number}", layer.directions * layer.spread[:, np.newaxis])

    def _keep(self, name: str, values: NDArray[np.float64]) -> None:
        self.register_buffer(name, torch.from_numpy(np.ascontiguousarray(values, np.float32)))

    def forward(self, layers: Sequence[Tensor]) -> Tensor:
        squares = [square for number, layer in enumerate(layers) for square in self._squares(number, layer)]
        distances = torch.cat(squares, dim=1).clamp(min=_TINY).log()
        return ((distances - self.get_buffer("middle")) / self.get_buffer("reach")).mean(dim=1)

    def _squares(self, number: int, layer: Tensor) -> tuple[Tensor, Tensor]:
        """Mean squared distance within the directions, in their spreads, and outside of them, (N, 1) each."""
        mean, scale, into, back = (self.get_buffer(f"{name}_{number}") for name in ("mean", "scale", "into", "back"))
        standard = (_mean_and_deviation(layer.permute(0, 3, 1, 2)) - mean) / scale
        within = standard @ into
        outside = standard - within @ back
        return within.square().mean(dim=1, keepdim=True), outside.square().mean(dim=1, keepdim=True)


def _mean_and_deviation(layer: Tensor) -> Tensor:
    """Of each channel of (N, C, H, W) over the picture, (N, 2 C): what `Predictor.observed` gives, in operators that
    every runtime has."""
    mean = layer.mean(dim=(2, 3), keepdim=True)
    deviation = (layer - mean).square().mean(dim=(2, 3)).sqrt()
    return torch.cat([mean.flatten(1), deviation], dim=1)
