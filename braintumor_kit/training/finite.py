"""A loss that is no number stops the training at its step, with the last good checkpoint kept."""

import math
from collections.abc import Mapping
from pathlib import Path

import keras
import torch

from braintumor_kit.contracts import WorkError
from braintumor_kit.training.trainee import Trainee

STEPS = 25
"""On a GPU the loss is looked at so often: to look is to wait for the device. What it finds is the first bad step all
the same."""


class FiniteLoss(keras.callbacks.Callback):
    """Stops a training whose loss is not finite. It has to come before all callbacks that keep anything.

    Args:
        trainee: what is trained; it notes the first step whose loss is not finite.
        steps: of a whole epoch.
        dtype: of convolutions.
        checkpoint: where the last good one is.
    """

    def __init__(self, trainee: Trainee, steps: int, dtype: torch.dtype, checkpoint: Path) -> None:
        super().__init__()
        self._trainee, self._steps, self._dtype, self._checkpoint = trainee, steps, dtype, checkpoint
        self._waits = STEPS if trainee.device.type != "cpu" else 1

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:
        if (self._trainee.step + 1) % self._waits == 0:
            self.check()

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        self.check()
        loss = (logs or {}).get("val_loss", 0.0)
        if not math.isfinite(loss):
            raise WorkError(f"the loss on validation is {loss} after epoch {epoch + 1}; {self._advice()}")

    def check(self) -> None:
        """Raises a WorkError where the loss of a step since the last look was not finite."""
        step = self._trainee.first_bad_step()
        if step is not None:
            raise WorkError(
                f"the loss is not finite at step {step + 1} of {self._steps} in epoch {self._trainee.epoch + 1}; "
                f"{self._advice()}"
            )

    def _advice(self) -> str:
        rate = float(self._trainee.optimizer.learning_rate)
        causes = [
            f"a learning rate that is too high (it was {rate:.3g}: lower training.learning_rate, or let it rise with "
            "training.schedule.warmup_epochs)"
        ]
        if self._dtype != torch.float32:
            causes.append('too few digits (training.precision = "float32")')
        causes.append("weights to begin with that are of another network or damaged")
        return (
            f"training stopped. The last good state is in {self._checkpoint}, the epochs before in history.csv. "
            f"Likely causes: {'; '.join(causes)}."
        )
