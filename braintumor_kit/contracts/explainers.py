"""Contract of an explainer, API version 1.

An explainer turns (model, images, targets) into maps. It sees the model through a small view that gives logits and,
for methods on a layer's activations, the activations and their gradients; hooks and modes are btkit's affair.

    class GradCam(Explainer[NoOptions]):
        "Grad-CAM: gradient-weighted class activation maps (Selvaraju et al. 2017, arXiv 1610.02391)."
        api_version = 1
        Options = NoOptions

        def maps(self, model: ModelView, images: Tensor, targets: Tensor) -> Tensor:
            a, g, _ = model.activations_and_gradients(images, targets)
            return (g.mean(dim=(2, 3), keepdim=True) * a).sum(dim=1).relu()
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar, Protocol

from braintumor_kit.contracts.plugin import OptionsT, Plugin

if TYPE_CHECKING:
    from torch import Tensor


class ModelView(Protocol):
    """A classifier as an explainer sees it. Images are float (N, H, W, C) in 0..255; N images have N targets."""

    def logits(self, images: Tensor) -> Tensor:
        """Class scores before the softmax, float32 (N, classes), differentiable with respect to `images`."""

    def activations_and_gradients(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(A, g, y): the explained layer's output A (N, channels, h, w), y (N,) each image's score for its target,
        and g = dy/dA, of A's shape; all float32, channels first whatever the model's data format."""


class Explainer(Plugin[OptionsT]):
    """A plugin that turns (model, images, targets) into maps."""

    kind: ClassVar[str] = "explainer"
    current_api_version: ClassVar[int] = 1

    @abstractmethod
    def maps(self, model: ModelView, images: Tensor, targets: Tensor) -> Tensor:
        """Maps, raw: neither normalised nor coloured.

        Args:
            images: float (N, H, W, C), 0..255.
            targets: float (N, classes), weights of the logits whose sum is explained: one-hot for one class, and
                +1 and -1 for a contrast of two.

        Returns:
            float32 (N, h, w) of any resolution; btkit resizes to (H, W) bilinearly.
        """
