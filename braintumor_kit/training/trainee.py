"""The classifier as Keras' fit sees it: rows of a store in, logits out, at the fast path's speed."""

from collections.abc import Callable
from typing import Any

import keras
import torch
from torch import Tensor

from braintumor_kit.model.build import Classifier
from braintumor_kit.model.fast import Program
from braintumor_kit.recipe.tables import AugmentTable
from braintumor_kit.training.augment import prepared
from braintumor_kit.training.randomness import augment_generator


class Trainee(keras.Model):
    """Wraps a classifier for training; its variables are the classifier's own, which stays an ordinary Keras model.

    Args:
        classifier: what is trained.
        program: what computes its logits: of pictures (N, S, S, channels), or of features where `augmentation` is None.
        augmentation: random changes to training slices; None where the program takes features.
        seed: of the augmentation's draws.

    Attributes:
        epoch, step: where training stands; the draws of a step follow from them.
    """

    def __init__(
        self,
        classifier: Classifier,
        program: Program,
        augmentation: AugmentTable | None,
        seed: int,
        name: str = "trainee",
    ) -> None:
        super().__init__(name=name, autocast=False)
        self.network = classifier.logits
        self.channels = classifier.channels
        self.augmentation = augmentation
        self.seed = seed
        self.epoch = self.step = 0
        self._program = program
        self._compiled: Callable[..., Tensor] | None = None
        self._compiled_for = 0
        self._bad_step = torch.tensor(-1, device=self.device)
        self.built = True

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return torch.device(self.network.variables[0].value.device)

    @property
    def is_compiled(self) -> bool:
        """Whether training steps on full batches run compiled."""
        return self._compiled is not None

    def compile_program(self, batch_size: int) -> None:
        """Has torch compile training steps on full batches; others, and validation, run as they are."""
        self._compiled, self._compiled_for = torch.compile(self._program, dynamic=False), batch_size

    def run_as_it_is(self) -> None:
        """Undoes `compile_program`."""
        self._compiled = None

    def call(self, inputs: Tensor, training: bool = False) -> Tensor:
        """Logits, float32 (N, classes), of uint8 slices (N, S, S, 1 or channels) or of features (N, ...)."""
        if inputs.device.type == "meta":  # Keras asks for shapes before the first step
            return torch.empty((len(inputs), self.network.output_shape[-1]), device="meta")
        compiled = self._compiled if training and len(inputs) == self._compiled_for else None
        program = compiled or self._program
        if self.augmentation is None:
            return program(inputs, training=training)
        generator = augment_generator(self.seed, self.epoch, self.step, inputs.device) if training else None
        return program(prepared(inputs, self.channels, self.augmentation, generator), training=training)

    def compute_loss(self, *arguments: Any, training: bool = True, **named: Any) -> Any:
        """Keras' own, which also notes, without waiting for the device, at which step it was first not finite."""
        loss = super().compute_loss(*arguments, training=training, **named)
        if training:
            bad = torch.isfinite(loss.detach()).logical_not_() & (self._bad_step < 0)
            self._bad_step.masked_fill_(bad, self.step)
        return loss

    def first_bad_step(self) -> int | None:
        """The first step so far whose loss was not finite; None where there was none. Waits for the device."""
        step = int(self._bad_step)
        return None if step < 0 else step

    def compute_metrics(self, x: Tensor, y: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None) -> Any:
        """Updates the metrics and says their names alone: to read their values after every step would be to wait for
        the device. Keras reads them at the end of an epoch."""
        return dict.fromkeys(super().compute_metrics(x, y, y_pred, sample_weight))
