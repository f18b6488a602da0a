"""Whether two thumbnails show the same picture: laid on each other, and compared.

A copy may have been cropped, stretched, recompressed and given other grey levels. Crop and stretch are a scale and a
shift along each axis, found by Gauss-Newton steps on locally normalised pictures from coarse to fine (Lucas and Kanade
1981). Grey levels are compared by the correlation of what is left when slow changes are taken away, after one
picture's levels are passed through the function that fits the other's best (the idea of the correlation ratio, Roche
et al. 1998): brightening, gamma and clipping are such functions, another slice of the same head is not.
"""

from functools import cache
from typing import NamedTuple

import torch
import torch.nn.functional as F

LEVELS = ((16, 2.5, 6), (32, 4.0, 5), (64, 6.0, 4))
"""Of the search, coarse to fine: side in pixels, deviation of the neighbourhood that is normalised, steps."""

SMOOTHING = 0.7
"""Deviation of the blur, in pixels of 64, that hides how each copy was interpolated."""

NEIGHBOURHOOD = 3.0
"""Deviation of the blur, in pixels of 64, whose result is taken away before pictures are correlated."""

KNOTS = 12
"""Of the piecewise linear function between grey levels."""

LARGEST_SCALE, LARGEST_SHIFT = 1.18, 0.15

HOPELESS = 0.80
"""Pairs that correlate less at 32 pixels are not looked at more closely."""

WORTH_A_SECOND_LOOK = 0.9
"""Pairs that correlate less are not tried the other way round: the first laid on the second suits a cropped second."""

EVIDENT = 0.985
"""Pairs that correlate this much as they are need no search."""


class Placed(NamedTuple):
    """Where pictures lie on others: columns, rows = scale x (columns, rows) + shift, in -1..1; (N, 4)."""

    parameters: torch.Tensor

    @classmethod
    def identity(cls, count: int) -> "Placed":
        return cls(torch.tensor([1.0, 1.0, 0.0, 0.0]).repeat(count, 1))


