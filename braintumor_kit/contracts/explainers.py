"""Contract of an explainer, API version 1.

An explainer turns (model, images, targets) into maps. It sees the model through a small view that gives scores,
gradients and, for methods on a layer, that layer's activations; hooks, modes, precision and memory are btkit's affair.

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
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

from braintumor_kit.contracts.plugin import OptionsT, Plugin

if TYPE_CHECKING:
    from torch import Tensor

PROMISES: Mapping[str, str] = {
    "shape_and_dtype": "maps are a float32 tensor (N, h, w), one an image, or `Maps` of one, with completeness (N,)",
    "finite": "maps hold no value that is infinite or no number",
    "deterministic": "asked for the same maps again, it gives the same, whatever torch's and NumPy's random numbers",
    "batch_equals_single": "an image's map is the same alone as in a batch, to 1e-4 of its largest value",
    "target_changes_the_map": "two classes that look at different places have different maps",
    "constant_model": "of a model that says the same of every picture maps are finite; btkit flags them `constant`",
    "weights_matter": "maps of a network with other weights rank the pixels otherwise (|rank correlation| below 0.95)",
    "finds_planted_blob": "of a model that answers to one blob and nothing else, the highest value lies on the blob, "
    "within an eighth of the picture, in 6 pictures of 8 at least",
    "leaves_inputs": "images and targets are not changed",
    "leaves_model": "weights, modes, gradients and hooks of the model stay as they were, after an error of it too, "
    "which is passed on as it is",
}
"""What every explainer promises, with the options of its example."""

WAIVED_BY: Mapping[str, str] = {
    "target_changes_the_map": "class_specific",
    "weights_matter": "weight_dependent",
    "finds_planted_blob": "localising",
}
"""Promises that a property, declared untrue with a reason, waives."""


class ModelView(Protocol):
    """A classifier as an explainer sees it.

    Images are float (N, H, W, C) in 0..255, before any scaling, whatever the model's own layout. Targets are float
    (N, classes), weights of the scores whose sum y is explained; N images have N targets. Scores are logits: what the
    model computes before its softmax. Everything that comes back is float32, whatever precision it was computed in.
    """

    @property
    def batch_size(self) -> int:
        """Images that the device is fastest with at once. Callers that make many copies of an image send about as
        many at a time, so that memory stays bounded."""

    def logits(self, images: Tensor) -> Tensor:
        """Scores (N, classes), differentiable where `images` requires gradients."""

    def gradients(self, images: Tensor, targets: Tensor, guided: bool = False) -> tuple[Tensor, Tensor]:
        """(dy/dimages (N, H, W, C), y (N,)).

        Args:
            guided: backwards, each ReLU passes on only what is positive (Springenberg et al. 2015, arXiv 1412.6806).

        Raises:
            InputError: `guided`, of a network with other activations than ReLU, where this rule means nothing.
        """

    def path_gradients(
        self, starts: Tensor, ends: Tensor, targets: Tensor, nodes: Tensor, weights: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The weighted sum over k of dy/dx at x = starts + nodes[k] (ends - starts), in batches of bounded memory.

        Args:
            starts: images (N, H, W, C).
            ends: images of the same shape.
            nodes: (K,), in 0..1.
            weights: (K,).

        Returns:
            The sum (N, H, W, C), y at `starts` and y at `ends`, (N,) each.
        """

    def activations(self, images: Tensor) -> Tensor:
        """A, the explained layer's output (N, channels, h, w), channels first whatever the model's data format.

        Raises:
            InputError: where the model has no layer that is spatial.
        """

    def activations_and_gradients(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(A, g, y): A as above, y (N,) each image's score for its target, and g = dy/dA, of A's shape.

        Explainers that are asked for the same images one after the other share one pass through the trunk.
        """

    def enlarge(self, maps: Tensor, size: tuple[int, int]) -> Tensor:
        """Maps (N, h, w) of the explained layer's cells at the images' size (N, H, W), bilinearly, each cell where what
        it sees is centred. btkit does the same to what `Explainer.maps` returns."""


@dataclass(frozen=True)
class Maps:
    """Maps, and what a method that can be checked knows of its own error.

    Attributes:
        values: float32 (N, h, w).
        completeness: (N,), how far the map's sum is from what it should be, as a share of that; None where a method
            has no such property.
    """

    values: Tensor
    completeness: Tensor | None = None


class Explainer(Plugin[OptionsT]):
    """A plugin that turns (model, images, targets) into maps."""

    kind: ClassVar[str] = "explainer"
    current_api_version: ClassVar[int] = 1

    signed: ClassVar[bool] = False
    """Whether negative values mean something: evidence against the target."""

    class_specific: ClassVar[bool] = True
    """Whether the map depends on the target."""

    weight_dependent: ClassVar[bool] = True
    """Whether the map depends on what the network learnt."""

    localising: ClassVar[bool] = True
    """Whether the map is highest on what the score comes from."""

    @abstractmethod
    def maps(self, model: ModelView, images: Tensor, targets: Tensor) -> Tensor | Maps:
        """Maps, raw: neither normalised nor coloured. An image's map does not depend on the others of its batch.

        Args:
            images: float32 (N, H, W, C), 0..255.
            targets: float32 (N, classes), weights of the logits whose sum is explained: one-hot for one class, and
                +1 and -1 for a contrast of two.

        Returns:
            float32 (N, h, w) of any resolution, or `Maps`; btkit brings them to (H, W) (see `ModelView.enlarge`).
        """
