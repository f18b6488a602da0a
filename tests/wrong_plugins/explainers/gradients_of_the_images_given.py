"""The images that it is given are made to require gradients."""

import torch
from torch import Tensor

from braintumor_kit.contracts import Explainer, ModelView, NoOptions

BREAKS = "leaves_inputs"


class RequiresGrad(Explainer[NoOptions]):
    """Grad-CAM, if the score depends on the picture at all."""

    api_version = 1
    Options = NoOptions

    def maps(self, model: ModelView, images: Tensor, targets: Tensor) -> Tensor:
        y = (model.logits(images.requires_grad_()) * targets).sum()
        (slope,) = torch.autograd.grad(y, images)
        a, g, _ = model.activations_and_gradients(images, targets)
        matters = slope.abs().amax(dim=(1, 2, 3)).sign()
        return matters[:, None, None] * (g.mean(dim=(2, 3), keepdim=True) * a).sum(dim=1).relu()
