"""Laps of Keras' fit, whosever network it fits."""

import time
from collections.abc import Callable
from typing import Any

import keras
import torch

from braintumor_kit.bench.gate import Gate


class LapsOfFit(keras.callbacks.Callback):
    """Ends a lap after so many steps, and tells what share of it the training steps themselves took."""

    def __init__(self, settings: dict[str, Any], gate: Gate) -> None:
        super().__init__()
        self._gate, self._settings = gate, settings
        self._left, self._warm = settings["warm_up"], False
        self._images, self._in_steps = 0, 0.0

    def on_train_begin(self, logs: Any = None) -> None:
        self.model.train_step = self._timed(self.model.train_step)

    def _timed(self, step: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def timed(data: Any) -> Any:
            began = time.perf_counter()
            result = step(data)
            self._in_steps += time.perf_counter() - began
            self._images += len(data[0])
            return result

        return timed

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._left -= 1
        if self._left:
            return
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        if self._warm:
            self._gate.done(self._images, in_steps=self._in_steps)
        else:
            self._gate.ready()
        self._warm, self._left = True, self._settings["steps"]
        self._images, self._in_steps = 0, 0.0
        self.model.stop_training = not self._gate.wait()

    def on_test_begin(self, logs: Any = None) -> None:
        self._gate.pause()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._gate.go_on()
