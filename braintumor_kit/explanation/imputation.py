"""Noisy linear imputation (Rong et al. 2022, ROAD, arXiv 2202.00449): fills removed pixels in smoothly.

A removed pixel becomes the weighted mean of its eight neighbours, direct ones 1/6 and diagonal ones 1/12 (at the
border those that are missing drop out), and noise is added so that a network cannot tell by the smoothness alone what
was removed. A hole is one linear system, symmetric and positive definite. Conjugate gradients solve it for all pictures
together; a multigrid cycle before each step keeps it at some seven steps however large the hole (Tatebe 1993).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import conv2d, interpolate, max_pool2d, pad

NOISE = 2.55
"""Standard deviation of the noise in grey levels of 0..255: the authors' 0.01 of pictures in 0..1."""

TOLERANCE = 0.02
"""Grey levels that a multigrid cycle may still find to correct anywhere; the true error is a few times that, and below
0.1 % of the range for holes of up to 80 % of the picture (measured against a direct solution)."""

_MOST_STEPS = 100
_COARSEST = 7
_DAMPING = 0.8
_COARSEST_SWEEPS = 8
_NEIGHBOURS = ((1.0, 2.0, 1.0), (2.0, 0.0, 2.0), (1.0, 2.0, 1.0))


def impute(images: Tensor, keep: Tensor, noise: float = NOISE, seed: int = 0) -> Tensor:
    """Pictures with their removed pixels filled in.

    What a picture becomes does not depend on the others of its batch: the noise is one field for all of them, drawn
    from the seed, and the same in all channels, so that grey stays grey. A picture without any pixel left becomes its
    own mean.

    Args:
        images: float32 (N, H, W, C), 0..255.
        keep: bool (N, H, W), False where a pixel is removed.
        noise: standard deviation in grey levels, 0 for none; values may leave 0..255 by it.

    Returns:
        float32 (N, H, W, C); kept pixels as they were.

    Raises:
        ValueError: where the shapes do not fit together.
    """
    if images.ndim != 4 or keep.shape != images.shape[:3]:
        raise ValueError(
            f"images {tuple(images.shape)} and masks {tuple(keep.shape)}: expected (N, H, W, C), (N, H, W)"
        )
    if len(images) == 0:
        return images
    grey = bool((images == images[..., :1]).all())  # the same in all channels: one system instead of several
    channels = images[..., :1] if grey else images
    fields, masks = channels.permute(0, 3, 1, 2), keep[:, None].expand(-1, channels.shape[3], -1, -1)
    filled = _filled(fields.flatten(0, 1), masks.flatten(0, 1)).view_as(fields).permute(0, 2, 3, 1)
    return torch.where(keep[..., None], images, filled + noise * _noise(images, seed))


def _noise(images: Tensor, seed: int) -> Tensor:
    """Standard normal values (H, W, 1), the same on every device."""
    return torch.randn(*images.shape[1:3], 1, generator=torch.Generator().manual_seed(seed)).to(images.device)


@dataclass(frozen=True)
class _Level:
    """The system on one grid, for N fields (1, N, h, w): fields lie in the channels, where torch's grouped
    convolutions are twenty times as fast as over a batch of one channel.

    Attributes:
        unknown: 1 where a value is sought, else 0.
        total: sum of the weights of the neighbours that are inside the picture.
        smoothing: damped inverse of the diagonal, 0 where nothing is sought.
    """

    unknown: Tensor
    total: Tensor
    smoothing: Tensor

    def lacking(self, x: Tensor) -> Tensor:
        """Weighted sum of the neighbours less the share of the value itself: 0 where the equation holds."""
        return (_stencil(x, _NEIGHBOURS, 12) - self.total * x) * self.unknown


def _filled(fields: Tensor, keep: Tensor) -> Tensor:
    """Fields (N, H, W) with the values at the pixels that are not kept (N, H, W) solved for."""
    begun = torch.where(keep, fields, _means(fields, keep)[:, None, None])
    return _solved(_levels(keep), begun[None])[0]


def _means(fields: Tensor, keep: Tensor) -> Tensor:
    """Mean of the pixels kept (N,), of all pixels where none is."""
    count = keep.sum(dim=(1, 2))
    return torch.where(count > 0, (fields * keep).sum(dim=(1, 2)) / count.clamp_min(1), fields.mean(dim=(1, 2)))


def _levels(keep: Tensor) -> list[_Level]:
    """Grids of half the size each, rounded up. A coarse pixel is sought where all of its fine ones are."""
    levels = [_level((~keep).float()[None])]
    while min(levels[-1].unknown.shape[2:]) > _COARSEST:
        levels.append(_level(-max_pool2d(-levels[-1].unknown, 2, ceil_mode=True)))
    return levels


def _level(unknown: Tensor) -> _Level:
    total = _stencil(torch.ones_like(unknown), _NEIGHBOURS, 12)
    return _Level(unknown, total, _DAMPING * unknown / total.clamp_min(1 / 12))


def _solved(levels: Sequence[_Level], x: Tensor) -> Tensor:
    """Conjugate gradients from `x` (1, N, h, w), preconditioned by a multigrid cycle, whose correction is also an
    estimate of the error that is left. Each field stops for itself."""
    residual = levels[0].lacking(x)
    correction = _cycle(levels, residual)
    direction, product = correction, _dot(residual, correction)
    for _ in range(_MOST_STEPS):
        active = correction.abs().amax(dim=(2, 3), keepdim=True) > TOLERANCE
        if not active.any():
            break
        response = -levels[0].lacking(direction)
        step = active * product / _dot(direction, response).clamp_min(1e-20)
        x, residual = x + step * direction, residual - step * response
        correction = _cycle(levels, residual)
        product, before = _dot(residual, correction), product
        direction = correction + product / before.clamp_min(1e-20) * direction
    return x


def _cycle(levels: Sequence[_Level], residual: Tensor) -> Tensor:
    """About the solution for this residual: smoothed on this grid, solved on the coarser, smoothed again."""
    level, coarser = levels[0], levels[1:]
    x = level.smoothing * residual
    if not coarser:
        for _ in range(_COARSEST_SWEEPS):
            x = x + level.smoothing * (residual + level.lacking(x))
        return x
    lacking = residual + level.lacking(x)
    correction = _cycle(coarser, 4 * _halved(lacking) * coarser[0].unknown)
    x = x + _doubled(correction, residual) * level.unknown
    return x + level.smoothing * (residual + level.lacking(x))


def _doubled(x: Tensor, like: Tensor) -> Tensor:
    return interpolate(x, scale_factor=2, mode="bilinear")[..., : like.shape[2], : like.shape[3]]


def _halved(x: Tensor) -> Tensor:
    """The transpose of `_doubled`, but for the border, divided by 4: conjugate gradients need the cycle symmetric."""
    line = (1.0, 3.0, 3.0, 1.0)
    even = pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2))
    return _stencil(even, tuple(tuple(a * b for b in line) for a in line), 64, stride=2)


def _stencil(x: Tensor, weights: Sequence[Sequence[float]], divisor: int, stride: int = 1) -> Tensor:
    """Convolution of each field of (1, N, h, w) with one small kernel; zero outside."""
    kernel = torch.tensor(weights, device=x.device) / divisor
    return conv2d(x, kernel.expand(x.shape[1], 1, -1, -1), stride=stride, padding=1, groups=x.shape[1])


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(dim=(2, 3), keepdim=True)
