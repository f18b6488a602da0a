"""captum's GradientSHAP."""

from typing import ClassVar

import captum.attr
import torch
from pydantic import Field
from torch import Tensor

from braintumor_kit.contracts.explainers import Explainer, ModelView
from braintumor_kit.contracts.options import PluginOptions
from braintumor_kit.contracts.randomness import seeded


class GradientShapOptions(PluginOptions):
    """Where gradients are taken."""

    samples: int = Field(
        20, ge=1, le=500, description="Points between baseline and image, at each of which one gradient is taken."
    )
    noise: float = Field(0.0, ge=0, le=255, description="Deviation, in grey values, of the noise on the image.")
    seed: int = Field(0, ge=0, lt=2**32, description="Of points and noise, the same for every image.")


class GradientShap(Explainer[GradientShapOptions]):
    """captum's GradientSHAP: what each pixel adds to the score on the way from black, by gradients at random points.

    Lundberg and Lee 2017, arXiv 1705.07874.
    """

    api_version: ClassVar[int] = 1
    Options = GradientShapOptions
    signed: ClassVar[bool] = True

    def maps(self, model: ModelView, images: Tensor, targets: Tensor) -> Tensor:
        """captum's attributions, summed over channels; an image at a time, so that none depends on its batch."""
        pairs = zip(images.detach().split(1), targets.split(1), strict=True)
        return torch.cat([self._map(model, image, target) for image, target in pairs])

    def _map(self, model: ModelView, image: Tensor, target: Tensor) -> Tensor:
        def score(pictures: Tensor, weights: Tensor) -> Tensor:
            return (model.logits(pictures) * weights).sum(dim=1)

        with seeded(self.options.seed):
            attributions = captum.attr.GradientShap(score).attribute(
                image,
                baselines=torch.zeros_like(image),
                n_samples=self.options.samples,
                stdevs=self.options.noise,
                additional_forward_args=(target,),
            )
        return attributions.detach().sum(dim=3)
