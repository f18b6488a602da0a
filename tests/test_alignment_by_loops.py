"""Alignment once more, picture by picture in NumPy and SciPy at double precision: each step, and the whole."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, map_coordinates

from braintumor_kit.matching import alignment
from braintumor_kit.matching.alignment import Placed, similarity

Picture = NDArray[np.float64]

PLACED = np.array([[1.0, 1.0, 0.0, 0.0], [1.05, 0.93, 0.04, -0.06], [0.88, 1.12, -0.11, 0.09]])
"""Scale of columns and rows, shift of columns and rows, of the first three pairs of a case."""


def head(seed: int) -> Picture:
    """Structure of three sizes in an ellipse, (64, 64)."""
    random = np.random.default_rng(seed)
    inside = sum(size * gaussian_filter(random.normal(size=(64, 64)), size) for size in (1.5, 3, 7))
    rows, columns = np.indices((64, 64)) / 31.5 - 1
    grey = (100 + 40 * inside / np.std(inside)) * (np.hypot(rows / 0.85, columns / 0.75) < 1)
    return np.clip(gaussian_filter(grey, 0.7), 0, 255)


def sampled(picture: Picture, placed: NDArray[np.float64]) -> tuple[Picture, Picture]:
    """The picture where it is placed, and 1 where that lies inside of it."""
    side = len(picture)
    centres = (2 * np.arange(side) + 1) / side - 1
    columns, rows = placed[0] * centres + placed[2], placed[1] * centres + placed[3]
    where = np.meshgrid(((rows + 1) * side - 1) / 2, ((columns + 1) * side - 1) / 2, indexing="ij")
    inside = (np.abs(rows) <= 1)[:, None] & (np.abs(columns) <= 1)
    return map_coordinates(picture, where, order=1, mode="nearest"), inside.astype(float)


def blurred(picture: Picture, deviation: float) -> Picture:
    return gaussian_filter(picture, deviation, mode="nearest", radius=int(3 * deviation + 0.5))


def shrunk(picture: Picture, side: int) -> Picture:
    by = 64 // side
    return picture.reshape(side, by, side, by).mean(axis=(1, 3))


def normalised(picture: Picture, deviation: float) -> Picture:
    detail = picture - blurred(picture, deviation)
    return detail / (np.sqrt(blurred(detail**2, deviation)) + 4)


def correlation(first: Picture, second: Picture, overlap: Picture) -> float:
    """Of what a blur of 3 pixels takes away, where the two overlap."""
    one, other = ((picture - blurred(picture, 3.0))[overlap > 0] for picture in (first, second))
    one, other = one - one.sum() / max(len(one), 1), other - other.sum() / max(len(other), 1)
    return float((one * other).sum() / (np.sqrt((one**2).sum()) * np.sqrt((other**2).sum()) + 1e-3))


def step(first: Picture, second: Picture, placed: NDArray[np.float64]) -> NDArray[np.float64]:
    """Pixel by pixel: how the difference changes with each of the four numbers, and the damped normal equations."""
    side = len(first)
    warped, overlap = sampled(first, placed)
    power = (warped**2 * overlap).sum() + 1e-6
    gain = min(max((warped * second * overlap).sum() / power, 0.2), 5)
    normal, right = np.zeros((4, 4)), np.zeros(4)
    for row in range(side):
        for column in range(side):
            inner_column, inner_row = 0 < column < side - 1, 0 < row < side - 1
            # a pixel is 2 / side wide, and the sampled picture is stretched by the scale
            across = (warped[row, column + 1] - warped[row, column - 1]) / (4 / side) if inner_column else 0.0
            down = (warped[row + 1, column] - warped[row - 1, column]) / (4 / side) if inner_row else 0.0
            across, down = across / placed[0], down / placed[1]
            x, y = (2 * column + 1) / side - 1, (2 * row + 1) / side - 1
            slope = gain * overlap[row, column] * np.array([across * x, down * y, across, down])
            normal += np.outer(slope, slope)
            right += slope * (second[row, column] - gain * warped[row, column]) * overlap[row, column]
    damping = 1e-3 * np.trace(normal) / 4 + 1e-6
    change = np.clip(np.linalg.solve(normal + damping * np.eye(4), right), -0.05, 0.05)
    moved = placed + change
    return np.concatenate([np.clip(moved[:2], 0.82, 1.18), np.clip(moved[2:], -0.15, 0.15)])


def fitted(source: Picture, target: Picture, overlap: Picture) -> Picture:
    """Least squares over the values at twelve knots, rows that tie neighbours and draw each to zero among them."""
    place = np.clip(source.ravel() * 11 / 255, 0, 11 - 1e-4)
    hats = np.stack([np.maximum(0, 1 - np.abs(place - knot)) for knot in range(12)], axis=1)
    inside = overlap.ravel() > 0
    ties = np.sqrt(5) * (np.eye(12)[:-1] - np.eye(12)[1:])
    left = np.concatenate([hats[inside], ties, np.eye(12)])
    right = np.concatenate([target.ravel()[inside], np.zeros(11 + 12)])
    values = np.linalg.lstsq(left, right, rcond=None)[0]
    return (hats @ values).reshape(source.shape)


def refined(
    first: Picture, second: Picture, placed: NDArray[np.float64], level: tuple[int, float, int]
) -> NDArray[np.float64]:
    side, deviation, steps = level
    one, other = (normalised(shrunk(picture, side), deviation) for picture in (first, second))
    for _ in range(steps):
        placed = step(one, other, placed)
    return placed


def likeness(first: Picture, second: Picture, placed: NDArray[np.float64]) -> float:
    warped, overlap = sampled(first, placed)
    pairs = ((warped, second), (fitted(warped, second, overlap), second), (warped, fitted(second, warped, overlap)))
    return max(correlation(blurred(one, 0.7), blurred(other, 0.7), overlap) for one, other in pairs)


def searched(first: Picture, second: Picture) -> float:
    placed = np.array([1.0, 1.0, 0.0, 0.0])
    for level in ((16, 2.5, 6), (32, 4.0, 5)):
        placed = refined(first, second, placed, level)
    warped, overlap = sampled(shrunk(first, 32), placed)
    coarse = correlation(blurred(warped, 0.7), blurred(shrunk(second, 32), 0.7), overlap)
    if coarse < 0.8:
        return coarse
    return likeness(first, second, refined(first, second, placed, (64, 6.0, 4)))


def by_loops(first: Picture, second: Picture) -> float:
    score = max(0.0, correlation(blurred(first, 0.7), blurred(second, 0.7), np.ones_like(first)))
    if score < 0.985:
        score = max(score, searched(first, second))
    if 0.9 <= score < 0.985:
        score = max(score, searched(second, first))
    return score


def moved(
    seed: int, placed: list[float], levels: Callable[[Picture], Picture] = lambda grey: grey
) -> tuple[Picture, Picture]:
    """A head, and the same placed elsewhere and in other grey levels."""
    return head(seed), np.clip(levels(sampled(head(seed), np.array(placed))[0]), 0, 255)


def mixed(seed: int, share: float) -> tuple[Picture, Picture]:
    return head(seed), (1 - share) * head(seed) + share * head(seed + 100)


PAIRS: dict[str, tuple[Picture, Picture]] = {
    "the same": moved(0, [1, 1, 0, 0]),
    "cropped": moved(1, [0.92, 0.92, 0, 0]),
    "cropped at a corner": moved(2, [0.95, 0.95, 0.05, -0.05]),
    "with a margin": moved(3, [1.08, 1.1, -0.02, 0.03]),
    "stretched": moved(4, [1.0, 0.88, 0, 0.06]),
    "brighter until it clips": moved(5, [1, 1, 0, 0], lambda grey: 1.9 * grey),
    "cropped and of another gamma": moved(6, [0.94, 0.95, 0.02, 0.03], lambda grey: 255 * (grey / 255) ** 1.8),
    "clipped below": moved(7, [1.04, 0.97, 0.02, 0], lambda grey: 1.6 * (grey - 70)),
    "inverted": moved(8, [0.97, 0.97, 0, 0], lambda grey: 255 - grey),
    "moved too far": moved(9, [1.0, 1.0, 0.22, -0.2]),
    "half another": mixed(10, 0.5),
    "a third another": mixed(11, 0.3),
    "a fifth another": mixed(12, 0.2),
    "another": (head(13), head(14)),
    "the other": (head(14), head(13)),
    "in low contrast": (head(15) * 0.1 + 80, head(15)),
    "flat": (np.full((64, 64), 90.0), head(16)),
}


def tensor(*pictures: Picture) -> torch.Tensor:
    return torch.from_numpy(np.stack(pictures)).float()


@pytest.mark.parametrize("name", PAIRS)
def test_similarity(name: str) -> None:
    first, second = PAIRS[name]
    expected = by_loops(first, second)
    assert similarity(tensor(first), tensor(second))[0] == pytest.approx(expected, abs=2e-4)


def test_pairs_at_once_are_as_pairs_alone() -> None:
    firsts, seconds = zip(*PAIRS.values(), strict=True)
    alone = [similarity(tensor(first), tensor(second))[0] for first, second in PAIRS.values()]
    np.testing.assert_allclose(similarity(tensor(*firsts), tensor(*seconds)), alone, atol=1e-4)


@pytest.mark.parametrize("side", [16, 64])
def test_a_step(side: int) -> None:
    names = ["cropped", "clipped below", "a third another"]
    firsts, seconds = ([shrunk(PAIRS[name][which], side) / 30 for name in names] for which in (0, 1))
    expected = [step(*pair, placed) for *pair, placed in zip(firsts, seconds, PLACED, strict=True)]
    found = alignment._step(tensor(*firsts), tensor(*seconds), Placed(torch.from_numpy(PLACED).float()))
    np.testing.assert_allclose(found.parameters, expected, atol=2e-6)


def test_a_step_stays_within_its_bounds() -> None:
    first, second = (shrunk(picture, 32) / 30 for picture in PAIRS["moved too far"])
    for edge in ([1.18, 0.82, 0.15, -0.15], [0.82, 1.18, -0.15, 0.15]):
        found = alignment._step(tensor(first), tensor(second), Placed(torch.tensor([edge])))
        np.testing.assert_allclose(found.parameters[0], step(first, second, np.array(edge)), atol=2e-6)


@pytest.mark.parametrize("times", [12.0, 0.05])
def test_the_gain_of_a_step_is_bounded(times: float) -> None:
    first, second = (shrunk(picture, 32) / 30 for picture in PAIRS["cropped"])
    found = alignment._step(tensor(first), tensor(times * second), Placed.identity(1))
    np.testing.assert_allclose(found.parameters[0], step(first, times * second, PLACED[0]), atol=2e-6)


def test_grey_levels_fitted() -> None:
    names = ["brighter until it clips", "cropped and of another gamma", "in low contrast"]
    firsts, seconds = zip(*(PAIRS[name] for name in names), strict=True)
    overlaps = [sampled(first, placed)[1] for first, placed in zip(firsts, PLACED, strict=True)]
    expected = [fitted(*row) for row in zip(firsts, seconds, overlaps, strict=True)]
    found = alignment._fitted(tensor(*firsts), tensor(*seconds), tensor(*overlaps))
    np.testing.assert_allclose(found, expected, atol=2e-2)


def test_normalised_pictures_and_blurs() -> None:
    pictures = [PAIRS["cropped"][0], PAIRS["in low contrast"][0]]
    for deviation in (0.2, 0.7, 2.5, 6.0):
        expected = [
            gaussian_filter(picture, deviation, mode="nearest", radius=max(1, int(3 * deviation + 0.5)))
            for picture in pictures
        ]
        np.testing.assert_allclose(alignment._blurred(tensor(*pictures), deviation), expected, atol=1e-3)
    expected = [normalised(picture, 4.0) for picture in pictures]
    np.testing.assert_allclose(alignment._normalised(tensor(*pictures), 4.0), expected, atol=1e-4)


def test_nothing_in_common_correlates_to_nothing() -> None:
    one = tensor(PAIRS["another"][0])
    assert alignment._correlation(one, one, torch.zeros_like(one), 3.0).tolist() == [0.0]
    faint = alignment._correlation(one * 1e-4, one * 1e-4, torch.ones_like(one), 3.0)
    expected = correlation(PAIRS["another"][0] * 1e-4, PAIRS["another"][0] * 1e-4, np.ones((64, 64)))
    assert expected < 0.95  # what is faint counts for less than what is the same
    assert faint[0] == pytest.approx(expected, rel=1e-3)
