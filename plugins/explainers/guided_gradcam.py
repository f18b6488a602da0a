"""Guided Grad-CAM."""

from typing import ClassVar

from torch import Tensor

from braintumor_kit.contracts.explainers import Explainer, ModelView
from braintumor_kit.contracts.options import NoOptions


class GuidedGradCam(Explainer[NoOptions]):
    """Guided Grad-CAM: Grad-CAM's region in the detail of guided gradients; networks of ReLUs only.

    Selvaraju et al. 2017, arXiv 1610.02391, section 3.2.

    Guided gradients hardly depend on the weights of a network's upper layers (Adebayo et al. 2018): take where it
    points from Grad-CAM, and see `btkit explain --evaluate` for what randomised weights leave of it.
    """

    api_version: ClassVar[int] = 1
    Options = NoOptions

    def maps(self, model: ModelView, images: Tensor, targets: Tensor) -> Tensor:
        """|guided dy/dx| summed over channels, times Grad-CAM's map enlarged."""
        a, g, _ = model.activations_and_gradients(images, targets)
        region = (g.mean(dim=(2, 3), keepdim=True) * a).sum(dim=1).relu()
        detail, _ = model.gradients(images, targets, guided=True)
        return detail.sum(dim=3).abs() * model.enlarge(region, (images.shape[1], images.shape[2]))
