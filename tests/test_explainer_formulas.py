"""Explainers on a model whose every answer is known, against their formulas worked out pixel by pixel: pictures that
are not square, batches of unlike pictures, and options other than the defaults."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from btkit_plugins.explainers import gradcampp, occlusion
from btkit_plugins.explainers.eigencam import EigenCam
from btkit_plugins.explainers.guided_gradcam import GuidedGradCam
from btkit_plugins.explainers.integrated_gradients import IntegratedGradients
from btkit_plugins.explainers.layercam import LayerCam
from btkit_plugins.explainers.occlusion import Occlusion
from btkit_plugins.explainers.rise import Rise
from btkit_plugins.explainers.scorecam import ScoreCam
from btkit_plugins.explainers.smoothgrad import SmoothGrad
from torch import Tensor

HEIGHT, WIDTH = 6, 10
IMAGES = 20 + 200 * torch.rand(2, HEIGHT, WIDTH, 3, generator=torch.Generator().manual_seed(3))
IMAGES[1] *= 0.5  # another range
TARGETS = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
A = torch.rand(2, 4, 3, 5, generator=torch.Generator().manual_seed(4)) - 0.3
G = torch.rand(2, 4, 3, 5, generator=torch.Generator().manual_seed(5)) - 0.5


class Known:
    """y_c = sum over pixels of w_c x^3 / 3, so that dy/dx = w_c x^2; a layer of known activations and gradients."""

    batch_size = 2
    w = torch.linspace(-1, 2, 2 * HEIGHT * WIDTH * 3).reshape(2, HEIGHT, WIDTH, 3) * 1e-6

    def logits(self, images: Tensor) -> Tensor:
        return torch.einsum("nhwc,khwc->nk", images**3 / 3, self.w)

    def gradients(self, images: Tensor, targets: Tensor, guided: bool = False) -> tuple[Tensor, Tensor]:
        scale = 2 if guided else 1
        return scale * images**2 * torch.einsum("nk,khwc->nhwc", targets, self.w), self.logits(images)

    def activations(self, images: Tensor) -> Tensor:
        assert images is IMAGES
        return A

    def activations_and_gradients(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        assert images is IMAGES
        assert targets is TARGETS
        return A, G, self.logits(images)

    def enlarge(self, maps: Tensor, size: tuple[int, int]) -> Tensor:
        return F.interpolate(maps[:, None], size)[:, 0]  # each cell becomes two by two pixels


def maps_of(plugin: Any, model: Any = None, **options: Any) -> Any:
    return plugin(plugin.Options(**options)).maps(model or Known(), IMAGES, TARGETS)


def enlarged(cells: np.ndarray) -> np.ndarray:
    return np.repeat(np.repeat(cells, 2, axis=0), 2, axis=1)


def test_smoothgrad_is_the_mean_gradient_of_noisy_copies() -> None:
    draws = torch.Generator().manual_seed(11)
    noise = [torch.randn(HEIGHT, WIDTH, generator=draws).numpy() for _ in range(3)]
    found = maps_of(SmoothGrad, samples=3, noise=0.2, seed=11).numpy()
    for n, (image, w) in enumerate(zip(IMAGES.numpy(), Known.w.numpy(), strict=True)):
        reach = image.max() - image.min()
        noisy = [image + 0.2 * reach * one[..., None] for one in noise]
        expected = np.abs(np.mean([w * copy**2 for copy in noisy], axis=0).sum(axis=2))
        np.testing.assert_allclose(found[n], expected, rtol=1e-4)


def test_smoothgrad_asks_no_random_numbers_but_its_own() -> None:
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    first = maps_of(SmoothGrad, samples=2)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(1)
    assert torch.equal(maps_of(SmoothGrad, samples=2), first)


@pytest.mark.parametrize("channels", [0, 2])
def test_scorecam_weighs_each_channel_by_the_picture_that_it_lets_through(channels: int) -> None:
    found = maps_of(ScoreCam, channels=channels).numpy()
    model = Known()
    for n in range(2):
        a = A[n].numpy()
        kept = sorted(range(4), key=lambda k: -a[k].var())[: channels or 4]
        scores = []
        for k in kept:
            mask = enlarged((a[k] - a[k].min()) / (a[k].max() - a[k].min()))
            masked = IMAGES[n].numpy() * mask[..., None]
            scores.append(model.logits(torch.tensor(masked)[None])[0, n].item())
        weights = np.exp(scores) / np.exp(scores).sum()
        expected = np.maximum(sum(w * a[k] for w, k in zip(weights, kept, strict=True)), 0)
        np.testing.assert_allclose(found[n], expected, rtol=1e-3, atol=1e-6)


def test_scorecam_of_one_constant_channel_is_nothing() -> None:
    model = Known()
    model.activations = lambda images: torch.ones(2, 1, 3, 5)  # type: ignore[method-assign]
    assert maps_of(ScoreCam, model).tolist() == torch.zeros(2, 3, 5).tolist()


def test_rise_masks_are_grids_enlarged_and_shifted() -> None:
    """p is computed for each mask of section 3.2, drawn here once more."""
    draws = torch.Generator().manual_seed(5)
    model, expected = Known(), np.zeros((2, HEIGHT, WIDTH))
    for _ in range(4):
        grid = (torch.rand(4, 4, generator=draws) < 0.3).float().numpy()
        down, right = 2, 4  # 6 pixels in 3 cells, 10 in 3 (rounded up)
        large = np.array([[_between(grid, (i + 0.5) / down - 0.5, (j + 0.5) / right - 0.5) for j in range(4 * right)]
                          for i in range(4 * down)])  # fmt: skip
        top, left = (int(torch.randint(side, (1,), generator=draws)) for side in (down, right))
        mask = large[top : top + HEIGHT, left : left + WIDTH]
        scores = model.logits(IMAGES * torch.tensor(mask, dtype=torch.float32)[..., None]).numpy()
        p = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
        for n in range(2):
            expected[n] += p[n, n] * mask / (0.3 * 4)
    found = maps_of(Rise, masks=4, cells=3, shown=0.3, seed=5).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def _between(grid: np.ndarray, row: float, column: float) -> float:
    """Bilinear, at the border the nearest."""
    row, column = min(max(row, 0), len(grid) - 1), min(max(column, 0), len(grid[0]) - 1)
    i, j = min(int(row), len(grid) - 2), min(int(column), len(grid[0]) - 2)
    down, right = row - i, column - j
    above = grid[i, j] * (1 - right) + grid[i, j + 1] * right
    below = grid[i + 1, j] * (1 - right) + grid[i + 1, j + 1] * right
    return float(above * (1 - down) + below * down)


def test_occlusion_of_a_batch_is_that_of_each_picture() -> None:
    found = maps_of(Occlusion, patch=0.4, stride=0.5).numpy()
    model = Known()
    rows, columns = (2, range(0, 5)), (4, (0, 2, 4, 6))  # 0.4 of 6 and of 10 pixels; steps of 1 and of 2
    for n in range(2):
        total, count = np.zeros((HEIGHT, WIDTH)), np.zeros((HEIGHT, WIDTH))
        before = model.logits(IMAGES[n : n + 1])[0, n].item()
        for top in rows[1]:
            for left in columns[1]:
                covered = IMAGES[n : n + 1].clone()
                covered[:, top : top + 2, left : left + 4] = 0
                total[top : top + 2, left : left + 4] += before - model.logits(covered)[0, n].item()
                count[top : top + 2, left : left + 4] += 1
        np.testing.assert_allclose(found[n], total / count, rtol=2e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("patch", "stride", "length", "expected"),
    [
        (0.2, 0.5, 20, [0, 2, 4, 6, 8, 10, 12, 14, 16]),
        (0.3, 1.0, 10, [0, 3, 6, 7]),  # the last ends at the border
        (0.4, 0.5, 10, [0, 2, 4, 6]),
        (1.0, 0.5, 10, [0]),
        (0.01, 0.5, 4, [0, 1, 2, 3]),
    ],
)
def test_where_patches_begin(patch: float, stride: float, length: int, expected: list[int]) -> None:
    assert occlusion._places(length, Occlusion.Options(patch=patch, stride=stride)) == expected


@pytest.mark.parametrize("rule", ["gauss_legendre", "trapezoid"])
@pytest.mark.parametrize("size", [1e-6, 1.0, 1e3])
def test_integrated_gradients_ask_for_the_rule_and_tell_what_is_missing(rule: str, size: float) -> None:
    """The points of the path are those of the rule; the completeness is relative, however small the change."""
    asked: list[Tensor] = []

    def path_gradients(start: Tensor, end: Tensor, targets: Tensor, nodes: Tensor, weights: Tensor) -> Any:
        asked.extend((nodes, weights))
        sums = (end - start).sum(dim=(1, 2, 3))
        return torch.full_like(end, size), torch.zeros(2), 1.25 * size * sums

    given = maps_of(IntegratedGradients, SimpleNamespace(path_gradients=path_gradients), rule=rule, steps=3)
    third = 0.5 * (1 - np.sqrt(3 / 5))  # of Legendre's polynomial of degree three, on 0..1
    nodes = [third, 0.5, 1 - third] if rule == "gauss_legendre" else [0, 0.5, 1]
    weights = [5 / 18, 8 / 18, 5 / 18] if rule == "gauss_legendre" else [0.25, 0.5, 0.25]
    np.testing.assert_allclose(asked[0], nodes, atol=1e-7)
    np.testing.assert_allclose(asked[1], weights, atol=1e-7)
    np.testing.assert_allclose(given.completeness, [0.2, 0.2], rtol=1e-4)  # a quarter of 1 is a fifth of 1.25
    np.testing.assert_allclose(given.values, size * IMAGES.sum(dim=3), rtol=1e-5)


def test_methods_on_a_layer_ask_for_these_images_and_targets() -> None:
    a, g = A.numpy(), G.numpy()
    np.testing.assert_allclose(maps_of(LayerCam), np.maximum((np.maximum(g, 0) * a).sum(axis=1), 0), rtol=1e-5)
    assert maps_of(gradcampp.GradCamPlusPlus).shape == (2, 3, 5)
    assert maps_of(EigenCam).shape == (2, 3, 5)


def test_guided_gradcam_is_the_region_times_the_guided_detail() -> None:
    found = maps_of(GuidedGradCam).numpy()
    for n in range(2):
        region = np.maximum((G[n].mean(dim=(1, 2)).numpy()[:, None, None] * A[n].numpy()).sum(axis=0), 0)
        detail = np.abs((2 * IMAGES[n].numpy() ** 2 * Known.w[n].numpy()).sum(axis=2))
        np.testing.assert_allclose(found[n], detail * enlarged(region), rtol=1e-4, atol=1e-6)
