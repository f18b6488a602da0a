"""Maps are divided by their largest value, and where nothing matters that is 0."""

from torch import Tensor

from braintumor_kit.contracts import Explainer, ModelView, NoOptions

BREAKS = "constant_model"


class Maximum(Explainer[NoOptions]):
    """Grad-CAM, signed, from -1 to 1."""

    api_version = 1
    Options = NoOptions

    def maps(self, model: ModelView, images: Tensor, targets: Tensor) -> Tensor:
        a, g, _ = model.activations_and_gradients(images, targets)
        cam = (g.mean(dim=(2, 3), keepdim=True) * a).sum(dim=1)
        return cam / cam.abs().amax(dim=(1, 2), keepdim=True)
