"""Tumour masks as a teacher: the term by hand, masks that move with their slices, and what a network learns of it."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from small_runs import TINY
from torch import Tensor

from braintumor_kit.data.cache import Slices
from braintumor_kit.files import read_csv
from braintumor_kit.model.build import Classifier, build_classifier
from braintumor_kit.model.fast import Program
from braintumor_kit.recipe.tables import AugmentTable, CallbacksTable, TrainingTable
from braintumor_kit.training.augment import augmented_with_masks, prepared
from braintumor_kit.training.batches import Batches, Labels
from braintumor_kit.training.fit import fit
from braintumor_kit.training.guidance import GRID, Guidance
from braintumor_kit.training.randomness import seed_everything
from braintumor_kit.training.store import store_of
from braintumor_kit.training.task import Task, Watch

pytestmark = pytest.mark.usefixtures("one_thread")

SIDE = 32


def even(size: int, cells: int) -> Tensor:
    """Each cell stands for as many rows of the picture."""
    return torch.eye(cells).repeat_interleave(size // cells, dim=0)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def test_the_term_by_hand() -> None:
    """Two cells by two over a picture of four by four; one channel, so that evidence is weight times activation."""
    masks = torch.zeros(3, 1, 4, 4)
    masks[0, 0, :2, :2] = 1.0  # the whole of the first cell
    masks[0, 0, 2, 2] = 1.0  # a quarter of the last
    masks[1, 0, 0, 3] = 1.0  # a quarter of the second: the most that any cell has
    activations = torch.tensor([[1.0, 2.0, 0.0, 3.0], [0.5, 4.0, 1.0, 0.0], [1.0, 1.0, 1.0, 9.0]]).reshape(3, 2, 2, 1)
    weights = torch.tensor([[2.0], [-1.0], [1.0]])
    guidance = Guidance(torch.zeros(3, GRID, GRID, dtype=torch.uint8), even(4, 2), even(4, 2), weight=0.5)
    evidence = [[math.exp(2 * a) for a in (1, 2, 0, 3)], [math.exp(-a) for a in (0.5, 4, 1, 0)]]
    first = (evidence[0][0] + evidence[0][3] / 4) / sum(evidence[0])
    second = evidence[1][1] / sum(evidence[1])
    wanted = -0.5 * (math.log(first) + math.log(second) + 0) / 3  # the third has no mask
    assert float(guidance.term(activations, masks, weights)) == pytest.approx(wanted, rel=1e-4)


def test_evidence_on_the_tumour_costs_nothing_and_elsewhere_is_drawn_there() -> None:
    masks = torch.zeros(1, 1, 4, 4)
    masks[0, 0, :2, :2] = 1.0
    guidance = Guidance(torch.zeros(1, GRID, GRID, dtype=torch.uint8), even(4, 2), even(4, 2), weight=1.0)
    weights = torch.ones(1, 1)
    there = torch.tensor([50.0, 0, 0, 0]).reshape(1, 2, 2, 1)
    assert float(guidance.term(there, masks, weights)) == pytest.approx(0, abs=1e-6)
    elsewhere = torch.tensor([0, 0, 0, 5.0]).reshape(1, 2, 2, 1).requires_grad_()
    (gradient,) = torch.autograd.grad(guidance.term(elsewhere, masks, weights), elsewhere)
    assert gradient[0, 0, 0] < 0 < gradient[0, 1, 1]  # descending it moves evidence over


def test_without_masks_there_is_neither_term_nor_gradient() -> None:
    guidance = Guidance(torch.zeros(2, GRID, GRID, dtype=torch.uint8), even(4, 2), even(4, 2), weight=1.0)
    activations = torch.randn(2, 2, 2, 3, requires_grad=True)
    term = guidance.term(activations, torch.zeros(2, 1, 4, 4), torch.randn(2, 3))
    assert float(term.detach()) == 0
    assert not torch.autograd.grad(term, activations)[0].any()


def test_cells_outside_of_the_picture_do_no_harm() -> None:
    """As a trunk that pads first has them: a row of cells to which no row of the picture counts."""
    down = torch.cat([torch.zeros(4, 1), even(4, 2)], dim=1)
    guidance = Guidance(torch.zeros(1, GRID, GRID, dtype=torch.uint8), down, even(4, 2), weight=1.0)
    masks = torch.zeros(1, 1, 4, 4)
    masks[0, 0, 0, 0] = 1.0
    activations = torch.randn(1, 3, 2, 1, generator=generator()).requires_grad_()
    term = guidance.term(activations, masks, torch.ones(1, 1))
    (gradient,) = torch.autograd.grad(term, activations)
    assert float(term.detach()) > 0
    assert gradient.isfinite().all()
    assert gradient.any()


@pytest.mark.parametrize(
    "settings",
    [
        AugmentTable(flip_horizontal=True, flip_vertical=True),
        AugmentTable(flip_horizontal=True, rotate=40, shift=0.1, scale=0.2, contrast=0.2, noise=0.01),
        AugmentTable(),
    ],
)
def test_masks_move_with_their_slices_by_the_same_draws(settings: AugmentTable) -> None:
    random = np.random.default_rng(0)
    slices, masks = torch.zeros(24, SIDE, SIDE, 1, dtype=torch.uint8), torch.zeros(24, 1, SIDE, SIDE)
    for place in range(24):
        row, column = random.integers(4, 20, 2)
        slices[place, row : row + 7, column : column + 7] = 240
        masks[place, 0, row : row + 7, column : column + 7] = 1.0
    moved, moved_masks = augmented_with_masks(slices, masks, 3, settings, generator())
    torch.testing.assert_close(moved, prepared(slices, 3, settings, generator()))
    bright = moved[..., 0] > 120
    assert torch.equal(bright, moved_masks[:, 0] > 0.5) or (bright ^ (moved_masks[:, 0] > 0.5)).float().mean() < 0.01


# What is learned


def marked(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two classes that differ by a tumour, lying or standing, and by a mark at the border that is easier to see."""
    random = np.random.default_rng(0)
    pictures = random.integers(0, 60, (count, SIDE, SIDE, 1), dtype=np.uint8)
    masks = np.zeros((count, SIDE, SIDE), bool)
    labels = np.arange(count) % 2
    for picture, mask, label in zip(pictures, masks, labels, strict=True):
        row, column = random.integers(10, 18, 2)
        height, width = (8, 3) if label else (3, 8)
        picture[row : row + height, column : column + width] = 200
        mask[row : row + height, column : column + width] = True
        picture[:3, : 12 if label else 4] = 255
    return pictures, labels, masks


