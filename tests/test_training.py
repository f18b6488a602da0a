"""Training: schedules, augmentation, averages, phases, and draws that follow from (seed, epoch, step)."""

import math
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
import torch
from torch import Tensor

from braintumor_kit.contracts import Backbone, InputError, NoOptions, Trunk, WorkError
from braintumor_kit.data.cache import Slices
from braintumor_kit.files import read_csv
from braintumor_kit.model.build import Classifier, build_classifier
from braintumor_kit.recipe.tables import AugmentTable, CallbacksTable, ScheduleTable, TrainingTable
from braintumor_kit.training.augment import affine_matrices, augment
from braintumor_kit.training.average import WeightAverage
from braintumor_kit.training.batches import Batches, Labels, balanced_weights
from braintumor_kit.training.fit import fit, frozen_layers, phases
from braintumor_kit.training.optimizers import make_optimizer
from braintumor_kit.training.randomness import epoch_order, seed_everything
from braintumor_kit.training.schedules import rate_factor
from braintumor_kit.training.store import store_of
from braintumor_kit.training.task import Fitted, Task, Watch


class Small(Backbone[NoOptions]):
    """Two convolutions in two stages."""

    api_version = 1
    Options = NoOptions

    def build(self, image_size: int, channels: int) -> Trunk:
        x = inputs = keras.Input((image_size, image_size, channels))
        for number, width in enumerate((8, 16), start=1):
            x = keras.layers.Conv2D(width, 3, strides=2, padding="same", use_bias=False, name=f"conv{number}")(x)
            x = keras.layers.BatchNormalization(momentum=0.7, name=f"bn{number}")(x)
            x = keras.layers.Activation("relu", name=f"relu{number}")(x)
        stages = {"stage1": "relu1", "stage2": "relu2"}
        return Trunk(keras.Model(inputs, x), (1 / 255,), (0.0,), "relu2", stages)


def classifier(seed: int = 0) -> Classifier:
    seed_everything(seed)
    return build_classifier(Small(NoOptions()), 2, 32, dropout=0.1)


def material(count: int = 48) -> tuple[Slices, np.ndarray]:
    """Bright bars, lying for class 0 and standing for class 1."""
    random = np.random.default_rng(0)
    pictures = random.integers(0, 60, (count, 32, 32, 1), dtype=np.uint8)
    labels = np.arange(count) % 2
    for picture, label in zip(pictures, labels, strict=True):
        (picture if label else picture.swapaxes(0, 1))[4:28, 14:18] = 250
    return Slices(pictures, np.arange(count)), labels


def trained(
    folder: Path,
    seed: int = 0,
    callbacks: CallbacksTable | None = None,
    watching: Callable[[Classifier], keras.callbacks.Callback] | None = None,
    **values: object,
) -> tuple[Classifier, Fitted]:
    network, (slices, labels) = classifier(seed), material()
    training = TrainingTable.model_validate({"epochs": 3, "batch_size": 8, "learning_rate": 1e-2, **values})
    train = batches(slices, labels, np.arange(32), 8, seed)
    validation = batches(slices, labels, np.arange(32, 48), 8)
    augmentation = AugmentTable(flip_horizontal=True, rotate=5, noise=0.02)
    task = Task(train, validation, training, augmentation, callbacks or CallbacksTable(), torch.float32, seed)
    folder.mkdir(exist_ok=True)
    own = [watching(network)] if watching else []
    return network, fit(network, task, folder, Watch(lambda row: None), own)


def batches(slices: Slices, labels: np.ndarray, places: np.ndarray, size: int, seed: int | None = None) -> Batches:
    return Batches([store_of(slices, places, torch.device("cpu"))], Labels(labels[places], 2), size, seed)


def weights(network: Classifier) -> list[np.ndarray]:
    return [weight.numpy() for weight in network.model.weights]


