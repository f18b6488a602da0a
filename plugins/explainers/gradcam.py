"""Grad-CAM."""

from typing import ClassVar

from torch import Tensor

from braintumor_kit.contracts.explainers import Explainer, ModelView
from braintumor_kit.contracts.options import NoOptions


class GradCam(Explainer[NoOptions]):
    """Grad-CAM: gradient-weighted class activation maps.

    Selvaraju et al. 2017, arXiv 1610.02391, equations 1 and 2.
    """

    api_version: ClassVar[int] = 1
    Options = NoOptions

    def maps(self, model: ModelView, images: Tensor, targets: Tensor) -> Tensor:
        """ReLU of the sum over channels k of mean(g_k) A_k."""
        a, g, _ = model.activations_and_gradients(images, targets)
        return (g.mean(dim=(2, 3), keepdim=True) * a).sum(dim=1).relu()
