"""LayerCAM."""

from typing import ClassVar

from torch import Tensor

from braintumor_kit.contracts.explainers import Explainer, ModelView
from braintumor_kit.contracts.options import NoOptions


class LayerCam(Explainer[NoOptions]):
    """LayerCAM: each place weighted by its own positive gradient; good at early layers.

    Jiang et al. 2021, IEEE TIP 30.
    """

    api_version: ClassVar[int] = 1
    Options = NoOptions

    def maps(self, model: ModelView, images: Tensor, targets: Tensor) -> Tensor:
        """ReLU of the sum over channels of ReLU(g) A."""
        a, g, _ = model.activations_and_gradients(images, targets)
        return (g.relu() * a).sum(dim=1).relu()
