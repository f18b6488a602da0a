"""Whether a map shows what the network goes by: what its probability does when pixels are taken away or put back.

Pixels are ranked by the raw map. Pixels of equal value come in one fixed random order, not row by row: a map that is
constant over an area would otherwise be scored by what lies at the top of it. No score depends on the other pictures
of its batch.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from braintumor_kit.explanation.imputation import NOISE, impute

Probabilities = Callable[[Tensor], Tensor]
"""Pictures float32 (M, H, W, C), 0..255, to class probabilities (M, classes)."""

STEPS = 20
AT_ONCE = 64
ROAD_SHARES = (0.2, 0.4, 0.6, 0.8)
_BLUR = 1 / 20
_SEED = 0


@torch.no_grad()
def deletion_auc(
    images: Tensor,
    maps: Tensor,
    targets: Tensor,
    probabilities: Probabilities,
    steps: int = STEPS,
    at_once: int = AT_ONCE,
) -> Tensor:
    """Area under the target's probability as pixels turn black, most relevant first; lower is better.

    Source: Petsiuk et al. 2018 (RISE, arXiv 1806.07421).

    Args:
        images: float32 (N, H, W, C), 0..255.
        maps: raw (N, H, W).
        targets: class numbers, int64 (N,).
        probabilities: the network.
        steps: equal shares of the picture in which pixels go; the trapezoid over steps + 1 probabilities.
        at_once: pictures given to the network at once, at most.

    Returns:
        float32 (N,), 0..1.

    Raises:
        ValueError: where the shapes do not fit together.
    """
    _check(images, maps, targets)
    return _exchanged(images, torch.zeros_like(images), maps, targets, probabilities, steps, at_once)


@torch.no_grad()
def insertion_auc(
    images: Tensor,
    maps: Tensor,
    targets: Tensor,
    probabilities: Probabilities,
    steps: int = STEPS,
    at_once: int = AT_ONCE,
) -> Tensor:
    """Area under the target's probability as pixels return to the blurred picture, most relevant first; higher is
    better. Arguments, result, errors and source as of `deletion_auc`; the blur is Gaussian, 1/20 of each side."""
    _check(images, maps, targets)
    return _exchanged(blurred(images), images, maps, targets, probabilities, steps, at_once)


@torch.no_grad()
def road(
    images: Tensor,
    maps: Tensor,
    targets: Tensor,
    probabilities: Probabilities,
    at_once: int = AT_ONCE,
    noise: float = NOISE,
) -> Tensor:
    """ROAD (Rong et al. 2022, arXiv 2202.00449): what the target's probability loses more when the most relevant
    pixels are imputed than when the least relevant ones are; higher is better, 0 is a map that says nothing.

    The mean of (least first - most first) / 2 over 20, 40, 60 and 80 % of the pixels, as ROADCombined of
    pytorch-grad-cam has it. Arguments and errors as of `deletion_auc`; `noise` is in grey levels.

    Returns:
        float32 (N,), -0.5..0.5.
    """
    _check(images, maps, targets)
    place = places(maps)
    pixels = place.shape[1] * place.shape[2]
    counts = torch.tensor([round(share * pixels) for share in ROAD_SHARES], device=maps.device)

    def picture(image: Tensor, way: Tensor) -> Tensor:
        count = counts[way // 2, None, None]
        most, least = place[image] >= count, place[image] < pixels - count
        return impute(images[image], torch.where((way % 2 == 0)[:, None, None], most, least), noise, _SEED)

    p = _of_targets(picture, 2 * len(counts), targets, probabilities, at_once)
    return (p[:, 1::2] - p[:, 0::2]).mean(dim=1) / 2


def places(maps: Tensor) -> Tensor:
    """The place of each pixel when the most relevant come first: int64 (N, H, W), 0..H*W-1; ties in random order."""
    flat = maps.flatten(1)
    shuffled = torch.randperm(flat.shape[1], generator=torch.Generator().manual_seed(_SEED)).to(maps.device)
    order = shuffled[flat[:, shuffled].argsort(dim=1, descending=True, stable=True)]
    numbers = torch.arange(flat.shape[1], device=maps.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, numbers).view(maps.shape)


def blurred(images: Tensor) -> Tensor:
    """Pictures (N, H, W, C) under a Gaussian whose standard deviation is 1/20 of each side; at the border, the weights
    of what lies outside drop out."""
    down, across = (_gaussian(side, images) for side in images.shape[1:3])
    return torch.einsum("ih,nhwc,jw->nijc", down, images, across)


def _gaussian(side: int, like: Tensor) -> Tensor:
    """Weights (side, side) of the pixels of a line for each of its pixels."""
    line = torch.arange(side, dtype=torch.float32, device=like.device)
    weights = torch.exp(-(((line[:, None] - line) / (side * _BLUR)) ** 2) / 2)
    return weights / weights.sum(dim=1, keepdim=True)


def _exchanged(
    start: Tensor, end: Tensor, maps: Tensor, targets: Tensor, probabilities: Probabilities, steps: int, at_once: int
) -> Tensor:
    """Area under the target's probability as the pixels of `start` become those of `end`, most relevant first."""
    place = places(maps)
    pixels = place.shape[1] * place.shape[2]
    counts = torch.tensor([round(step * pixels / steps) for step in range(steps + 1)], device=maps.device)

    def picture(image: Tensor, way: Tensor) -> Tensor:
        changed = place[image] < counts[way, None, None]
        return torch.where(changed[..., None], end[image], start[image])

    return torch.trapezoid(_of_targets(picture, steps + 1, targets, probabilities, at_once), dx=1 / steps, dim=1)


def _of_targets(
    picture: Callable[[Tensor, Tensor], Tensor], ways: int, targets: Tensor, probabilities: Probabilities, at_once: int
) -> Tensor:
    """The target's probability of each picture changed in each of some ways, float32 (N, ways).

    Args:
        picture: makes pictures from the numbers of images and ways, (M,) each.
    """
    if len(targets) == 0:
        return torch.zeros(0, ways, device=targets.device)
    parts = []
    for chosen in torch.arange(len(targets) * ways, device=targets.device).split(at_once):
        image, way = chosen // ways, chosen % ways
        p = probabilities(picture(image, way))
        parts.append(p.gather(1, targets[image, None].to(p.device))[:, 0].float().to(targets.device))
    return torch.cat(parts).view(len(targets), ways)


def _check(images: Tensor, maps: Tensor, targets: Tensor) -> None:
    if images.ndim != 4 or maps.shape != images.shape[:3] or targets.shape != images.shape[:1]:
        found = f"images {tuple(images.shape)}, maps {tuple(maps.shape)}, targets {tuple(targets.shape)}"
        raise ValueError(f"{found}: expected (N, H, W, C), (N, H, W), (N,).")
