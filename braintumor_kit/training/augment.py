"""Random changes to a whole batch at once, on the device that trains."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from braintumor_kit.recipe.tables import AugmentTable

KNOTS = 5
"""Pieces of the curve that grey levels are passed through."""

RIM_SIDE = 56
"""The head's rim is looked for in a copy of this side."""

HEAD_LEVEL = 20.0
"""Grey level from which a cell of that copy is head."""


def augment(pictures: Tensor, settings: AugmentTable, generator: torch.Generator) -> Tensor:
    """Changes each picture of a batch by draws of its own.

    Args:
        pictures: float (N, C, H, W), 0..255.
        generator: all draws come from it, on the pictures' device.

    Returns:
        Pictures of the same shape and range.
    """
    changed = _shaded(_move(pictures, settings, generator), settings, generator)
    return changed if changed is pictures else changed.clamp_(0, 255)


def augmented_with_masks(
    slices: Tensor, masks: Tensor, channels: int, settings: AugmentTable, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """As `prepared`, with the same draws, and masks (N, 1, S, S) moved along with the slices that they are of."""
    pictures = slices.float().permute(0, 3, 1, 2)
    moved = _move(torch.cat([pictures, masks], dim=1), settings, generator)
    pictures, masks = moved[:, :-1], moved[:, -1:]
    pictures = _shaded(pictures, settings, generator).clamp(0, 255)
    return pictures.permute(0, 2, 3, 1).expand(-1, -1, -1, channels), masks


def prepared(
    slices: Tensor, channels: int, settings: AugmentTable | None, generator: torch.Generator | None = None
) -> Tensor:
    """Pictures as a network takes them, float32 (N, S, S, channels), of uint8 slices (N, S, S, 1 or channels);
    augmented where there are settings and a generator to draw from."""
    pictures = slices.float()
    if settings is not None and generator is not None:
        pictures = augment(pictures.permute(0, 3, 1, 2), settings, generator).permute(0, 2, 3, 1)
    return pictures.expand(-1, -1, -1, channels)


def affine_matrices(count: int, settings: AugmentTable, generator: torch.Generator) -> Tensor:
    """For each picture the 2 x 3 matrix from output to input coordinates, both in -1..1 as `affine_grid` has them:
    mirror, scale and rotate about the centre, then shift."""
    angle = _uniform(count, generator, settings.rotate) * math.pi / 180
    size = 1 + _uniform(count, generator, settings.scale)
    mirror_x = _sign(count, generator, settings.flip_horizontal)
    mirror_y = _sign(count, generator, settings.flip_vertical)
    shift_x, shift_y = (2 * _uniform(count, generator, settings.shift) for _ in range(2))
    cosine, sine = angle.cos() / size, angle.sin() / size
    rows = [cosine * mirror_x, -sine * mirror_y, shift_x, sine * mirror_x, cosine * mirror_y, shift_y]
    return torch.stack(rows, dim=1).reshape(count, 2, 3)


def _move(pictures: Tensor, settings: AugmentTable, generator: torch.Generator) -> Tensor:
    if not (settings.rotate or settings.scale or settings.shift):
        return _mirror(pictures, settings, generator)
    matrices = affine_matrices(len(pictures), settings, generator).to(pictures.dtype)
    grid = F.affine_grid(matrices, list(pictures.shape), align_corners=False)
    return F.grid_sample(pictures, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _mirror(pictures: Tensor, settings: AugmentTable, generator: torch.Generator) -> Tensor:
    """Mirroring alone needs no interpolation: pixels stay exact."""
    for wanted, axis in ((settings.flip_horizontal, 3), (settings.flip_vertical, 2)):
        if wanted:
            chosen = _sign(len(pictures), generator, True).reshape(-1, 1, 1, 1) < 0
            pictures = torch.where(chosen, pictures.flip(axis), pictures)
    return pictures


def _shaded(pictures: Tensor, settings: AugmentTable, generator: torch.Generator) -> Tensor:
    """All that changes grey levels and moves nothing."""
    return _intensity(_provenance(pictures, settings, generator), settings, generator)


def _intensity(pictures: Tensor, settings: AugmentTable, generator: torch.Generator) -> Tensor:
    count = len(pictures)
    if settings.gamma:
        power = 1 + _uniform(count, generator, settings.gamma).reshape(-1, 1, 1, 1)
        pictures = (pictures / 255).clamp(0, 1) ** power * 255
    if settings.contrast or settings.brightness:
        factor = 1 + _uniform(count, generator, settings.contrast).reshape(-1, 1, 1, 1)
        shift = 255 * _uniform(count, generator, settings.brightness).reshape(-1, 1, 1, 1)
        mean = pictures.mean(dim=(1, 2, 3), keepdim=True)
        pictures = (pictures - mean) * factor + mean + shift
    if settings.noise:
        deviation = 255 * settings.noise * _random(count, generator).reshape(-1, 1, 1, 1)
        noise = torch.randn(pictures.shape, generator=generator, device=generator.device, dtype=pictures.dtype)
        pictures = pictures + noise * deviation
    return pictures


def _provenance(pictures: Tensor, settings: AugmentTable, generator: torch.Generator) -> Tensor:
    """Changes what tells one collection from another: the rim of the head and the curve of grey levels."""
    count = len(pictures)
    if settings.rim:
        gain = _uniform(count, generator, settings.rim).reshape(-1, 1, 1, 1)
        pictures = pictures * (1 + gain * head_rim(pictures))
    if settings.remap:
        steps = 1 + settings.remap * (2 * torch.rand(count, KNOTS, generator=generator, device=generator.device) - 1)
        pictures = _through_curves(pictures, steps)
    return pictures


def head_rim(pictures: Tensor) -> Tensor:
    """How much each pixel belongs to the outer twentieth of the head, 0..1, (N, 1, H, W), for pictures (N, C, H, W)."""
    height, width = pictures.shape[2:]
    small = F.adaptive_avg_pool2d(pictures.mean(dim=1, keepdim=True), RIM_SIDE)
    head = -_grown(-_grown((small > HEAD_LEVEL).float(), 2), 2)  # closed: the bone between scalp and brain is dark
    core = -_grown(-head, RIM_SIDE // 20)
    return F.interpolate(head - core, size=(height, width), mode="bilinear", align_corners=False)


def _grown(values: Tensor, by: int) -> Tensor:
    return F.max_pool2d(values, 2 * by + 1, stride=1, padding=by)


def _through_curves(pictures: Tensor, steps: Tensor) -> Tensor:
    """Each picture through its piecewise linear curve from 0 to 255, with these relative slopes (N, KNOTS)."""
    heights = F.pad(steps.cumsum(dim=1) / steps.sum(dim=1, keepdim=True), (1, 0)) * 255
    place = (pictures.flatten(1).clamp(0, 255) * (KNOTS / 255)).clamp(max=KNOTS - 1e-4)
    knot = place.long()
    low, high = heights.gather(1, knot), heights.gather(1, knot + 1)
    return (low + (place - knot) * (high - low)).reshape(pictures.shape)


def _random(count: int, generator: torch.Generator) -> Tensor:
    return torch.rand(count, generator=generator, device=generator.device)


def _uniform(count: int, generator: torch.Generator, reach: float) -> Tensor:
    """Draws from -reach..reach."""
    return (2 * _random(count, generator) - 1) * reach


def _sign(count: int, generator: torch.Generator, wanted: bool) -> Tensor:
    """-1 or 1 with equal probability where wanted, else 1."""
    drawn = _random(count, generator)
    return torch.where(drawn < 0.5, -1.0, 1.0) if wanted else torch.ones_like(drawn)
