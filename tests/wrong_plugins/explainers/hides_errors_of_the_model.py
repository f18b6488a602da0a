"""Whatever the model raises comes back as an error of its own."""

from torch import Tensor

from braintumor_kit.contracts import Explainer, ModelView, NoOptions

BREAKS = "leaves_model"


class Wrapped(Explainer[NoOptions]):
    """Grad-CAM, or a word that it failed."""

    api_version = 1
    Options = NoOptions

    def maps(self, model: ModelView, images: Tensor, targets: Tensor) -> Tensor:
        try:
            a, g, _ = model.activations_and_gradients(images, targets)
        except RuntimeError as error:
            raise ValueError("no map could be made") from error
        return (g.mean(dim=(2, 3), keepdim=True) * a).sum(dim=1).relu()
