"""Memory that runs out in a step: the batch size that fits is said, or gone on with."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_training import batches, classifier, material, weights
from torch import Tensor

from braintumor_kit.contracts import WorkError
from braintumor_kit.errors import is_out_of_memory
from braintumor_kit.model.build import Classifier
from braintumor_kit.recipe.tables import AugmentTable, CallbacksTable, TrainingTable
from braintumor_kit.training.batches import Batches, Labels
from braintumor_kit.training.checkpoint import load_checkpoint
from braintumor_kit.training.fit import LATEST, fit
from braintumor_kit.training.out_of_memory import smaller, with_less_memory
from braintumor_kit.training.store import store_of
from braintumor_kit.training.task import Fitted, Task, Watch
from braintumor_kit.training.trainee import Trainee

pytestmark = pytest.mark.usefixtures("one_thread")


class Memory:
    """As much as a step of so many slices takes; a step of more asks torch for a petabyte, from a given one on."""

    def __init__(self, slices: int, steps_before: int = 0) -> None:
        self.slices, self.steps_before, self.sizes = slices, steps_before, list[int]()

    def use(self, size: int) -> None:
        self.sizes.append(size)
        if size > self.slices and len(self.sizes) > self.steps_before:
            torch.empty(1 << 50, dtype=torch.uint8)


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Memory:
    limited = Memory(*request.param)
    call = Trainee.call

    def limited_call(self: Trainee, inputs: Tensor, training: bool = False) -> Tensor:
        if training and inputs.device.type != "meta":
            limited.use(len(inputs))
        return call(self, inputs, training=training)

    monkeypatch.setattr(Trainee, "call", limited_call)
    return limited


def train(folder: Path, size: int, resume: bool = False, **values: Any) -> tuple[Classifier, Fitted, list[str]]:
    network, (slices, labels), said = classifier(5), material(), list[str]()
    training = TrainingTable.model_validate({"batch_size": size, "epochs": 2, "learning_rate": 1e-2, **values})
    train = batches(slices, labels, np.arange(32), size, 5)
    validation = batches(slices, labels, np.arange(32, 48), size)
    task = Task(train, validation, training, AugmentTable(), CallbacksTable(), torch.float32, 5)
    folder.mkdir(exist_ok=True)
    return network, fit(network, task, folder, Watch(lambda row: None, say=said.append), resume=resume), said


@pytest.mark.parametrize(("memory", "size", "fits"), [((4,), 16, 4), ((5,), 30, 5), ((1,), 32, 1)], indirect=["memory"])
def test_the_size_that_fits_is_found_by_trying(memory: Memory, size: int, fits: int, tmp_path: Path) -> None:
    with pytest.raises(WorkError) as stopped:
        train(tmp_path, size)
    said = str(stopped.value)
    assert said.startswith(f"memory ran out with training.batch_size = {size} (")
    assert f"{fits} fits here: run anew with --set training.batch_size={fits}" in said
    assert (tmp_path / LATEST).is_file()


@pytest.mark.parametrize("memory", [(4,)], indirect=True)
def test_of_several_workers_the_size_of_each_is_told(memory: Memory) -> None:
    network, (slices, labels) = classifier(5), material()
    store = store_of(slices, np.arange(32), torch.device("cpu"))
    train = Batches([store], Labels(labels[:32], 2), 16, 5, rank=1, parts=2)
    validation = batches(slices, labels, np.arange(32, 48), 8)
    tables = TrainingTable(batch_size=8, workers=2), AugmentTable(), CallbacksTable()
    with pytest.raises(WorkError, match=r"ran out with training\.batch_size = 8 \(no room\)\. 4 fits here"):
        with_less_memory(
            network, Task(train, validation, *tables, torch.float32, 5), "no room", Watch(lambda row: None)
        )


@pytest.mark.parametrize("memory", [(0,)], indirect=True)
def test_not_even_one_slice(memory: Memory, tmp_path: Path) -> None:
    for wish in ("stop", "halve"):
        with pytest.raises(WorkError, match="Not even one slice a step fits"):
            train(tmp_path / wish, 8, on_out_of_memory=wish)


@pytest.mark.parametrize("memory", [(4,)], indirect=True)
def test_halved_from_the_beginning_it_is_a_training_of_that_size(memory: Memory, tmp_path: Path) -> None:
    halved, fitted, said = train(tmp_path / "halved", 16, on_out_of_memory="halve")
    plain, other, _ = train(tmp_path / "plain", 4)
    assert (fitted.batch_size, other.batch_size) == (4, 4)
    assert [re.findall(r"with (\d+)", line) for line in said] == [["16", "8"], ["8", "4"]]
    for one, two in zip(weights(halved), weights(plain), strict=True):
        assert one.tobytes() == two.tobytes()


@pytest.mark.parametrize("memory", [(8, 3)], indirect=True)
def test_inside_an_epoch_no_slice_is_left_out_or_seen_twice(memory: Memory, tmp_path: Path) -> None:
    """Two steps of 16 and one of the second epoch go well; the next is done in two of 8."""
    _, fitted, said = train(tmp_path, 16, on_out_of_memory="halve", checkpoint_seconds=0)
    assert memory.sizes == [16, 16, 16, 16, 8, 8]
    assert len(said) == 1
    assert fitted.batch_size == 8
    assert load_checkpoint(tmp_path / LATEST).position.batch_size == 8
    assert [row.epoch for row in fitted.history] == [1, 2]


@pytest.mark.parametrize("memory", [(8,)], indirect=True)
def test_resumed_it_goes_on_with_the_smaller_size(memory: Memory, tmp_path: Path) -> None:
    train(tmp_path, 16, on_out_of_memory="halve", epochs=1)
    memory.sizes.clear()
    _, fitted, said = train(tmp_path, 16, resume=True, on_out_of_memory="halve", epochs=2)
    assert memory.sizes == [8, 8, 8, 8]
    assert (len(fitted.history), said) == (2, [])


def test_smaller_sizes_divide() -> None:
    assert [smaller(size) for size in (64, 30, 9, 7, 1)] == [32, 15, 3, 1, None]


def test_what_running_out_of_memory_looks_like() -> None:
    with pytest.raises(RuntimeError) as real:
        torch.empty(1 << 50, dtype=torch.uint8)
    assert is_out_of_memory(real.value)
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"))
    assert is_out_of_memory(RuntimeError("could not create a memory object"))
    assert is_out_of_memory(RuntimeError("std::bad_alloc"))
    assert not is_out_of_memory(RuntimeError("shapes do not match"))
    assert not is_out_of_memory(ValueError("out of memory"))
    assert not is_out_of_memory(WorkError("memory ran out: out of memory"))
