"""SmoothGrad."""

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from braintumor_kit.contracts.explainers import Explainer, ModelView
from braintumor_kit.contracts.options import PluginOptions


class SmoothGradOptions(PluginOptions):
    """The noise that gradients are averaged over."""

    samples: int = Field(25, ge=1, le=10_000, description="Noisy copies of each image.")
    noise: float = Field(0.15, ge=0, le=1, description="Deviation of the noise, as a share of each image's own range.")
    seed: int = Field(0, ge=0, description="Of the noise, which is the same for every image.")


class SmoothGrad(Explainer[SmoothGradOptions]):
    """SmoothGrad: the gradient of the score by pixel, averaged over noisy copies.

    Smilkov et al. 2017, arXiv 1706.03825.
    """

    api_version: ClassVar[int] = 1
    Options = SmoothGradOptions

    def maps(self, model: ModelView, images: Tensor, targets: Tensor) -> Tensor:
        """|mean over noise of dy/dx|, the channels of a pixel summed: for grey slices that is the derivative by its
        grey."""
        random = torch.Generator().manual_seed(self.options.seed)
        spread = images.amax(dim=(1, 2, 3), keepdim=True) - images.amin(dim=(1, 2, 3), keepdim=True)
        total = torch.zeros_like(images)
        for _ in range(self.options.samples):
            noise = torch.randn(1, *images.shape[1:3], 1, generator=random).to(images)
            gradient, _ = model.gradients(images + self.options.noise * spread * noise, targets)
            total += gradient
        return (total / self.options.samples).sum(dim=3).abs()
