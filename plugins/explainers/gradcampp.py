"""Grad-CAM++."""

from typing import ClassVar

import torch
from torch import Tensor

from braintumor_kit.contracts.explainers import Explainer, ModelView
from braintumor_kit.contracts.options import NoOptions


class GradCamPlusPlus(Explainer[NoOptions]):
    """Grad-CAM++: Grad-CAM that counts several regions of one class (Chattopadhay et al. 2018, arXiv 1710.11063)."""

    api_version: ClassVar[int] = 1
    Options = NoOptions

    def maps(self, model: ModelView, images: Tensor, targets: Tensor) -> Tensor:
        """ReLU of the sum over channels k of w_k A_k."""
        a, g, _ = model.activations_and_gradients(images, targets)
        return (weights(a, g)[:, :, None, None] * a).sum(dim=1).relu()


def weights(a: Tensor, g: Tensor, epsilon: float = 0.0) -> Tensor:
    """w_k = sum over pixels of alpha ReLU(g), alpha = g^2 / (2 g^2 + S_k g^3), S_k the sum of A_k (equation 19).

    The ReLU leaves only g > 0, where alpha = 1 / (2 + S g): no division by what may be zero, so no epsilon, as long as
    A >= 0 (a layer after its ReLU). Equation 19 takes derivatives of exp(y); its factor exp(y) is the same for all
    channels of an image and is left out.

    Args:
        a, g: (N, channels, h, w).
        epsilon: added to the denominator of equation 19, for comparison with implementations that do so.

    Returns:
        (N, channels).
    """
    s = a.sum(dim=(2, 3), keepdim=True)
    positive = g > 0
    safe = torch.where(positive, g, torch.ones_like(g))
    added = epsilon / safe.square() if epsilon else 0.0  # 0 / 0 where the square of a tiny gradient is lost
    alpha = 1 / (2 + s * safe + added)
    return torch.where(positive, alpha * g, torch.zeros_like(g)).sum(dim=(2, 3))