def test_the_same_seed_gives_the_same_training_bit_for_bit(tmp_path: Path) -> None:
    first, second = trained(tmp_path / "a"), trained(tmp_path / "b")
    for a, b in zip(weights(first[0]), weights(second[0]), strict=True):
        np.testing.assert_array_equal(a, b)
    assert [row.loss for row in first[1].history] == [row.loss for row in second[1].history]
    other = trained(tmp_path / "c", seed=1)
    assert first[1].history[0].loss != other[1].history[0].loss


def test_it_learns_and_keeps_the_best_epoch(tmp_path: Path) -> None:
    network, done = trained(tmp_path, epochs=6)
    best = max(row.val_accuracy for row in done.history)
    assert best == done.best == 1.0
    assert done.best_epoch == next(row.epoch for row in done.history if row.val_accuracy == best)
    slices, labels = material()
    with torch.no_grad():
        p = network.model(torch.from_numpy(slices[np.arange(32, 48)]).float().expand(-1, -1, -1, 3), training=False)
    assert (p.argmax(dim=1).numpy() == labels[32:]).all()


def test_history_has_a_row_an_epoch_with_the_documented_columns(tmp_path: Path) -> None:
    _, done = trained(tmp_path)
    rows = read_csv(tmp_path / "history.csv")
    assert list(rows[0]) == ["epoch", "loss", "accuracy", "val_loss", "val_accuracy", "learning_rate", "seconds",
                             "images_per_second"]  # fmt: skip
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert float(rows[-1]["loss"]) == pytest.approx(done.history[-1].loss)


def test_phases_train_the_head_first(tmp_path: Path) -> None:
    start = weights(classifier())
    network, _ = trained(tmp_path, epochs=None, phases=[{"epochs": 1, "trainable": "head"}])
    for before, after, weight in zip(start, weights(network), network.model.weights, strict=True):
        changed = not np.array_equal(before, after)
        assert changed == ("logits" in weight.path)


def test_later_phases_count_their_epochs_on(tmp_path: Path) -> None:
    two = [{"epochs": 1, "trainable": "head"}, {"epochs": 2, "trainable": "all", "learning_rate": 1e-3}]
    _, done = trained(tmp_path, epochs=None, phases=two)
    assert [row.epoch for row in done.history] == [1, 2, 3]
    assert [row.learning_rate for row in done.history] == pytest.approx([1e-2, 1e-3, 1e-3])


def test_phases_take_what_they_leave_out_from_training() -> None:
    training = TrainingTable.model_validate(
        {"trainable": "stage2", "learning_rate": 0.5, "phases": [{"epochs": 2}, {"epochs": 3, "trainable": "all"}]}
    )
    first, second = phases(training)
    assert (first.epochs, first.trainable, first.learning_rate) == (2, "stage2", 0.5)
    assert (second.epochs, second.trainable) == (3, "all")


def test_freezing_up_to_a_stage() -> None:
    network = classifier()
    assert frozen_layers(network, "all") == frozen_layers(network, "stage1") == []
    assert {layer.name for layer in frozen_layers(network, "stage2")} == {
        "pictures",
        "pixel_scaling",
        "conv1",
        "bn1",
        "relu1",
    }
    assert {layer.name for layer in network.model.layers} - {
        layer.name for layer in frozen_layers(network, "head")
    } == {"logits"}
    with pytest.raises(
        InputError, match="trainable = 'stag2' is none of all, head, stage1, stage2; did you mean 'stage2'"
    ):
        frozen_layers(network, "stag2")


def test_reduce_lr_on_plateau_acts(tmp_path: Path) -> None:
    callbacks = CallbacksTable.model_validate(
        {"reduce_lr_on_plateau": {"patience": 0, "min_delta": 100.0, "factor": 0.1}}
    )
    _, done = trained(tmp_path, callbacks=callbacks)
    assert [row.learning_rate for row in done.history] == pytest.approx([1e-2, 1e-2, 1e-3])


def test_early_stopping_stops(tmp_path: Path) -> None:
    callbacks = CallbacksTable.model_validate({"early_stopping": {"patience": 1, "min_delta": 100.0}})
    _, done = trained(tmp_path, epochs=9, callbacks=callbacks)
    assert len(done.history) == 2


