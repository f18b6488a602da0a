"""Maps are (N, 1, h, w): the axis that is summed over stays."""

from torch import Tensor

from braintumor_kit.contracts import Explainer, ModelView, NoOptions

BREAKS = "shape_and_dtype"


class KeepDim(Explainer[NoOptions]):
    """Grad-CAM."""

    api_version = 1
    Options = NoOptions

    def maps(self, model: ModelView, images: Tensor, targets: Tensor) -> Tensor:
        a, g, _ = model.activations_and_gradients(images, targets)
        return (g.mean(dim=(2, 3), keepdim=True) * a).sum(dim=1, keepdim=True).relu()
