"""Deletion, insertion, ROAD and its imputation against values worked out by hand and a direct solution."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, diags
from scipy.sparse.linalg import spsolve
from torch import Tensor

from braintumor_kit.explanation.faithfulness import blurred, deletion_auc, insertion_auc, places, road
from braintumor_kit.explanation.imputation import impute

pytestmark = pytest.mark.usefixtures("one_thread")

FOUR = torch.tensor([[0.4, 0.3], [0.2, 0.1]])
"""Weights of four pixels in the probability of class 1 of a linear network."""


def linear(weights: Tensor) -> Callable[[Tensor], Tensor]:
    """A network of two classes whose probability of class 1 is a weighted sum of the first channel."""

    def probabilities(pictures: Tensor) -> Tensor:
        p = (pictures[..., 0] * weights / 255).sum(dim=(1, 2))
        return torch.stack([1 - p, p], dim=1)

    return probabilities


def of_class(number: int, n: int = 1) -> Tensor:
    return torch.full((n,), number)


def white(height: int, width: int) -> Tensor:
    return torch.full((1, height, width, 3), 255.0)


def test_deletion_of_four_pixels_by_hand() -> None:
    # 1, 0.6, 0.3, 0.1, 0 in the right order; 1, 0.9, 0.7, 0.4, 0 in the opposite one
    right = deletion_auc(white(2, 2), FOUR[None], of_class(1), linear(FOUR), steps=4)
    assert right.tolist() == pytest.approx([(1 / 2 + 0.6 + 0.3 + 0.1) / 4])
    wrong = deletion_auc(white(2, 2), -FOUR[None], of_class(1), linear(FOUR), steps=4)
    assert wrong.tolist() == pytest.approx([(1 / 2 + 0.9 + 0.7 + 0.4) / 4])
    other = deletion_auc(white(2, 2), FOUR[None], of_class(0), linear(FOUR), steps=4)
    assert other.tolist() == pytest.approx([1 - 1.5 / 4])
    halves = deletion_auc(white(2, 2), FOUR[None], of_class(1), linear(FOUR), steps=2)
    assert halves.tolist() == pytest.approx([(1 / 2 + 0.3) / 2])


def test_insertion_of_one_bright_pixel_by_hand() -> None:
    image, weights = torch.zeros(1, 41, 41, 1), torch.zeros(41, 41)
    image[0, 20, 20], weights[20, 20] = 255.0, 1.0
    line = np.exp(-((np.arange(-20, 21) / (41 / 20)) ** 2) / 2)
    begin = (line[20] / line.sum()) ** 2  # what the blur leaves of the pixel
    first = insertion_auc(image, weights[None], of_class(1), linear(weights), steps=10)
    assert first.tolist() == pytest.approx([(begin / 2 + 9 + 1 / 2) / 10])
    last = insertion_auc(image, -weights[None], of_class(1), linear(weights), steps=10)
    assert last.tolist() == pytest.approx([(begin * 9.5 + 1 / 2) / 10])


def test_the_blur_keeps_an_even_picture_and_each_channel() -> None:
    image = torch.tensor([10.0, 100.0, 250.0]).expand(1, 30, 20, 3)
    torch.testing.assert_close(blurred(image), image)
    lengthwise = torch.zeros(1, 40, 40, 1)
    lengthwise[0, 20] = 1.0  # a line across: blurred up and down only
    torch.testing.assert_close(blurred(lengthwise)[0, :, 0], blurred(lengthwise)[0, :, 20])
    assert blurred(lengthwise).sum() == pytest.approx(40)


def row(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)[None, None, :, None]


def test_road_of_five_pixels_by_hand() -> None:
    """In a row, an imputed pixel lies on the line between its nearest known ones."""
    image, weights = row([0, 51, 255, 102, 0]), torch.tensor([[0.0, 0, 1, 0, 0]])
    order = torch.tensor([[[0.1, 0.3, 1.0, 0.5, 0.05]]])
    # most relevant first, places 2, 3, 1, 0: (51 + 102) / 2, then 2/3 of 51, then 0 twice; least first: 255 always
    lost = (76.5 + 34 + 0 + 0) / 4 / 255
    assert road(image, order, of_class(1), linear(weights), noise=0).tolist() == pytest.approx([(1 - lost) / 2])
    assert road(image, -order, of_class(1), linear(weights), noise=0).tolist() == pytest.approx([(lost - 1) / 2])


def test_ties_do_not_favour_what_is_read_first() -> None:
    """Row by row, a constant map would lose the upper half first and score 0.25."""
    weights = torch.zeros(20, 20)
    weights[:10] = 1 / 200
    constant = torch.zeros(1, 20, 20)
    assert deletion_auc(white(20, 20), constant, of_class(1), linear(weights)).item() == pytest.approx(0.5, abs=0.03)
    assert sorted(places(constant).flatten().tolist()) == list(range(400))
    assert places(constant + 1).equal(places(constant))


def test_places_follow_the_raw_value() -> None:
    assert places(torch.tensor([[[0.5, -2.0], [3.0, 0.0]]])).tolist() == [[[1, 3], [0, 2]]]


@pytest.mark.parametrize("measure", [deletion_auc, insertion_auc, road])
def test_scores_depend_neither_on_the_batch_nor_on_how_many_go_at_once(measure: Callable[..., Tensor]) -> None:
    random = torch.Generator().manual_seed(0)
    images, maps = torch.rand(5, 12, 11, 3, generator=random) * 255, torch.rand(5, 12, 11, generator=random)
    images[1] = images[1, ..., :1]
    weights, targets = torch.rand(12, 11, generator=random) / 132, torch.tensor([0, 1, 1, 0, 1])
    network, sent = linear(weights), []

    def counted(pictures: Tensor) -> Tensor:
        sent.append(len(pictures))
        return network(pictures)

    together = measure(images, maps, targets, counted)
    assert max(sent) <= 64
    sent.clear()
    few = measure(images, maps, targets, counted, at_once=3)
    assert max(sent) == 3
    alone = [measure(images[[n]], maps[[n]], targets[[n]], network).item() for n in range(5)]
    assert together.shape == (5,)
    assert together.tolist() == pytest.approx(few.tolist(), abs=1e-4)
    assert together.tolist() == pytest.approx(alone, abs=1e-4)
    assert measure(images[:0], maps[:0], targets[:0], network).shape == (0,)


@pytest.mark.parametrize("measure", [deletion_auc, insertion_auc, road])
def test_fewer_targets_than_pictures_are_refused(measure: Callable[..., Tensor]) -> None:
    with pytest.raises(ValueError, match=r"targets \(1,\): expected \(N, H, W, C\), \(N, H, W\), \(N,\)"):
        measure(white(4, 4).expand(2, -1, -1, -1), torch.zeros(2, 4, 4), of_class(0), linear(torch.ones(4, 4)))


def test_one_missing_pixel_by_hand() -> None:
    image = torch.tensor([[1.0, 2, 3], [4, 5, 6], [7, 8, 100]])[None, ..., None]

    def without(place: int) -> float:
        keep = torch.arange(9).view(1, 3, 3) != place
        return impute(image, keep, noise=0).flatten()[place].item()

    assert without(4) == pytest.approx((2 + 4 + 6 + 8) / 6 + (1 + 3 + 7 + 100) / 12, rel=1e-4)
    assert without(0) == pytest.approx((2 * 2 + 2 * 4 + 5) / 5, rel=1e-4)  # 1/6, 1/6 and 1/12 of 5/12
    assert without(1) == pytest.approx((2 * (1 + 3 + 5) + 4 + 6) / 8, rel=1e-4)


def solved_directly(image: NDArray[np.float32], keep: NDArray[np.bool_]) -> NDArray[np.float64]:
    """One channel imputed by a sparse direct solver."""
    pixels = np.argwhere(np.ones_like(keep))
    offset = pixels[:, None] - pixels[None]
    near = (np.abs(offset).max(axis=2) == 1) * np.where(np.abs(offset).sum(axis=2) == 1, 1 / 6, 1 / 12)
    system = diags(near.sum(axis=1)) - csr_matrix(near)
    gone, filled = ~keep.ravel(), image.ravel().astype(float)
    filled[gone] = spsolve(system[gone][:, gone].tocsc(), -(system[gone][:, ~gone] @ filled[~gone]))
    return filled.reshape(image.shape)


def holes(height: int, width: int) -> dict[str, NDArray[np.bool_]]:
    """Masks with 20 to 95 % removed: scattered, one block, all but a corner."""
    random = np.random.default_rng(1)
    block, corner = np.ones((height, width), bool), np.zeros((height, width), bool)
    block[2 : height - 3, 3:] = False
    corner[: height // 4, : width // 4] = True
    return {
        "few": random.random((height, width)) < 0.8,
        "many": random.random((height, width)) < 0.05,
        "block": block,
        "corner": corner,
    }


@pytest.mark.parametrize(("height", "width"), [(32, 32), (33, 21), (9, 40), (5, 5)])
def test_imputation_agrees_with_a_direct_solution(height: int, width: int) -> None:
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (height, width, 3)).astype(np.float32)
    masks = holes(height, width)
    keep = torch.tensor(np.stack(list(masks.values())))
    found = impute(torch.tensor(image).expand(len(keep), -1, -1, -1), keep, noise=0).numpy()
    for name, mask, filled in zip(masks, masks.values(), found, strict=True):
        np.testing.assert_array_equal(filled[mask], image[mask])
        for channel in range(3):
            expected = solved_directly(image[..., channel], mask)
            np.testing.assert_allclose(filled[..., channel], expected, atol=0.255, err_msg=name)


def test_a_large_hole_is_filled() -> None:
    """Between a black and a white edge at a distance of 222 pixels values rise evenly: a direct solution by hand."""
    keep = torch.zeros(1, 40, 224, dtype=torch.bool)
    keep[..., 0] = keep[..., -1] = True
    image = (torch.linspace(0, 255, 224) * keep)[..., None]
    expected = torch.linspace(0, 255, 224).expand(40, -1)
    assert (impute(image, keep, noise=0)[0, ..., 0] - expected).abs().max() < 0.255


def test_a_filling_does_not_depend_on_the_others_of_its_batch() -> None:
    """The easy picture stops when it is done, though the hard one beside it goes on."""
    images = torch.rand(2, 64, 64, 1, generator=torch.Generator().manual_seed(0)) * 255
    keep = torch.zeros(2, 64, 64, dtype=torch.bool)
    keep[0, ::2] = keep[1, 10, 5] = keep[1, 50, 60] = True
    torch.testing.assert_close(impute(images, keep)[0], impute(images[:1], keep[:1])[0], atol=1e-4, rtol=0)


def test_nothing_left_gives_the_mean() -> None:
    image = torch.arange(75.0).view(1, 5, 5, 3)
    filled = impute(image, torch.zeros(1, 5, 5, dtype=torch.bool), noise=0)
    torch.testing.assert_close(filled, image.mean(dim=(1, 2), keepdim=True).expand_as(image))
    assert impute(image, torch.zeros(1, 5, 5, dtype=torch.bool)).isfinite().all()


def test_noise_has_its_deviation_only_where_pixels_are_removed_and_keeps_grey_grey() -> None:
    image, keep = torch.full((2, 64, 64, 3), 100.0), torch.zeros(2, 64, 64, dtype=torch.bool)
    keep[:, :8] = True
    noisy = impute(image, keep, noise=4.0)
    assert noisy[:, 8:].std().item() == pytest.approx(4.0, rel=0.05)
    assert (noisy[:, :8] == 100).all()
    assert noisy[..., 0].equal(noisy[..., 2])
    assert noisy[0].equal(noisy[1])
    assert not impute(image, keep, noise=4.0, seed=1).equal(noisy)


def test_masks_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"masks \(1, 4, 5\): expected"):
        impute(white(4, 4), torch.ones(1, 4, 5, dtype=torch.bool))
