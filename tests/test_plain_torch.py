"""The plain loop that runs are compared with: it learns, its figures are those of what it says, and it goes on."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn import metrics as sk

from braintumor_kit.bench.plain_loop import Part, _average, network, train
from braintumor_kit.bench.plain_torch import again, table
from braintumor_kit.commands.main import run_command_line
from braintumor_kit.contracts import InputError
from braintumor_kit.files import read_csv, read_json, write_json
from braintumor_kit.model.load import load_model
from braintumor_kit.progress import Reporter
from braintumor_kit.recipe.tables import RecipeTable
from braintumor_kit.runs import Run

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = (
    "--set=source.patients=16", "--set=source.size=64", "--set=pixels.image_size=64", "--set=training.epochs=1",
    "--set=training.precision=float32", "--set=training.batch_size=16", "--set=split.method=kfold",
    "--set=split.folds=2", "--set=explain=[]", "--set=report=false", "--set=callbacks={}",
)  # fmt: skip


def tables(**values: Any) -> RecipeTable:
    training = {
        "epochs": 6,
        "batch_size": 8,
        "learning_rate": 3e-3,
        "precision": "float32",
        **values.pop("training", {}),
    }
    plain: dict[str, Any] = {
        "source": {"name": "phantom"},
        "pixels": {"image_size": 32},
        "backbone": {"name": "resnet", "depth": 18},
        "training": training,
        **values,
    }
    return RecipeTable.model_validate(plain)


def bars(count: int) -> Part:
    """Bright bars, lying for class 0 and standing for class 1."""
    pictures = np.random.default_rng(count).integers(0, 60, (count, 32, 32, 1), dtype=np.uint8)
    labels = np.arange(count) % 2
    for picture, label in zip(pictures, labels, strict=True):
        (picture if label else picture.swapaxes(0, 1))[4:28, 14:18] = 250
    return Part(pictures, labels)


@pytest.mark.parametrize(
    "values",
    [
        {"training": {"schedule": {"name": "one_cycle"}, "optimizer": "adamw", "weight_decay": 0.01, "ema": 0.8}},
        {"training": {"class_weights": "balanced"}, "callbacks": {"reduce_lr_on_plateau": {"patience": 1}},
         "augment": {"shift": 0.05, "scale": 0.1, "rotate": 5, "contrast": 0.2, "flip_horizontal": True}},
    ],
)  # fmt: skip
def test_it_learns(values: dict[str, Any]) -> None:
    parts = {"train": bars(48), "validation": bars(16), "reported": bars(20)}
    ended = train(tables(**values), 2, parts)
    assert len(ended.val_accuracy) == 6
    assert ended.val_accuracy[ended.best - 1] == max(ended.val_accuracy)
    np.testing.assert_allclose(ended.probabilities.sum(axis=1), 1)
    assert (ended.probabilities.argmax(axis=1) == parts["reported"].labels).mean() > 0.9


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"training": {"schedule": {"name": "step"}}}, "schedule, not step"),
        ({"training": {"optimizer": "sgd"}}, "optimizer, not sgd"),
        ({"augment": {"noise": 0.1, "gamma": 0.1}}, "augmentation gamma, noise"),
        ({"training": {"trainable": "head"}}, "all layers in one phase"),
        ({"training": {"mask_weight": 0.3}}, "training.mask_weight"),
        ({"training": {"schedule": {"name": "cosine", "warmup_epochs": 1}}}, "a warm-up"),
        ({"callbacks": {"early_stopping": {}}}, "early_stopping"),
        ({"callbacks": {"reduce_lr_on_plateau": {"cooldown": 1}}}, "but for its factor"),
        ({"backbone": {"name": "efficientnet_lite0", "weights": "none"}}, 'weights other than "imagenet"'),
    ],
)
def test_what_it_does_not_know_is_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        train(tables(**values), 2, {"train": bars(8), "validation": bars(8), "reported": bars(8)})


def test_the_kept_epoch_is_the_one_that_the_recipe_selects_by() -> None:
    parts = {"train": bars(48), "validation": bars(16), "reported": bars(20)}
    said: list[str] = []
    ended = train(tables(training={"select": "val_loss", "epochs": 4}), 2, parts, said.append)
    assert len(said) == 4
    assert 1 <= ended.best <= 4


def test_the_average_is_the_one_that_btkit_has() -> None:
    mean = torch.tensor([1.0])
    average = _average(0.5)
    for count, value in ((1, 3.0), (2, 5.0)):
        mean = average(mean, torch.tensor([value]), torch.tensor(count))
    assert float(mean) == pytest.approx((1 * 2 / 11 + 3 * 9 / 11) / 4 + 5 * 3 / 4)


def test_the_lite_network_scales_pixels_and_begins_with_the_packages_weights() -> None:
    pytest.importorskip("efficientnet_lite_pytorch", reason="efficientnet-lite-pytorch is not installed")
    lite = network(tables(backbone={"name": "efficientnet_lite0"}), 3)
    assert (
        sum(weight.numel() for weight in lite.parameters()) == 4_652_008 + (3 - 1000) * 1281
    )  # published for ImageNet
    grey = lite[0](torch.full((1, 3, 2, 2), 191.0))
    assert torch.equal(grey, torch.full((1, 3, 2, 2), 0.5))


def test_folds_are_trained_again_and_a_file_that_was_left_is_gone_on_with(tmp_path: Path) -> None:
    assert run_command_line(["run", "resnet_adam", *SMALL, "--runs", str(tmp_path), "--name", "folds"]) == 0
    run, out = Run(tmp_path / "folds"), tmp_path / "plain.json"
    found = again(run, out, Reporter())
    rows = read_csv(run.folder / "predictions.csv")
    said = {id: np.argmax(row) for fold in found["folds"] for id, row in fold["said"].items()}
    assert said.keys() == {row["id"] for row in rows}
    classes = sorted({row["label"] for row in rows})
    wanted = sk.accuracy_score([classes.index(row["label"]) for row in rows], [said[row["id"]] for row in rows])
    assert found["plain"]["accuracy"] == pytest.approx(wanted)
    assert found["btkit"] == read_json(run.folder / "metrics.json")["test"]
    assert table(found).splitlines()[2].startswith(f"| accuracy | {found['btkit']['accuracy']:.4f} [")

    weights = sum(weight.numel() for weight in network(tables(), 4).parameters())
    model = load_model(run.folder / "fold-1" / "model.keras")
    assert sum(int(np.prod(weight.shape)) for weight in model.trainable_weights) == weights

    marked = {**found["folds"][0], "val_accuracy": [0.5]}
    write_json(out, {"of": found["of"], "folds": [marked]})
    second = again(run, out, Reporter())
    assert second["folds"] == [marked, found["folds"][1]]  # the first is kept, the second comes out the same
    write_json(out, {"of": {**found["of"], "data": "other"}, "folds": [marked]})
    with pytest.raises(InputError, match="is of another run"):
        again(run, out, Reporter())
