"""Maps are divided by the deviation of the picture, which an even picture does not have."""

from torch import Tensor

from braintumor_kit.contracts import Explainer, ModelView, NoOptions

BREAKS = "finite"


class Standardised(Explainer[NoOptions]):
    """Grad-CAM, for standardised pictures."""

    api_version = 1
    Options = NoOptions

    def maps(self, model: ModelView, images: Tensor, targets: Tensor) -> Tensor:
        a, g, _ = model.activations_and_gradients(images, targets)
        return (g.mean(dim=(2, 3), keepdim=True) * a).sum(dim=1).relu() / images.std(dim=(1, 2, 3))[:, None, None]
