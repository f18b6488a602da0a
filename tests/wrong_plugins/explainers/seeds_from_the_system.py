"""Every instance has a seed of its own, from the system."""

import os

import torch
from torch import Tensor

from braintumor_kit.contracts import Explainer, ModelView, NoOptions

BREAKS = "follows_seed"


class Noisy(Explainer[NoOptions]):
    """Grad-CAM of the picture with a little noise."""

    api_version = 1
    Options = NoOptions

    def __init__(self, options: NoOptions) -> None:
        super().__init__(options)
        self.seed = int.from_bytes(os.urandom(4))

    def maps(self, model: ModelView, images: Tensor, targets: Tensor) -> Tensor:
        noise = torch.randn(images.shape[1:], generator=torch.Generator().manual_seed(self.seed))
        a, g, _ = model.activations_and_gradients(images + noise, targets)
        return (g.mean(dim=(2, 3), keepdim=True) * a).sum(dim=1).relu()
