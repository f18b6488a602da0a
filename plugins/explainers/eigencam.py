"""Eigen-CAM."""

from typing import ClassVar

import torch
from torch import Tensor

from braintumor_kit.contracts.explainers import Explainer, ModelView
from braintumor_kit.contracts.options import NoOptions


class EigenCam(Explainer[NoOptions]):
    """Eigen-CAM: the first principal component of the activations; the same for every class.

    Muhammad and Yeasin 2020, arXiv 2008.00299.
    """

    api_version: ClassVar[int] = 1
    Options = NoOptions
    class_specific: ClassVar[bool] = False
    reasons: ClassVar[dict[str, str]] = {
        "class_specific": "the first principal component of the activations is that of no class"
    }

    def maps(self, model: ModelView, images: Tensor, targets: Tensor) -> Tensor:
        """|A v|, v the first right singular vector of A as (h w, channels): where A >= 0, A v has one sign
        (Perron and Frobenius), and the sign that the decomposition gives is arbitrary."""
        a = model.activations(images)
        pixels = a.flatten(2).transpose(1, 2)
        # The h w by h w products have the same left singular vectors and are small: 49 by 49 for 512 channels.
        values, vectors = torch.linalg.eigh((pixels @ pixels.transpose(1, 2)).double())
        first = vectors[:, :, -1] * values[:, -1:].clamp_min(0).sqrt()
        return first.abs().float().reshape(len(a), *a.shape[2:])
