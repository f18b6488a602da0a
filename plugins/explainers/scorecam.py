"""Score-CAM."""

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from braintumor_kit.contracts.explainers import Explainer, ModelView
from braintumor_kit.contracts.options import PluginOptions


class ScoreCamOptions(PluginOptions):
    """How much of Score-CAM is worked out."""

    channels: int = Field(
        0,
        ge=0,
        description="Channels that are tried, those that vary most first; 0 tries all. Each costs one pass an image.",
    )


class ScoreCam(Explainer[ScoreCamOptions]):
    """Score-CAM: each channel weighted by what the image, masked by it, scores; no gradients.

    Wang et al. 2020, arXiv 1910.01279.
    """

    api_version: ClassVar[int] = 1
    Options = ScoreCamOptions

    def maps(self, model: ModelView, images: Tensor, targets: Tensor) -> Tensor:
        """ReLU of the sum over channels of softmax(score of the masked image - score of a black one) A."""
        a = model.activations(images)
        return torch.stack([self._map(model, *one) for one in zip(a, images, targets, strict=True)])

    def _map(self, model: ModelView, a: Tensor, image: Tensor, target: Tensor) -> Tensor:
        """(h, w) for A (channels, h, w), one image (H, W, C) and its target (classes,)."""
        low, high = a.amin(dim=(1, 2), keepdim=True), a.amax(dim=(1, 2), keepdim=True)
        chosen = torch.nonzero((high > low).flatten()).flatten()  # a constant channel masks nothing
        if self.options.channels:
            spread = a[chosen].var(dim=(1, 2), correction=0)
            chosen = chosen[spread.argsort(descending=True, stable=True)[: self.options.channels]]
        if not len(chosen):
            return torch.zeros_like(a[0])
        black = (model.logits(torch.zeros_like(image)[None]) * target).sum()
        gains = []
        for some in chosen.split(model.batch_size):
            shape = ((a - low) / (high - low))[some]
            masks = model.enlarge(shape, (image.shape[0], image.shape[1]))[..., None]
            gains.append((model.logits(image * masks) * target).sum(dim=1) - black)
        weights = torch.cat(gains).softmax(dim=0)
        return (weights[:, None, None] * a[chosen]).sum(dim=0).relu()
