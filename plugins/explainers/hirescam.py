"""HiResCAM."""

from typing import ClassVar

from torch import Tensor

from braintumor_kit.contracts.explainers import Explainer, ModelView
from braintumor_kit.contracts.options import NoOptions


class HiResCam(Explainer[NoOptions]):
    """HiResCAM: what each place of the layer adds to the score, not averaged first.

    Draelos and Carin 2020, arXiv 2011.08891.
    """

    api_version: ClassVar[int] = 1
    Options = NoOptions

    def maps(self, model: ModelView, images: Tensor, targets: Tensor) -> Tensor:
        """ReLU of the sum over channels of g A. Behind global average pooling and one linear layer, Grad-CAM's map."""
        a, g, _ = model.activations_and_gradients(images, targets)
        return (g * a).sum(dim=1).relu()
