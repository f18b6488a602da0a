"""Asynchronous successive halving (ASHA; Li et al. 2020, doi:10.48550/arXiv.1810.05934), in the form that stops trials.

Trials tell each other how they stand by what each has in its folder anyway, its `history.csv`: so the rule works
between processes and machines that see the same folder, and costs nothing to go on with.
"""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from braintumor_kit.files import read_csv
from braintumor_kit.recipe.sweep_table import AshaTable


class FellBehindError(Exception):
    """A trial is not among the best of those that came as far; its argument says so in words."""


class Halving(keras.callbacks.Callback):
    """Stops a trial at a rung where it is not among the best.

    Rungs are at `grace_epochs`, times `reduction`, times `reduction` again and so on. At each the trial's best value so
    far is compared with the best values that the others had by that epoch: it goes on where it is as good as the value
    below which all but one in `reduction` of them are, as in Ray Tune's ASHAScheduler.

    Args:
        folder: of the trial; those of the others stand beside it.
        table: grace and reduction.
        select: "val_accuracy" or "val_loss".

    Raises:
        FellBehindError: at the end of the epoch, for the trial to stop.
    """

    def __init__(self, folder: Path, table: AshaTable, select: str) -> None:
        super().__init__()
        self._folder, self._table, self._select = folder, table, select
        self._sign = -1.0 if select == "val_loss" else 1.0

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        done = epoch + 1
        if not self._is_rung(done):
            return
        others = [
            value
            for path in sorted(self._folder.parent.glob("trial-*/history.csv"))
            if path.parent != self._folder and (value := self._best(path, done)) is not None
        ]
        own = self._best(self._folder / "history.csv", done)
        if not others or own is None:
            return
        cutoff = float(np.percentile(others, (1 - 1 / self._table.reduction) * 100))
        if own < cutoff:
            raise FellBehindError(
                f"stopped after epoch {done}: its best {self._select} was {self._sign * own:.4f}, and of "
                f"{len(others)} trials that came as far one in {self._table.reduction} had {self._sign * cutoff:.4f}"
            )

    def _is_rung(self, done: int) -> bool:
        rung = self._table.grace_epochs
        while rung < done:
            rung *= self._table.reduction
        return rung == done

    def _best(self, history: Path, epochs: int) -> float | None:
        """The best value of the first epochs, larger is better; None of a trial that has not come as far."""
        try:
            values = [self._sign * float(row[self._select]) for row in read_csv(history)[:epochs]]
        except (OSError, ValueError, KeyError, csv.Error):
            return None
        return max(values) if len(values) == epochs else None
