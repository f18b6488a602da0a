"""Ties are broken by random numbers that go on from call to call."""

import torch
from torch import Tensor

from braintumor_kit.contracts import Explainer, ModelView, NoOptions

BREAKS = "deterministic"


class Untied(Explainer[NoOptions]):
    """Grad-CAM, without ties."""

    api_version = 1
    Options = NoOptions

    def __init__(self, options: NoOptions) -> None:
        super().__init__(options)
        self.random = torch.Generator().manual_seed(0)

    def maps(self, model: ModelView, images: Tensor, targets: Tensor) -> Tensor:
        a, g, _ = model.activations_and_gradients(images, targets)
        cam = (g.mean(dim=(2, 3), keepdim=True) * a).sum(dim=1).relu()
        return cam + 1e-6 * cam.amax() * torch.rand(cam.shape, generator=self.random)
