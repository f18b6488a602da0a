"""Callbacks one by one: what each counts, keeps, remembers and says, and the course of the learning rate by hand."""

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_training import classifier

from braintumor_kit import files
from braintumor_kit.contracts import InputError
from braintumor_kit.files import read_csv
from braintumor_kit.recipe.tables import ScheduleTable
from braintumor_kit.training import callbacks
from braintumor_kit.training.callbacks import (
    BestWeights,
    Epoch,
    History,
    Plateau,
    RateSchedule,
    Steps,
    Stopping,
    require_tensorboard,
    tensorboard_writer,
)
from braintumor_kit.training.schedules import rate_factor


def model(epoch: int = 0, step: int = 0, rate: float = 1.0) -> Any:
    """What callbacks ask a model in training."""
    return SimpleNamespace(epoch=epoch, step=step, optimizer=SimpleNamespace(learning_rate=rate))


def test_steps_are_counted_over_the_whole_training() -> None:
    told: list[tuple[int, int]] = []
    steps = Steps(lambda done, total: told.append((done, total)), 5, 3)
    for epoch, step in ((0, 0), (0, 4), (1, 0), (2, 3), (2, 4)):
        steps.set_model(model(epoch, step))
        steps.on_train_batch_end(step)
    assert told == [(1, 15), (5, 15), (6, 15), (14, 15), (15, 15)]


# The learning rate


def rates(schedule: RateSchedule, places: list[tuple[int, int]], before: float) -> list[float]:
    """The rate in each step, where it was `before`."""
    found = []
    for epoch, step in places:
        trained = model(epoch, step, before)
        schedule.set_model(trained)
        schedule.on_epoch_begin(epoch)
        schedule.on_train_batch_begin(step)
        found.append(trained.optimizer.learning_rate)
    return found


def test_a_constant_rate_is_left_to_others_once_it_is_warm() -> None:
    """Warm-up of one and a half epochs of three steps, in a phase that begins with the third epoch: the sixth step of
    the phase is the first at the full rate, and the last that the schedule sets."""
    schedule = RateSchedule(ScheduleTable(warmup_epochs=1.5), 0.8, 2, 4, 3)
    places = [(2, 0), (2, 2), (3, 0), (3, 1), (3, 2), (4, 0), (5, 2)]
    assert rates(schedule, places, 0.1) == pytest.approx([0.8 / 5.5, 2.4 / 5.5, 3.2 / 5.5, 4 / 5.5, 0.8, 0.1, 0.1])


def test_other_rates_are_set_at_every_step_of_their_phase() -> None:
    schedule = RateSchedule(ScheduleTable(name="cosine"), 0.8, 2, 4, 3)  # twelve steps: the last is 11
    places = [(2, 0), (3, 1), (5, 2)]
    expected = [0.8 * (1 + math.cos(math.pi * step / 11)) / 2 for step in (0, 4, 11)]
    assert rates(schedule, places, 0.1) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("values", "step", "steps", "factor"),
    [
        # ten of a hundred steps of warm-up: 89 from the first at the full rate to the last
        ({"name": "cosine", "warmup_epochs": 1}, 10, 100, 1.0),
        ({"name": "cosine", "warmup_epochs": 1, "final_fraction": 0.2}, 99, 100, 0.2),
        ({"name": "cosine", "warmup_epochs": 1}, 40, 100, (1 + math.cos(math.pi * 30 / 89)) / 2),
        ({"name": "cosine"}, 0, 2, 1.0),
        ({"name": "cosine"}, 1, 2, 0.0),
        ({"name": "cosine"}, 0, 1, 1.0),
        # fifteen of a hundred steps are half of the rise: the middle between 1 / 25 and 1
        ({"name": "one_cycle"}, 15, 101, (1 + 1 / 25) / 2),
        ({"name": "one_cycle"}, 10, 101, 1 + (1 / 25 - 1) * (1 + math.cos(math.pi / 3)) / 2),
        ({"name": "one_cycle", "final_fraction": 0.5}, 65, 101, 0.75),
        ({"name": "step", "step_epochs": 3, "factor": 0.5}, 89, 100, 0.25),
        ({"name": "step", "step_epochs": 3, "factor": 0.5}, 90, 100, 0.125),
    ],
)
def test_schedules_with_warm_up_and_in_between(values: dict[str, object], step: int, steps: int, factor: float) -> None:
    """Epochs of ten steps."""
    assert rate_factor(ScheduleTable.model_validate(values), step, 10, steps) == pytest.approx(factor)


