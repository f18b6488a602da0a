"""Batch normalisation over the slices of several processes that train together.

torch's own SyncBatchNorm is for GPUs alone; this is in plain operations, and so for every device.
"""

from collections.abc import Callable

import torch
from torch import Tensor

SumOver = Callable[[Tensor], Tensor]
"""Sums a tensor over processes; its gradient is the sum of theirs."""


def normalized_over_group(
    x: Tensor, gamma: Tensor | None, beta: Tensor | None, epsilon: float, sum_over: SumOver
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Normalises each channel by its mean and variance over the group's batch (Ioffe and Szegedy 2015, equation of
    algorithm 1).

    Args:
        x: this process' part, (n, C, ...).
        gamma, beta: (C,).

    Returns:
        The normalised part, of x' dtype, and the mean and the biased variance over the group, float32 (C,).
    """
    axes = tuple(axis for axis in range(x.ndim) if axis != 1)
    of_channels = (1, -1, *[1] * (x.ndim - 2))
    values = x.float()
    sums = sum_over(torch.cat([values.sum(axes), values.new_full((1,), values.numel() / values.shape[1])]))
    mean = sums[:-1] / sums[-1]
    centred = values - mean.view(of_channels)
    variance = sum_over(centred.square().sum(axes)) / sums[-1]
    scale = torch.rsqrt(variance + epsilon)
    if gamma is not None:
        scale = scale * gamma
    y = centred * scale.view(of_channels)
    if beta is not None:
        y = y + beta.view(of_channels)
    return y.to(x.dtype), (mean.detach(), variance.detach())