def similarity(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """How much pairs of thumbnails (N, 64, 64) in 0..255 show the same picture, (N,), 1 where they do."""
    everywhere = torch.ones_like(first)
    scores = _correlation(_blurred(first, SMOOTHING), _blurred(second, SMOOTHING), everywhere, NEIGHBOURHOOD)
    scores = scores.clamp(min=0)
    for one, other, least in ((first, second, 0.0), (second, first, WORTH_A_SECOND_LOOK)):
        rest = torch.nonzero((scores < EVIDENT) & (scores >= least))[:, 0]
        if len(rest):
            scores[rest] = torch.maximum(scores[rest], _searched(one[rest], other[rest]))
    return scores


def _searched(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """The same after one was brought to lie on the other."""
    placed = Placed.identity(len(first))
    for level in LEVELS[:-1]:
        placed = _refined(first, second, placed, level)
    coarse = LEVELS[-2][0]
    warped, overlap = _warped(_shrunk(first, coarse), placed)
    one, other = _blurred(warped, SMOOTHING), _blurred(_shrunk(second, coarse), SMOOTHING)
    scores = _correlation(one, other, overlap, NEIGHBOURHOOD)
    hopeful = torch.nonzero(scores >= HOPELESS)[:, 0]
    scores = scores.clamp(max=HOPELESS)
    if len(hopeful):
        one, other = first[hopeful], second[hopeful]
        placed = _refined(one, other, Placed(placed.parameters[hopeful]), LEVELS[-1])
        scores[hopeful] = _likeness(one, other, placed)
    return scores


def _likeness(first: torch.Tensor, second: torch.Tensor, placed: Placed) -> torch.Tensor:
    """Correlation of placed pictures, at its best among: as they are, and either's levels fitted to the other's."""
    warped, overlap = _warped(first, placed)
    pairs = ((warped, second), (_fitted(warped, second, overlap), second), (warped, _fitted(second, warped, overlap)))
    smooth = [(_blurred(one, SMOOTHING), _blurred(other, SMOOTHING)) for one, other in pairs]
    return torch.stack([_correlation(*pair, overlap, NEIGHBOURHOOD) for pair in smooth]).amax(dim=0)


def _refined(first: torch.Tensor, second: torch.Tensor, placed: Placed, level: tuple[int, float, int]) -> Placed:
    side, deviation, steps = level
    one = _normalised(_shrunk(first, side), deviation)
    other = _normalised(_shrunk(second, side), deviation)
    for _ in range(steps):
        placed = _step(one, other, placed)
    return placed


def _step(first: torch.Tensor, second: torch.Tensor, placed: Placed) -> Placed:
    """One Gauss-Newton step on the squared difference, with the gain between the two fitted along."""
    scale = placed.parameters[:, :2, None, None]
    warped, overlap = _warped(first, placed)
    side = warped.shape[-1]
    across, down = torch.zeros_like(warped), torch.zeros_like(warped)
    across[:, :, 1:-1] = (warped[:, :, 2:] - warped[:, :, :-2]) * (side / 4)
    down[:, 1:-1] = (warped[:, 2:] - warped[:, :-2]) * (side / 4)
    across, down = across / scale[:, 0], down / scale[:, 1]
    gain = ((warped * second * overlap).sum((1, 2)) / ((warped * warped * overlap).sum((1, 2)) + 1e-6)).clamp(0.2, 5)
    centres = _centres(side)
    slopes = torch.stack([across * centres, down * centres[:, None], across, down], dim=1)
    jacobian = (slopes * (overlap * gain[:, None, None])[:, None]).flatten(2)
    residual = ((second - gain[:, None, None] * warped) * overlap).flatten(1)
    normal = jacobian @ jacobian.transpose(1, 2)
    damping = 1e-3 * normal.diagonal(dim1=1, dim2=2).mean(dim=1) + 1e-6
    change = torch.linalg.solve(normal + damping[:, None, None] * torch.eye(4), jacobian @ residual[..., None])
    parameters = placed.parameters + change[..., 0].clamp(-0.05, 0.05)
    parameters[:, :2].clamp_(2 - LARGEST_SCALE, LARGEST_SCALE)
    parameters[:, 2:].clamp_(-LARGEST_SHIFT, LARGEST_SHIFT)
    return Placed(parameters)


def _fitted(source: torch.Tensor, target: torch.Tensor, overlap: torch.Tensor) -> torch.Tensor:
    """`source` with its grey levels passed through the piecewise linear function that fits `target` best."""
    place = (source.flatten(1) * ((KNOTS - 1) / 255)).clamp(0, KNOTS - 1 - 1e-4)
    knot = place.long()
    share = (place - knot)[..., None]
    hats = torch.zeros(*place.shape, KNOTS)
    hats.scatter_(2, knot[..., None], 1 - share)
    hats.scatter_add_(2, knot[..., None] + 1, share)
    weighted = (hats * overlap.flatten(1)[..., None]).transpose(1, 2)
    differences = torch.eye(KNOTS)[:-1] - torch.eye(KNOTS)[1:]
    smooth = torch.eye(KNOTS) + 5 * differences.T @ differences  # ties levels that hardly occur to their neighbours
    values = torch.linalg.solve(weighted @ hats + smooth, weighted @ target.flatten(1)[..., None])
    return (hats @ values)[..., 0].reshape(source.shape)


def _correlation(first: torch.Tensor, second: torch.Tensor, overlap: torch.Tensor, deviation: float) -> torch.Tensor:
    """Of what blurring takes away from two pictures, over their overlap."""
    details = []
    for picture in (first, second):
        detail = picture - _blurred(picture, deviation)
        mean = (detail * overlap).sum((1, 2)) / overlap.sum((1, 2)).clamp(min=1)
        details.append((detail - mean[:, None, None]) * overlap)
    one, other = details
    return (one * other).sum((1, 2)) / (one.norm(dim=(1, 2)) * other.norm(dim=(1, 2)) + 1e-3)


def _warped(pictures: torch.Tensor, placed: Placed) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures sampled where they are placed, and 1 where that lies inside of them."""
    side = pictures.shape[-1]
    centres = _centres(side)
    columns = placed.parameters[:, 0, None] * centres + placed.parameters[:, 2, None]
    rows = placed.parameters[:, 1, None] * centres + placed.parameters[:, 3, None]
    shape = (len(pictures), side, side)
    grid = torch.stack([columns[:, None, :].expand(shape), rows[:, :, None].expand(shape)], dim=-1)
    warped = F.grid_sample(pictures[:, None], grid, padding_mode="border", align_corners=False)[:, 0]
    return warped, ((columns.abs() <= 1)[:, None, :] & (rows.abs() <= 1)[:, :, None]).float()


def _centres(side: int) -> torch.Tensor:
    """Of the pixels along an axis, in -1..1."""
    return (torch.arange(side) + 0.5) * (2 / side) - 1


def _shrunk(pictures: torch.Tensor, side: int) -> torch.Tensor:
    return F.interpolate(pictures[:, None], size=(side, side), mode="area")[:, 0]


def _normalised(pictures: torch.Tensor, deviation: float) -> torch.Tensor:
    """Each pixel's difference from its neighbourhood's mean over the neighbourhood's deviation."""
    detail = pictures - _blurred(pictures, deviation)
    return detail / (_blurred(detail * detail, deviation).sqrt() + 4)


def _blurred(pictures: torch.Tensor, deviation: float) -> torch.Tensor:
    """Gaussian blur of (N, S, S), edges repeated: a product with one matrix a side."""
    matrix = _blur_matrix(pictures.shape[-1], deviation)
    return matrix @ pictures @ matrix.T


@cache
def _blur_matrix(side: int, deviation: float) -> torch.Tensor:
    """What each pixel of a line takes from each, (side, side)."""
    radius = max(1, int(3 * deviation + 0.5))
    offsets = torch.arange(-radius, radius + 1)
    weights = torch.exp(-0.5 * (offsets / deviation) ** 2)
    matrix = torch.zeros(side, side)
    for place in range(side):
        matrix[place].index_add_(0, (place + offsets).clamp(0, side - 1), weights / weights.sum())
    return matrix