def test_tensorboard_logs_without_tensorflow(tmp_path: Path) -> None:
    import sys

    trained(tmp_path, epochs=1, callbacks=CallbacksTable.model_validate({"tensorboard": {}}))
    assert list((tmp_path / "tensorboard").glob("events.out.tfevents.*"))
    assert "tensorflow" not in sys.modules


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(WorkError, match=r"loss is not finite at step \d of 4 in epoch 1; training stopped"):
        trained(tmp_path, learning_rate=1e30, optimizer="sgd")


def test_ema_is_what_is_kept(tmp_path: Path) -> None:
    plain, averaged = trained(tmp_path / "a", epochs=1), trained(tmp_path / "b", epochs=1, ema=0.99)
    assert plain[1].history[0].loss == averaged[1].history[0].loss
    assert any(not np.array_equal(a, b) for a, b in zip(weights(plain[0]), weights(averaged[0]), strict=True))


class Steps(keras.callbacks.Callback):
    """Keeps all weights after every step, and what the validation of each epoch was done with."""

    def __init__(self, network: Classifier) -> None:
        super().__init__()
        self.network, self.after, self.validated = network, [weights(network)], []

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:
        self.after.append(weights(self.network))

    def on_test_batch_begin(self, batch: int, logs: object = None) -> None:
        self.validated.append(weights(self.network))


def test_the_average_is_of_every_weight_of_every_step_convolutions_included(tmp_path: Path) -> None:
    kept: list[Steps] = []

    def watching(network: Classifier) -> Steps:
        kept.append(Steps(network))
        return kept[0]

    network, _ = trained(tmp_path, watching=watching, epochs=1, ema=0.7)
    steps = kept[0]
    expected = [weight.astype(np.float64) for weight in steps.after[0]]
    for number, after in enumerate(steps.after[1:], start=1):
        momentum = min(0.7, (1 + number) / (10 + number))
        expected = [momentum * mean + (1 - momentum) * weight for mean, weight in zip(expected, after, strict=True)]
    assert len(steps.after) == 5
    for found in (weights(network), steps.validated[0]):
        for weight, mean in zip(found, expected, strict=True):
            np.testing.assert_allclose(weight, mean, rtol=1e-5, atol=1e-7)
    assert not any(np.allclose(a, b) for a, b in zip(expected[:1], steps.after[-1][:1], strict=True))


def test_average_by_hand() -> None:
    variable = keras.Variable([1.0])
    average = WeightAverage([variable], momentum=0.5)
    for value in (3.0, 5.0):
        variable.assign([value])
        average.on_train_batch_end(0)
    # momenta are min(0.5, 2/11) and min(0.5, 3/12): 1 -> 1*2/11 + 3*9/11 -> that*1/4 + 5*3/4
    expected = (1 * 2 / 11 + 3 * 9 / 11) / 4 + 5 * 3 / 4
    with average.applied():
        assert variable.numpy()[0] == pytest.approx(expected)
    assert variable.numpy()[0] == 5.0


def test_weight_decay_spares_biases_and_normalisation() -> None:
    network = classifier()
    training = TrainingTable(optimizer="adamw", weight_decay=0.1)
    optimizer = make_optimizer(training, 0.1)
    optimizer.build(network.model.trainable_variables)
    before = weights(network)
    zero = [torch.zeros_like(variable.value) for variable in network.model.trainable_variables]
    optimizer.apply(zero, network.model.trainable_variables)
    for old, new, weight in zip(before, weights(network), network.model.weights, strict=True):
        expected = old * (1 - 0.1 * 0.1) if "kernel" in weight.path else old
        np.testing.assert_allclose(new, expected, rtol=1e-6)


