"""Freezes the layers of the model behind the view."""

from torch import Tensor

from braintumor_kit.contracts import Explainer, ModelView, NoOptions

BREAKS = "leaves_model"


class Freezing(Explainer[NoOptions]):
    """Grad-CAM of a frozen model."""

    api_version = 1
    Options = NoOptions

    def maps(self, model: ModelView, images: Tensor, targets: Tensor) -> Tensor:
        for call in model._graph.calls:
            call.layer.trainable = False
        a, g, _ = model.activations_and_gradients(images, targets)
        return (g.mean(dim=(2, 3), keepdim=True) * a).sum(dim=1).relu()
