"""Gradients are switched off, and on again unless the model fails."""

import torch
from torch import Tensor

from braintumor_kit.contracts import Explainer, ModelView, NoOptions

BREAKS = "leaves_model"


class Ungraded(Explainer[NoOptions]):
    """Grad-CAM with the sign of the score."""

    api_version = 1
    Options = NoOptions

    def maps(self, model: ModelView, images: Tensor, targets: Tensor) -> Tensor:
        torch.set_grad_enabled(False)
        a, g, _ = model.activations_and_gradients(images, targets)
        torch.set_grad_enabled(True)
        return (g.mean(dim=(2, 3), keepdim=True) * a).sum(dim=1).relu()