def test_batches_visit_every_sample_once_an_epoch_in_an_order_of_its_own() -> None:
    slices, labels = material(10)
    some = batches(slices, labels, np.arange(2, 9), 3, seed=4)
    seen = []
    for epoch in (0, 1):
        some.epoch = epoch
        parts = [some[step] for step in range(len(some))]
        assert [len(part[0]) for part in parts] == [3, 3, 1]
        seen.append(torch.cat([part[0] for part in parts]).numpy())
    for pictures in seen:
        assert {picture.tobytes() for picture in pictures} == {picture.tobytes() for picture in slices[np.arange(2, 9)]}
    assert not np.array_equal(*seen)
    assert np.array_equal(epoch_order(4, 1, 7), epoch_order(4, 1, 7))


def test_balanced_weights_by_hand() -> None:
    assert balanced_weights(np.array([0, 0, 0, 1]), 2) == pytest.approx([4 / 6, 2.0])


@pytest.mark.parametrize(
    ("values", "step", "factor"),
    [
        ({"name": "constant"}, 57, 1.0),
        ({"name": "constant", "warmup_epochs": 1}, 0, 1 / 11),
        ({"name": "constant", "warmup_epochs": 1}, 9, 10 / 11),
        ({"name": "constant", "warmup_epochs": 1}, 10, 1.0),
        ({"name": "step", "step_epochs": 2, "factor": 0.1}, 19, 1.0),
        ({"name": "step", "step_epochs": 2, "factor": 0.1}, 20, 0.1),
        ({"name": "step", "step_epochs": 2, "factor": 0.1}, 40, 0.01),
        ({"name": "cosine"}, 0, 1.0),
        ({"name": "cosine"}, 99, 0.0),
        ({"name": "cosine", "final_fraction": 0.1}, 99, 0.1),
        ({"name": "cosine"}, 33, (1 + math.cos(math.pi / 3)) / 2),
        ({"name": "one_cycle"}, 0, 1 / 25),
        ({"name": "one_cycle", "final_fraction": 0.01}, 99, 0.01),
    ],
)
def test_schedules_by_hand(values: dict[str, object], step: int, factor: float) -> None:
    """100 steps in 10 epochs of 10."""
    assert rate_factor(ScheduleTable.model_validate(values), step, 10, 100) == pytest.approx(factor)


def test_one_cycle_is_highest_after_three_tenths() -> None:
    schedule = ScheduleTable(name="one_cycle")
    factors = [rate_factor(schedule, step, 10, 1001) for step in range(1001)]
    assert factors[300] == max(factors) == pytest.approx(1.0)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(count: int = 4) -> Tensor:
    return torch.rand(count, 1, 20, 20, generator=generator(9)) * 255


def test_no_augmentation_changes_nothing() -> None:
    x = pictures()
    assert augment(x, AugmentTable(), generator()) is x


def test_mirroring_is_exact_and_happens_to_about_half() -> None:
    x = pictures(200)
    y = augment(x, AugmentTable(flip_horizontal=True), generator())
    same = (y == x).flatten(1).all(dim=1)
    mirrored = (y == x.flip(3)).flatten(1).all(dim=1)
    assert (same ^ mirrored).all()
    assert 70 < int(mirrored.sum()) < 130


def test_rotation_and_shift_by_hand() -> None:
    quarter = AugmentTable(rotate=90)
    found = [m for m in affine_matrices(50, quarter, generator()) if abs(float(m[0, 0])) <= 1]
    for matrix in found:  # rotations keep lengths and angles
        rotation = matrix[:, :2]
        torch.testing.assert_close(rotation @ rotation.T, torch.eye(2), rtol=0, atol=1e-6)
    shifts = affine_matrices(500, AugmentTable(shift=0.1), generator())[:, :, 2]
    assert float(shifts.abs().max()) <= 0.2  # a tenth of a side that spans -1..1
    assert float(shifts.abs().max()) > 0.19


def test_moved_mirrors_keep_the_middle_and_swap_the_sides() -> None:
    """With rotation asked for, mirroring goes through interpolation: a tiny angle must still mirror."""
    x = torch.zeros(40, 1, 21, 21)
    x[..., 10, 2] = 255
    y = augment(x, AugmentTable(flip_horizontal=True, rotate=1e-3), generator())
    columns = set(y[:, 0, 10].argmax(dim=1).tolist())
    assert columns == {2, 18}