def test_a_plateau_and_a_stop_remember_across_processes() -> None:
    settings: dict[str, Any] = {"monitor": "val_loss", "patience": 3, "min_delta": 0.1}
    plateau, stop = Plateau(0, cooldown=2, **settings), Stopping(**settings)
    assert stop.memory() == {"best": None, "wait": 0}  # Keras' own has none before the first epoch
    for callback in (plateau, stop):
        callback.set_model(model())
        callback.on_train_begin()
        for epoch, value in enumerate((0.9, 0.5, 0.45)):
            callback.on_epoch_end(epoch, {"val_loss": value})
    assert plateau.memory() == {"best": 0.5, "wait": 1, "cooldown": 0}
    assert stop.memory() == {"best": 0.5, "wait": 1}
    again = Plateau(0, **settings)
    again.recall({"best": 0.5, "wait": 2, "cooldown": 1})
    assert again.memory() == {"best": 0.5, "wait": 2, "cooldown": 1}
    stop.recall({"best": 0.25, "wait": 2})
    assert stop.memory() == {"best": 0.25, "wait": 2}


# The history


def logs(**values: float) -> dict[str, float]:
    return {"loss": 0.5, "accuracy": 0.75, "val_loss": 0.6, "val_accuracy": 0.7, **values}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets the time in seconds."""

    def at(seconds: float) -> None:
        monkeypatch.setattr(callbacks.time, "monotonic", lambda: seconds)

    return at


def test_a_row_has_the_time_of_the_epoch_and_the_pace_of_its_training(
    tmp_path: Path, clock: Callable[[float], None]
) -> None:
    rows: list[Epoch] = []
    history = History(tmp_path / "history.csv", SimpleNamespace(samples=100), [rows.append])  # type: ignore[arg-type]
    assert history.memory() == {"epochs": [], "rate": 0.0}
    clock(1000.0)
    history.on_epoch_begin(0)
    for step, rate in ((0, 0.25), (1, 0.125)):
        history.set_model(model(0, step, rate))
        history.on_train_batch_end(step)
    clock(1003.0)
    history.on_test_begin()
    clock(1004.00051)
    history.on_epoch_end(0, logs())
    row = Epoch(1, 0.5, 0.75, 0.6, 0.7, 0.25, 4.001, 33.33)
    assert rows == history.epochs == [row]
    (written,) = read_csv(tmp_path / "history.csv")
    assert written == {
        "epoch": "1", "loss": "0.5", "accuracy": "0.75", "val_loss": "0.6", "val_accuracy": "0.7",
        "learning_rate": "0.25", "seconds": "4.001", "images_per_second": "33.33",
    }  # fmt: skip

    later = History(tmp_path / "later.csv", SimpleNamespace(samples=100), [])  # type: ignore[arg-type]
    later.recall(history.memory())
    assert later.memory() == history.memory()
    assert (tmp_path / "later.csv").read_bytes() == (tmp_path / "history.csv").read_bytes()
    # the first step of the epoch was before the interruption: its rate is remembered
    later.on_epoch_begin(1)
    later.set_model(model(1, 1, 0.0625))
    later.on_train_batch_end(1)
    clock(1005.0)
    later.on_test_begin()
    later.on_epoch_end(1, logs())
    assert later.epochs[1].learning_rate == 0.25


# The best weights


def best_of(folder: Path, monitor: str, values: list[float]) -> tuple[BestWeights, keras.Model]:
    """After epochs with such values, in each of which the network's first weight is the epoch's number."""
    network = classifier().logits
    best = BestWeights(network, folder, monitor, None)
    assert (best.epoch, best.memory()["epoch"]) == (0, 0)
    best.check()  # nothing is lost where there is nothing yet
    for epoch, value in enumerate(values):
        best.on_epoch_begin(epoch)
        network.weights[0].assign(np.full(network.weights[0].shape, epoch))
        best.on_epoch_end(epoch, {monitor: value, "loss": -value})
    return best, network


@pytest.mark.parametrize(
    ("monitor", "values", "epoch"),
    [
        ("val_accuracy", [0.0, 0.5, 0.25, 0.5], 2),
        ("val_accuracy", [0.9, 0.5, 0.25], 1),
        ("val_loss", [3.0, 0.5, 0.25, 0.25, 0.3], 3),
        ("val_loss", [0.1, 0.5, 2.0], 1),
        ("val_loss", [0.0, 0.5, 2.0], 1),
    ],
)
def test_the_first_best_epoch_is_kept(monitor: str, values: list[float], epoch: int, tmp_path: Path) -> None:
    best, network = best_of(tmp_path, monitor, values)
    assert best.memory() == {"best": values[epoch - 1], "epoch": epoch}
    assert best.path.name == f"best-{epoch:04}.weights.h5"
    best.restore()
    assert (network.weights[0].numpy() == epoch - 1).all()
    assert [path.name for path in tmp_path.iterdir()] == [best.path.name]
    later = BestWeights(network, tmp_path, monitor, None)
    later.recall(best.memory())
    assert (later.best, later.epoch, later.path) == (best.best, best.epoch, best.path)


def test_room_is_asked_for_before_weights_are_written_and_they_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HDF5 ends the process where the disk fills, and a checkpoint may speak of the file right afterwards."""
    asked: list[tuple[int, bool]] = []

    def whole(path: Path, room: int = 0, lasting: bool = False) -> Any:
        asked.append((room, lasting))
        return files.whole(path, room, lasting)

    monkeypatch.setattr(callbacks, "whole", whole)
    best, _ = best_of(tmp_path, "val_loss", [0.5])
    ((room, lasting),) = asked
    assert lasting
    assert room >= best.path.stat().st_size


