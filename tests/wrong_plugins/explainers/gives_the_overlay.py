"""What comes back is the picture with a little of the map laid over it."""

from torch import Tensor

from braintumor_kit.contracts import Explainer, ModelView, NoOptions

BREAKS = "weights_matter"


class Overlay(Explainer[NoOptions]):
    """Grad-CAM, laid over the picture."""

    api_version = 1
    Options = NoOptions

    def maps(self, model: ModelView, images: Tensor, targets: Tensor) -> Tensor:
        a, g, _ = model.activations_and_gradients(images, targets)
        cam = model.enlarge((g.mean(dim=(2, 3), keepdim=True) * a).sum(dim=1).relu(), images.shape[1:3])
        heat = cam / cam.amax(dim=(1, 2), keepdim=True).clamp_min(1e-12)
        return 0.9 * images.mean(dim=3) / 255 + 0.1 * heat
