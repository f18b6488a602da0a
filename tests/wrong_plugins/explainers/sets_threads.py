"""Sets how many threads torch takes, and leaves it at that."""

import torch
from torch import Tensor

from braintumor_kit.contracts import Explainer, ModelView, NoOptions

BREAKS = "leaves_global_state"


class Threads(Explainer[NoOptions]):
    """Grad-CAM, on few threads."""

    api_version = 1
    Options = NoOptions

    def maps(self, model: ModelView, images: Tensor, targets: Tensor) -> Tensor:
        torch.set_num_threads(3)
        a, g, _ = model.activations_and_gradients(images, targets)
        return (g.mean(dim=(2, 3), keepdim=True) * a).sum(dim=1).relu()