def test_lost_weights_are_told_with_what_to_do(tmp_path: Path) -> None:
    best, _ = best_of(tmp_path, "val_loss", [0.5])
    best.path.write_bytes(b"nothing of this kind")
    with pytest.raises(InputError) as caught:
        best.check()
    said = str(caught.value)
    assert said.startswith(f"{best.path}, the best weights so far, cannot be read: {best.path} ")
    assert said.endswith(
        ". Put it back, or remove latest.safetensors beside it, and the training begins anew in the same folder, with "
        "--accept-changes."
    )


def test_an_older_file_that_cannot_be_removed_costs_room_and_no_more(tmp_path: Path) -> None:
    best, _ = best_of(tmp_path, "val_loss", [0.5])
    (tmp_path / "best-0000.weights.h5").mkdir()
    best.on_epoch_begin(1)
    assert best.path.is_file()


# TensorBoard


def test_tensorboard_shows_every_column_at_its_epoch(tmp_path: Path) -> None:
    write = tensorboard_writer(tmp_path)
    for epoch in (1, 2):
        write(Epoch(epoch, 0.5 / epoch, 0.75, 0.5, 0.25, 0.125, 4.0, 32.0 * epoch))
    events = EventAccumulator(str(tmp_path)).Reload()
    found = {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    assert found == {
        "loss": [(1, 0.5), (2, 0.25)], "accuracy": [(1, 0.75), (2, 0.75)], "val_loss": [(1, 0.5), (2, 0.5)],
        "val_accuracy": [(1, 0.25), (2, 0.25)], "learning_rate": [(1, 0.125), (2, 0.125)],
        "seconds": [(1, 4.0), (2, 4.0)], "images_per_second": [(1, 32.0), (2, 64.0)],
    }  # fmt: skip


def test_a_missing_tensorboard_is_told_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    require_tensorboard()
    asked: list[str] = []
    monkeypatch.setattr(callbacks, "find_spec", asked.append)
    with pytest.raises(InputError) as caught:
        require_tensorboard()
    assert asked == ["tensorboard"]
    assert str(caught.value) == (
        "[callbacks.tensorboard] needs the package tensorboard: pip install 'braintumor-kit[tensorboard]'."
    )
