"""What a phase leaves frozen is computed once; the numbers that come out are those of the slow way."""

from pathlib import Path

import keras
import numpy as np
import pytest
import torch
from keras import layers

from braintumor_kit.contracts import Backbone, NoOptions, Trunk
from braintumor_kit.data.cache import Slices
from braintumor_kit.model.build import Classifier, build_classifier
from braintumor_kit.model.fast import Program, graph_of
from braintumor_kit.recipe.tables import AugmentTable, CallbacksTable, TrainingTable
from braintumor_kit.training import features
from braintumor_kit.training.batches import Batches, Labels
from braintumor_kit.training.features import Features, Frozen, feature_stores, frozen_part
from braintumor_kit.training.fit import fit, frozen_layers
from braintumor_kit.training.randomness import seed_everything
from braintumor_kit.training.store import Mapped, Resident, store_of
from braintumor_kit.training.task import Fitted, Task, Watch

CPU = torch.device("cpu")
MOVED = AugmentTable(rotate=90, shift=0.2)


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BTKIT_CACHE", str(tmp_path / "cache"))


class Steps(Backbone[NoOptions]):
    """Three stages, the second with a shortcut."""

    api_version = 1
    Options = NoOptions

    def build(self, image_size: int, channels: int) -> Trunk:
        inputs = keras.Input((image_size, image_size, channels))
        x = self._block(inputs, 4, "1")
        y = self._block(x, 4, "2", strides=1)
        x = layers.Add(name="sum2")([x, y])
        x = self._block(x, 8, "3")
        stages = {"stage1": "relu1", "stage2": "sum2", "stage3": "relu3"}
        return Trunk(keras.Model(inputs, x), (1 / 255,), (-0.3,), "relu3", stages)

    def _block(self, x: keras.KerasTensor, width: int, name: str, strides: int = 2) -> keras.KerasTensor:
        x = layers.Conv2D(width, 3, strides=strides, padding="same", use_bias=False, name=f"conv{name}")(x)
        x = layers.BatchNormalization(momentum=0.7, name=f"bn{name}")(x)
        return layers.Activation("relu", name=f"relu{name}")(x)


def classifier(dropout: float = 0.0) -> Classifier:
    seed_everything(1)
    return build_classifier(Steps(NoOptions()), 2, 32, dropout)


def slices() -> tuple[Slices, np.ndarray]:
    random = np.random.default_rng(0)
    pictures = random.integers(0, 60, (44, 32, 32, 1), dtype=np.uint8)
    labels = np.arange(44) % 2
    for picture, label in zip(pictures, labels, strict=True):
        (picture if label else picture.swapaxes(0, 1))[4:28, 10:14] = 250
    return Slices(pictures, np.arange(44)), labels


def trained(
    folder: Path, augmentation: AugmentTable, dtype: torch.dtype = torch.float32, **values: object
) -> tuple[Classifier, Fitted, list[str]]:
    network, (all_slices, labels) = classifier(), slices()
    training = TrainingTable.model_validate({"epochs": 3, "batch_size": 8, "learning_rate": 1e-2, **values})

    def batches(places: np.ndarray, seed: int | None = None) -> Batches:
        return Batches([store_of(all_slices, places, CPU)], Labels(labels[places], 2), 8, seed)

    told: list[str] = []
    task = Task(
        batches(np.arange(30), 5), batches(np.arange(30, 44)), training, augmentation, CallbacksTable(), dtype, 5
    )
    folder.mkdir(exist_ok=True)
    return network, fit(network, task, folder, Watch(lambda row: None, say=told.append)), told


