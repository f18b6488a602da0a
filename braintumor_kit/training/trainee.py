"""The classifier as Keras' fit sees it: slices as they come from the cache in, logits out, at the fast path's speed."""

import keras
import torch
from torch import Tensor

from braintumor_kit.model.build import Classifier
from braintumor_kit.model.fast import Program
from braintumor_kit.recipe.tables import AugmentTable
from braintumor_kit.training.augment import augment
from braintumor_kit.training.randomness import augment_generator


class Trainee(keras.Model):
    """Wraps a classifier for training; its variables are the classifier's own, which stays an ordinary Keras model.

    Args:
        classifier: what is trained.
        augmentation: random changes to training slices.
        dtype: of convolutions.
        seed: of the augmentation's draws.

    Attributes:
        epoch, step: where training stands; the draws of a step follow from them.
    """

    def __init__(
        self,
        classifier: Classifier,
        augmentation: AugmentTable,
        dtype: torch.dtype,
        seed: int,
        name: str = "trainee",
    ) -> None:
        super().__init__(name=name)
        self.network = classifier.logits
        self.channels = classifier.channels
        self.augmentation = augmentation
        self.seed = seed
        self.epoch = self.step = 0
        self._program = Program(classifier.logits, dtype)
        self.built = True

    def call(self, slices: Tensor, training: bool = False) -> Tensor:
        """Logits, float32 (N, classes), of uint8 slices (N, S, S, 1 or channels)."""
        if slices.device.type == "meta":  # Keras asks for shapes before the first step
            return self.network(slices.float().expand(-1, -1, -1, self.channels))
        pictures = slices.float()
        if training:
            generator = augment_generator(self.seed, self.epoch, self.step, pictures.device)
            pictures = augment(pictures.permute(0, 3, 1, 2), self.augmentation, generator).permute(0, 2, 3, 1)
        return self._program(pictures.expand(-1, -1, -1, self.channels), training)
