"""Maps come out of NumPy as float64."""

import numpy as np
import torch
from torch import Tensor

from braintumor_kit.contracts import Explainer, ModelView, NoOptions

BREAKS = "shape_and_dtype"


class Double(Explainer[NoOptions]):
    """Grad-CAM, reckoned in NumPy."""

    api_version = 1
    Options = NoOptions

    def maps(self, model: ModelView, images: Tensor, targets: Tensor) -> Tensor:
        a, g, _ = model.activations_and_gradients(images, targets)
        weights = np.float64(g.cpu().numpy()).mean(axis=(2, 3), keepdims=True)
        return torch.from_numpy((weights * a.cpu().numpy()).sum(axis=1)).relu()