def taught(folder: Path, weight: float) -> float:
    """The share of the evidence for the right class that lies in the cells that the tumour touches, over all slices."""
    from test_training import Small  # two convolutions of stride 2: 8 by 8 cells

    from braintumor_kit.contracts import NoOptions

    seed_everything(1)
    network: Classifier = build_classifier(Small(NoOptions()), 2, SIDE)
    pictures, labels, masks = marked(64)
    train = Batches(
        [store_of(Slices(pictures, np.arange(64)), np.arange(64), torch.device("cpu"))], Labels(labels, 2), 8, 1
    )
    validation = Batches(train.stores, Labels(labels, 2), 8)
    training = TrainingTable.model_validate(
        {"epochs": 40, "batch_size": 8, "learning_rate": 1e-2, "select": "val_loss"}
    )
    small = torch.nn.functional.interpolate(torch.from_numpy(masks)[:, None].float(), (GRID, GRID), mode="area")[:, 0]
    guidance = Guidance((small * 255).to(torch.uint8), even(SIDE, 8), even(SIDE, 8), weight) if weight else None
    task = Task(train, validation, training, AugmentTable(), CallbacksTable(), torch.float32, 1, guidance)
    folder.mkdir()
    fitted = fit(network, task, folder, Watch(lambda row: None))
    assert fitted.history[fitted.best_epoch - 1].val_accuracy > 0.95
    last = network.model.get_layer("pool").input
    with torch.no_grad():
        features = Program(type(network.model)(network.model.inputs, last))(
            torch.from_numpy(pictures).float().expand(-1, -1, -1, 3)
        )
    kernel = network.logits.get_layer("logits").kernel.value.detach()
    evidence = torch.einsum("nhwc,nc->nhw", features, kernel.T[labels]).flatten(1).softmax(dim=1)
    touched = torch.nn.functional.max_pool2d(torch.from_numpy(masks)[:, None].float(), 4).flatten(1)
    return float((evidence * touched).sum(dim=1).mean())


def test_a_guided_network_finds_its_evidence_on_the_tumour(tmp_path: Path) -> None:
    plain, guided = taught(tmp_path / "plain", 0.0), taught(tmp_path / "guided", 1.0)
    assert guided > 0.8
    assert guided > plain + 0.3


# The command


def test_a_run_is_guided_and_can_be_repeated(two_layers: None, tmp_path: Path, btkit: Callable) -> None:
    wish = ("--set", "training.mask_weight=0.5")
    for name in ("one", "two"):
        ended = btkit("run", "resnet_adam", *TINY, *wish, "--runs", tmp_path, "--name", name)
        assert ended.status == 0, ended.err
        assert "training slices guide the training" in ended.err
    assert btkit("run", "resnet_adam", *TINY, "--runs", tmp_path, "--name", "plain").status == 0
    one, two, plain = (read_csv(tmp_path / name / "history.csv")[0]["loss"] for name in ("one", "two", "plain"))
    assert one == two
    assert float(one) > float(plain)


def test_a_source_without_masks_is_told(two_layers: None, tmp_path: Path, btkit: Callable) -> None:
    from PIL import Image

    for label in ("glioma", "notumor"):
        (tmp_path / "set" / label).mkdir(parents=True)
        for number in range(12):
            pixels = np.random.default_rng(number + 100 * (label == "glioma")).integers(
                0, 255, (64, 64), dtype=np.uint8
            )
            Image.fromarray(pixels).save(tmp_path / "set" / label / f"{number}.png")
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        f'[source]\nname = "image_folder"\nroot = "{tmp_path / "set"}"\n[split]\nmethod = "stratified"\n'
        '[pixels]\nimage_size = 64\n[backbone]\nname = "two_layers"\n[training]\nepochs = 1\nmask_weight = 0.5\n'
    )
    ended = btkit("run", recipe, "--runs", tmp_path / "runs")
    assert ended.status == 2
    assert "no training slice of the source 'image_folder' has one" in " ".join(ended.err.split())
    assert not (tmp_path / "runs").exists()
    swept = recipe.read_text().replace("mask_weight = 0.5\n", "[sweep.space]\ntraining.mask_weight = [0.0, 0.5]\n")
    recipe.write_text(swept)
    assert btkit("run", recipe, "--runs", tmp_path / "runs").status == 2
    assert not (tmp_path / "runs").exists()
