"""Explains the class that the model predicts, whatever it is asked."""

import torch
from torch import Tensor

from braintumor_kit.contracts import Explainer, ModelView, NoOptions

BREAKS = "target_changes_the_map"


class Predicted(Explainer[NoOptions]):
    """Grad-CAM of the predicted class."""

    api_version = 1
    Options = NoOptions

    def maps(self, model: ModelView, images: Tensor, targets: Tensor) -> Tensor:
        predicted = torch.eye(targets.shape[1])[model.logits(images).argmax(dim=1)]
        a, g, _ = model.activations_and_gradients(images, predicted)
        return (g.mean(dim=(2, 3), keepdim=True) * a).sum(dim=1).relu()
