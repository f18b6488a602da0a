"""The classifier as Keras' fit sees it: rows of a store in, logits out, at the fast path's speed."""

from collections.abc import Callable
from typing import Any

import keras
import torch
from torch import Tensor

from braintumor_kit.model.build import LOGITS, Classifier
from braintumor_kit.model.fast import Program
from braintumor_kit.recipe.tables import AugmentTable
from braintumor_kit.training.augment import augmented_with_masks, prepared
from braintumor_kit.training.batches import Batches
from braintumor_kit.training.group import ALONE, Group, TogetherProgram
from braintumor_kit.training.guidance import Guidance
from braintumor_kit.training.randomness import augment_generator


class Trainee(keras.Model):
    """Wraps a classifier for training; its variables are the classifier's own, which stays an ordinary Keras model.

    Args:
        classifier: what is trained.
        program: what computes its logits: of pictures (N, S, S, channels), or of features where `augmentation` is None.
        augmentation: random changes to training slices; None where the program takes features.
        seed: of the augmentation's draws.
        group: of the processes that train together.
        guided: by tumour masks of the slices of these batches; the program then gives the last layer's activations
            before the logits.

    Attributes:
        epoch, step: where training stands; the draws of a step follow from them.
        weight: of this process' part of the step, in the mean over the group.
    """

    def __init__(
        self,
        classifier: Classifier,
        program: Program,
        augmentation: AugmentTable | None,
        seed: int,
        group: Group = ALONE,
        guided: tuple[Guidance, Batches] | None = None,
        name: str = "trainee",
    ) -> None:
        super().__init__(name=name, autocast=False)
        self.network = classifier.logits
        self.channels = classifier.channels
        self.augmentation = augmentation
        self.seed = seed
        self.epoch = self.step = 0
        self.weight = 1.0
        self._group = group
        self._guided = guided
        self._guiding_term: Tensor | None = None
        self._program = program
        self._compiled: Callable[..., Any] | None = None
        self._compiled_for = 0
        self._bad_step = torch.tensor(-1, device=self.device)
        self.built = True
        trained = [variable.value for variable in self.network.trainable_variables]
        self._together = TogetherProgram(self._train_program, trained) if group.size > 1 else None

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
        if training and self._guided:
            return self._guided_logits(inputs, *self._guided)
        if self.augmentation is not None:
            generator = self._generator(inputs.device) if training else None
            inputs = prepared(inputs, self.channels, self.augmentation, generator)
        if not training:
            result = self._program(inputs)
            return result[-1] if self._guided else result
        return self._together(inputs, self.weight) if self._together else self._train_program(inputs)

    def _guided_logits(self, slices: Tensor, guidance: Guidance, train: Batches) -> Tensor:
        """Logits, with the guiding term of the same slices kept for the loss."""
        assert self.augmentation is not None, "masks guide a training on slices"
        masks = guidance.masks(train, self.step)
        generator = self._generator(slices.device)
        pictures, masks = augmented_with_masks(slices, masks, self.channels, self.augmentation, generator)
        activations, logits = self._train_program(pictures)
        of_class = self.network.get_layer(LOGITS).kernel.value.T[train.classes(self.step)]
        self._guiding_term = guidance.term(activations, masks, of_class)
        return logits

    def _generator(self, device: torch.device) -> torch.Generator:
        return augment_generator(self.seed, self.epoch, self.step, device, self._group.rank)

    def _train_program(self, inputs: Tensor, training: bool = True) -> Any:
        compiled = self._compiled if len(inputs) == self._compiled_for else None
        return (compiled or self._program)(inputs, training=training)

    def compute_loss(self, *arguments: Any, training: bool = True, **named: Any) -> Any:
        """Keras' own, which also notes, without waiting for the device, at which step it was first not finite."""
        loss = super().compute_loss(*arguments, training=training, **named)
        if training:
            if self._guiding_term is not None:
                loss, self._guiding_term = loss + self._guiding_term, None
            bad = torch.isfinite(loss.detach()).logical_not_() & (self._bad_step < 0)
            self._bad_step.masked_fill_(bad, self.step)
        return loss

    def loss_was_bad(self) -> Tensor:
        """Whether a loss was not finite so far, as a number on the device, (1,)."""
        return (self._bad_step >= 0).float().view(1)

    def hear_of_bad_loss(self, anywhere: Tensor) -> None:
        """Notes that the loss of this step was not finite in another process of the group, where it is above 0."""
        self._bad_step.masked_fill_((anywhere > 0) & (self._bad_step < 0), self.step)

    def first_bad_step(self) -> int | None:
        """The first step so far whose loss was not finite; None where there was none. Waits for the device."""
        step = int(self._bad_step)
        return None if step < 0 else step

    def compute_metrics(self, x: Tensor, y: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None) -> Any:
        """Updates the metrics and says their names alone: to read their values after every step would be to wait for
        the device. Keras reads them at the end of an epoch."""
        return dict.fromkeys(super().compute_metrics(x, y, y_pred, sample_weight))
