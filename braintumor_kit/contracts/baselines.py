"""Helper for authors of explainers: images from which what matters is taken away.

    fill = baseline_of(images, self.options.baseline)

An explainer that covers or fades parts of an image takes it from here.
"""

from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from torch import Tensor

Baseline = Literal["black", "mean", "blurred"]
"""What is put in the place of what matters."""

BLUR = 0.1
"""Deviation of the blur, as a share of the image's longer side: lesions are gone, the head is left."""


def baseline_of(images: "Tensor", kind: Baseline) -> "Tensor":
    """Images (N, H, W, C) of 0..255 without what is to be explained, of the same shape: black; each image's own mean
    over its pixels, channel by channel; or each image blurred."""
    if kind == "black":
        return images.new_zeros(()).expand_as(images)
    if kind == "mean":
        return images.mean(dim=(1, 2), keepdim=True).expand_as(images)
    deviation = BLUR * max(images.shape[1:3])
    blurred = ndimage.gaussian_filter(images.detach().cpu().numpy(), (0, deviation, deviation, 0), mode="nearest")
    return images.new_tensor(np.ascontiguousarray(blurred))
