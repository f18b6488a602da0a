"""Rows are counted from the bottom, as plots do."""

from torch import Tensor

from braintumor_kit.contracts import Explainer, ModelView, NoOptions

BREAKS = "finds_planted_blob"


class UpsideDown(Explainer[NoOptions]):
    """Grad-CAM, upside down."""

    api_version = 1
    Options = NoOptions

    def maps(self, model: ModelView, images: Tensor, targets: Tensor) -> Tensor:
        a, g, _ = model.activations_and_gradients(images, targets)
        return (g.mean(dim=(2, 3), keepdim=True) * a).sum(dim=1).relu().flip(1)
