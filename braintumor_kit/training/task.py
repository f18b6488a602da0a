"""What a training is to do, who is told of it, and what it came to."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from braintumor_kit.data.dataset import Progress, quiet
from braintumor_kit.recipe.tables import AugmentTable, CallbacksTable, TrainingTable
from braintumor_kit.training.batches import Batches
from braintumor_kit.training.callbacks import Epoch
from braintumor_kit.training.guidance import Guidance


@dataclass(frozen=True)
class Fitted:
    """What a training came to. The classifier holds the weights of the best epoch.

    Attributes:
        history: one row an epoch.
        best_epoch: counted from 1.
        best: the value on validation that selected it.
        batch_size: of its last step: the recipe's, or a smaller one where memory ran out.
    """

    history: tuple[Epoch, ...]
    best_epoch: int
    best: float
    batch_size: int


@dataclass(frozen=True)
class Task:
    """What is fitted to what, as the recipe says.

    Attributes:
        train, validation: batches of uint8 slices.
        dtype: of convolutions.
        seed: every draw of the training follows from it.
        guidance: by tumour masks of the slices that train; None without.
    """

    train: Batches
    validation: Batches
    training: TrainingTable
    augmentation: AugmentTable
    callbacks: CallbacksTable
    dtype: torch.dtype
    seed: int
    guidance: Guidance | None = None

    def of_batch_size(self, size: int) -> "Task":
        """The same slices in the same order, so many a step."""
        validation = self.validation.of_size(size // self.train.parts)
        return replace(self, train=self.train.of_size(size), validation=validation)


@dataclass(frozen=True)
class Watch:
    """Who is told of a training.

    Attributes:
        epoch: called with each finished epoch.
        step: called with (steps done, steps of the whole training).
        features: called with (slices done, all slices) while a frozen part is computed.
        say: called with a line for the user.
    """

    epoch: Callable[[Epoch], None]
    step: Progress = quiet
    features: Progress = quiet
    say: Callable[[str], None] = lambda text: None