def test_intensity_changes_stay_in_range_and_within_reach() -> None:
    x = torch.full((300, 1, 8, 8), 100.0)
    y = augment(x, AugmentTable(brightness=0.1), generator())
    assert float((y - x).abs().max()) <= 25.5
    assert float(augment(pictures(50), AugmentTable(noise=0.5, contrast=0.9, brightness=0.9), generator()).max()) <= 255
    gamma = augment(x, AugmentTable(gamma=0.5), generator())
    low, high = (255 * (100 / 255) ** power for power in (1.5, 0.5))
    assert low - 1e-3 <= float(gamma.min())
    assert float(gamma.max()) <= high + 1e-3


def test_grey_levels_pass_through_a_rising_curve_that_keeps_both_ends() -> None:
    ramp = torch.arange(256.0).reshape(1, 1, 16, 16).repeat(20, 1, 1, 1)
    curves = augment(ramp, AugmentTable(remap=0.6), generator()).flatten(1)
    assert bool((curves[:, 0] == 0).all())
    torch.testing.assert_close(curves[:, -1], torch.full((20,), 255.0), atol=0.05, rtol=0)
    slopes = curves.diff(dim=1)
    assert float(slopes.min()) > 0
    assert 0.2 < float(slopes.min()) < 0.8 < 1.2 < float(slopes.max()) < 2.2  # (1 - 0.6) / (1 + 0.6) .. its inverse
    assert len({round(float(curve[100]), 2) for curve in curves}) > 15  # each its own


def test_the_rim_of_the_head_changes_and_the_brain_does_not() -> None:
    rows, columns = torch.meshgrid(torch.linspace(-1, 1, 224), torch.linspace(-1, 1, 224), indexing="ij")
    radius = torch.hypot(rows, columns)
    disc = torch.where(radius < 0.8, 100.0, 0.0).repeat(8, 1, 1, 1)
    changed = augment(disc, AugmentTable(rim=0.5), generator())
    assert bool((changed[..., radius < 0.55] == 100).all())
    assert bool((changed[..., radius > 0.9] == 0).all())
    ring = changed[..., (radius > 0.75) & (radius < 0.78)].mean(dim=-1).flatten()
    assert float((ring - 100).abs().max()) > 15
    assert float(ring.max()) > 100 > float(ring.min())


def test_augmentation_follows_from_the_generator() -> None:
    settings = AugmentTable(flip_horizontal=True, rotate=20, scale=0.2, noise=0.1, contrast=0.3, gamma=0.2)
    first, again, other = (augment(pictures(), settings, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_rate_on_record_is_that_of_the_epochs_first_step(tmp_path: Path) -> None:
    _, done = trained(tmp_path, schedule={"name": "cosine"})
    expected = [1e-2 * rate_factor(ScheduleTable(name="cosine"), step, 4, 12) for step in (0, 4, 8)]
    assert [row.learning_rate for row in done.history] == pytest.approx(expected)


def test_a_plateau_waits_for_the_end_of_warm_up(tmp_path: Path) -> None:
    callbacks = CallbacksTable.model_validate(
        {"reduce_lr_on_plateau": {"patience": 0, "min_delta": 100.0, "factor": 0.1}}
    )
    _, done = trained(tmp_path, epochs=5, schedule={"warmup_epochs": 2}, callbacks=callbacks)
    # two epochs of warming, one at the full rate whose end sets the plateau's first best, then it acts
    assert [row.learning_rate for row in done.history[2:]] == pytest.approx([1e-2, 1e-2, 1e-3])


def test_a_phase_that_stops_early_leaves_no_gap(tmp_path: Path) -> None:
    callbacks = CallbacksTable.model_validate({"early_stopping": {"patience": 1, "min_delta": 100.0}})
    _, done = trained(tmp_path, epochs=None, phases=[{"epochs": 5}, {"epochs": 4}], callbacks=callbacks)
    assert [row.epoch for row in done.history] == [1, 2, 3, 4]
