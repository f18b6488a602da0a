"""A loss that is no number stops a training at its step, and what was good before it is kept."""

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import torch
from test_training import batches, classifier, material, weights

from braintumor_kit.contracts import WorkError
from braintumor_kit.files import read_csv
from braintumor_kit.model.build import Classifier
from braintumor_kit.progress import Reporter, log_to
from braintumor_kit.recipe.tables import AugmentTable, CallbacksTable, TrainingTable
from braintumor_kit.training.checkpoint import load_checkpoint
from braintumor_kit.training.fit import LATEST, fit
from braintumor_kit.training.task import Task, Watch

pytestmark = pytest.mark.usefixtures("one_thread")

STEPS = 4


class Break(keras.callbacks.Callback):
    """Makes a weight infinite before a step, counted from 0 over the whole training."""

    def __init__(self, network: Classifier, step: int) -> None:
        super().__init__()
        self._network, self._step = network, step

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        if self._step == 0:
            kernel = self._network.logits.get_layer("conv2").kernel
            kernel.assign(keras.ops.full_like(kernel, float("inf")))
        self._step -= 1


def train(folder: Path, breaks: int = -1, resume: bool = False, dtype: torch.dtype = torch.float32) -> Classifier:
    network, (slices, labels) = classifier(5), material()
    training = TrainingTable.model_validate(
        {"batch_size": 8, "epochs": 3, "learning_rate": 1e-2, "checkpoint_seconds": 0}
    )
    train, validation = (
        batches(slices, labels, np.arange(8 * STEPS), 8, 5),
        batches(slices, labels, np.arange(32, 48), 8),
    )
    task = Task(train, validation, training, AugmentTable(), CallbacksTable(), dtype, 5)
    folder.mkdir(exist_ok=True)
    fit(network, task, folder, Watch(lambda row: None), [Break(network, breaks)], resume)
    return network


@pytest.mark.parametrize(("step", "epoch", "number"), [(0, 1, 1), (5, 2, 2), (11, 3, 4)])
def test_it_stops_at_the_step_and_names_it(step: int, epoch: int, number: int, tmp_path: Path) -> None:
    with pytest.raises(WorkError) as stopped:
        train(tmp_path, step)
    said = str(stopped.value)
    assert f"the loss is not finite at step {number} of 4 in epoch {epoch}; training stopped." in said
    assert "learning rate that is too high (it was 0.01" in said
    assert str(tmp_path / LATEST) in said
    assert load_checkpoint(tmp_path / LATEST).position.epoch == epoch - 1
    if epoch > 1:
        assert [row["epoch"] for row in read_csv(tmp_path / "history.csv")] == [str(done) for done in range(1, epoch)]


def test_no_checkpoint_is_made_of_what_is_broken(tmp_path: Path) -> None:
    """Not even where one is due after every step; and from the last good one the training ends as if never broken."""
    with pytest.raises(WorkError, match="step 3 of 4 in epoch 2"):
        train(tmp_path / "broken", 6)
    kept = load_checkpoint(tmp_path / "broken" / LATEST)
    assert (kept.position.epoch, kept.position.step) == (1, 2)
    assert all(tensor.isfinite().all() for tensor in kept.tensors.values() if tensor.is_floating_point())
    mended, whole = train(tmp_path / "broken", resume=True), train(tmp_path / "whole")
    for one, other in zip(weights(mended), weights(whole), strict=True):
        assert one.tobytes() == other.tobytes()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_few_digits_are_a_cause_only_where_they_are_few(dtype: torch.dtype, tmp_path: Path) -> None:
    with pytest.raises(WorkError) as stopped:
        train(tmp_path, 1, dtype=dtype)
    assert ('training.precision = "float32"' in str(stopped.value)) == (dtype != torch.float32)


def test_the_log_is_for_programs_too(tmp_path: Path) -> None:
    with log_to(tmp_path):
        Reporter().say("epoch 1: loss 0.5", "epoch", epoch=1, loss=0.5)
        Reporter().say("a line\nof two, \x1b[31mred")
    first, second = (json.loads(line) for line in (tmp_path / "log.jsonl").read_text(encoding="utf-8").splitlines())
    assert first.pop("time").endswith("Z")
    assert first == {"level": "INFO", "message": "epoch 1: loss 0.5", "event": "epoch", "epoch": 1, "loss": 0.5}
    assert second["message"] == "a line\nof two, \x1b[31mred"
    assert second["event"] == "note"
