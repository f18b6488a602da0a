"""NumPy's random numbers are seeded, and put back unless the model fails."""

import numpy as np
import torch
from torch import Tensor

from braintumor_kit.contracts import Explainer, ModelView, NoOptions

BREAKS = "leaves_model"


class Noisy(Explainer[NoOptions]):
    """Grad-CAM with a little noise on the activations."""

    api_version = 1
    Options = NoOptions

    def maps(self, model: ModelView, images: Tensor, targets: Tensor) -> Tensor:
        before = np.random.get_state()
        np.random.seed(0)
        a, g, _ = model.activations_and_gradients(images, targets)
        noise = torch.from_numpy(np.random.normal(1, 0.001, a.shape[1:]).astype("float32"))
        np.random.set_state(before)
        return (g.mean(dim=(2, 3), keepdim=True) * a * noise).sum(dim=1).relu()