@pytest.mark.parametrize("trainable", ["head", "stage2", "stage3"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_without_augmentation_features_give_the_training_that_slices_give(
    tmp_path: Path, trainable: str, dtype: torch.dtype
) -> None:
    still = AugmentTable()
    network, fast, told = trained(tmp_path / "a", still, dtype, trainable=trainable)
    slow_network, slow, told_slow = trained(tmp_path / "b", still, dtype, trainable=trainable, feature_views=0)
    assert any("computed once (one view" in line for line in told)
    assert not told_slow
    near = {"rtol": 1e-3, "atol": 1e-4} if dtype == torch.float32 else {"rtol": 0.1, "atol": 0.05}
    for mine, theirs in zip(fast.history, slow.history, strict=True):
        np.testing.assert_allclose([mine.loss, mine.val_loss], [theirs.loss, theirs.val_loss], **near)
    start = classifier()
    frozen = {weight.path for layer in frozen_layers(start, trainable) for weight in layer.weights}
    moved = 0.0
    for mine, theirs, before in zip(
        network.model.weights, slow_network.model.weights, start.model.weights, strict=True
    ):
        np.testing.assert_allclose(mine.numpy(), theirs.numpy(), **near)
        if before.path in frozen:
            np.testing.assert_array_equal(mine.numpy(), before.numpy())
        else:
            moved = max(moved, float(np.abs(mine.numpy() - before.numpy()).max()))
    assert moved > 0.01


def test_epochs_go_through_the_views_in_turn(tmp_path: Path) -> None:
    """With a rate of zero nothing moves: epochs of one view have the loss of that view, bit for bit but for order."""
    values = {"trainable": "head", "learning_rate": 1e-12, "epochs": 5, "feature_views": 2}
    _, fitted, told = trained(tmp_path, MOVED, **values)
    losses = [row.loss for row in fitted.history]
    assert losses[0] == pytest.approx(losses[2], abs=1e-6) == pytest.approx(losses[4], abs=1e-6)
    assert losses[1] == pytest.approx(losses[3], abs=1e-6)
    assert abs(losses[0] - losses[1]) > 1e-4
    assert any("2 augmented views" in line for line in told)


def test_no_more_views_than_epochs(tmp_path: Path) -> None:
    assert any("2 augmented views" in line for line in trained(tmp_path, MOVED, trainable="head", epochs=2)[2])


def test_features_take_their_time_in_the_first_epoch(tmp_path: Path) -> None:
    done: list[tuple[int, int]] = []
    network, (all_slices, _) = classifier(), slices()
    store = store_of(all_slices, np.arange(44), CPU)
    frozen = frozen_of(network, MOVED)
    views = feature_stores(frozen, store, store, 2)
    assert views
    work = Features(frozen, store, views[:2], store, views[2], lambda number, total: done.append((number, total)))
    assert not done
    work.on_epoch_begin(0)
    assert done[-1] == (132, 132)
    work.on_epoch_begin(1)
    assert done[-1] == (132, 132)  # nothing is computed again
    rows = torch.arange(44)
    plain = frozen.program(torch.from_numpy(all_slices[np.arange(44)]).float().expand(-1, -1, -1, 3))
    torch.testing.assert_close(views[2].take(rows), plain, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(views[0].take(rows), views[1].take(rows))


def frozen_of(network: Classifier, augmentation: AugmentTable | None = None) -> Frozen:
    for layer in frozen_layers(network, "head"):
        layer.trainable = False
    parts = frozen_part(graph_of(network.logits))
    assert parts
    return Frozen(Program(parts[0], frozen=True), network.channels, augmentation, 3)


def test_where_there_is_no_room_the_trunk_runs_in_every_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "SHARE_OF_DISK", 0.0)
    _, fitted, told = trained(tmp_path, AugmentTable(), trainable="head")
    assert len(fitted.history) == 3
    assert told == ["no room to keep the outputs of the frozen part: it is computed anew in every epoch"]


def test_an_average_that_an_earlier_phase_moved_is_validated_whole(tmp_path: Path) -> None:
    phases = [{"epochs": 1, "trainable": "all"}, {"epochs": 2, "trainable": "head"}]
    *_, told = trained(tmp_path, AugmentTable(), epochs=None, phases=phases, ema=0.9)
    assert not told
    *_, told = trained(tmp_path, AugmentTable(), epochs=None, phases=phases)
    assert any("computed once" in line for line in told)


def test_compiling_what_runs_on_features_is_refused_aloud(tmp_path: Path) -> None:
    *_, told = trained(tmp_path, AugmentTable(), trainable="head", compile=True)
    assert "what runs on features is not compiled: there is little of it" in told


@pytest.mark.parametrize(
    ("trainable", "dropout", "last", "first_of_rest"),
    [
        ("head", 0.0, "pool", "logits"),
        ("head", 0.2, "pool", "dropout"),  # draws anew each step
        ("stage3", 0.0, "sum2", "conv3"),
        ("stage2", 0.0, "relu1", "conv2"),
    ],
)
def test_the_frozen_part_ends_where_training_begins(
    trainable: str, dropout: float, last: str, first_of_rest: str
) -> None:
    network = classifier(dropout)
    for layer in frozen_layers(network, trainable):
        layer.trainable = False
    parts = frozen_part(graph_of(network.logits))
    assert parts
    assert parts[0].calls[-1].layer.name == last
    assert parts[1].calls[0].layer.name == first_of_rest


@pytest.mark.parametrize("trainable", ["all", "stage1"])
def test_a_network_that_trains_from_its_first_layer_has_no_frozen_part(trainable: str) -> None:
    network = classifier()
    for layer in frozen_layers(network, trainable):
        layer.trainable = False
    assert frozen_part(graph_of(network.logits)) is None


def test_the_frozen_part_hands_one_value_on() -> None:
    """Layers between the ends of a shortcut are frozen too, but two values would have to be kept there."""
    network = classifier()
    for layer in frozen_layers(network, "stage3"):
        layer.trainable = False
    network.model.get_layer("bn2").trainable = True
    parts = frozen_part(graph_of(network.logits))
    assert parts
    assert parts[0].calls[-1].layer.name == "relu1"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_stores_give_back_what_was_written(tmp_path: Path, dtype: torch.dtype) -> None:
    values = torch.randn(10, 3, 2).to(dtype)
    mapped = features._on_disk(tmp_path, (10, 3, 2), dtype, CPU)
    resident = Resident(torch.empty(10, 3, 2, dtype=dtype))
    rows = torch.tensor([7, 1, 4])
    for store in (mapped, resident):
        features._write(store, rows, values[rows])
        assert store.take(rows).dtype == dtype
        assert torch.equal(store.take(torch.tensor([4, 7])), values[[4, 7]])
        assert len(store) == 10


def test_batches_of_a_resident_store_are_those_of_a_mapped_one() -> None:
    all_slices, labels = slices()
    places = np.array([4, 9, 2, 30, 31, 17])
    mapped = store_of(all_slices, places, CPU)
    assert isinstance(mapped, Mapped)
    resident = Resident(mapped.take(torch.arange(len(places))))
    weighed = Labels(labels[places], 2, [0.5, 2.0])
    for epoch in (0, 3):
        pairs = [Batches([store], weighed, 4, shuffle_seed=2) for store in (mapped, resident)]
        for batches in pairs:
            batches.epoch = epoch
        for step in range(2):
            for mine, theirs in zip(pairs[0][step], pairs[1][step], strict=True):
                assert torch.equal(mine, theirs)
    assert set(pairs[0][0][2].tolist()) <= {0.5, 2.0}
