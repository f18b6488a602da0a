"""Maps are divided by the largest value of the batch, not by their own."""

from torch import Tensor

from braintumor_kit.contracts import Explainer, ModelView, NoOptions

BREAKS = "batch_equals_single"


class BatchMaximum(Explainer[NoOptions]):
    """Grad-CAM, from 0 to 1."""

    api_version = 1
    Options = NoOptions

    def maps(self, model: ModelView, images: Tensor, targets: Tensor) -> Tensor:
        a, g, _ = model.activations_and_gradients(images, targets)
        cam = (g.mean(dim=(2, 3), keepdim=True) * a).sum(dim=1).relu()
        return cam / cam.max().clamp_min(1e-12)
