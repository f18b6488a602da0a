"""Occlusion."""

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from braintumor_kit.contracts.baselines import Baseline, baseline_of
from braintumor_kit.contracts.explainers import Explainer, ModelView
from braintumor_kit.contracts.options import PluginOptions


class OcclusionOptions(PluginOptions):
    """The patch that is moved over the image."""

    patch: float = Field(0.15, gt=0, le=1, description="Side of the patch, as a share of the image's.")
    stride: float = Field(0.5, gt=0, le=1, description="How far it moves at a time, as a share of its own side.")
    fill: Baseline = Field("black", description="What it shows: black, the image's mean, or the image blurred.")


class Occlusion(Explainer[OcclusionOptions]):
    """Occlusion: how far the score falls when a patch is covered (Zeiler and Fergus 2014, arXiv 1311.2901)."""

    api_version: ClassVar[int] = 1
    Options = OcclusionOptions
    signed: ClassVar[bool] = True

    def maps(self, model: ModelView, images: Tensor, targets: Tensor) -> Tensor:
        """Each pixel's mean, over the patches that cover it, of y(image) - y(image with the patch)."""
        fill = baseline_of(images, self.options.fill)
        height, width = images.shape[1:3]
        before = (model.logits(images) * targets).sum(dim=1)
        total, count = torch.zeros_like(images[..., 0]), images.new_zeros(height, width)
        for top in _places(height, self.options):
            for left in _places(width, self.options):
                rows = slice(top, top + _side(height, self.options))
                columns = slice(left, left + _side(width, self.options))
                covered = images.clone()
                covered[:, rows, columns] = fill[:, rows, columns]
                fall = before - (model.logits(covered) * targets).sum(dim=1)
                total[:, rows, columns] += fall[:, None, None]
                count[rows, columns] += 1
        return total / count


def _side(length: int, options: OcclusionOptions) -> int:
    return max(1, round(options.patch * length))


def _places(length: int, options: OcclusionOptions) -> list[int]:
    """Where patches begin along one side; the last one ends at the border."""
    side = _side(length, options)
    step = max(1, round(options.stride * side))
    return sorted({*range(0, length - side, step), length - side})
