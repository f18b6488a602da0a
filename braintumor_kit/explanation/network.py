"""A classifier as explainers see it: scores, gradients and activations of any Keras-on-torch model.

`network_of(model)` gives a `Network`. What all networks do stands here; how one is computed stands in
`graph_network.py` (functional models, as torch calls) and `hooked_network.py` (all others, as Keras runs them). Neither
leaves hooks, modes, gradients or settings behind.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import keras
import torch
from torch import Tensor

from braintumor_kit.errors import InputError
from braintumor_kit.explanation.receptive_field import Cells, enlarge
from braintumor_kit.model.precision import exact_convolutions, keras_device

ON_CPU, ON_GPU = 32, 256
"""Images at once, forwards and backwards."""

ROUNDING = 1e-6
"""Relative difference of scores that rounding alone can make."""


@dataclass(frozen=True)
class Layout:
    """How a model takes pictures.

    Attributes:
        side: rows and columns; of a model that takes any, those of the pictures at hand.
        channels: 1 or 3, or what else it takes.
        channels_first: (N, C, H, W) rather than (N, H, W, C).
    """

    side: tuple[int, int]
    channels: int
    channels_first: bool


@dataclass(frozen=True)
class Captured:
    """One pass through the model.

    Attributes:
        images: of which.
        activations: A (N, channels, h, w), float32, a leaf that scores depend on.
        scores: (N, classes), float32.
    """

    images: Tensor
    activations: Tensor
    scores: Tensor


class Network(ABC):
    """Scores, gradients and activations of one model; a `ModelView`.

    Attributes:
        layout: how the model takes pictures.
        classes: how many scores it gives.
        score: what its scores are: "logit", or "log-probability" where the model's own logits cannot be had.
        batch_size: images at once.
        looked_at_layer: set as soon as somebody asks for the layer's activations.
        align: "receptive_field" puts a layer's cells where what they see is centred, "grid" stretches them evenly.
    """

    score = "logit"

    def __init__(self, layout: Layout, classes: int) -> None:
        self.layout, self.classes = layout, classes
        self.device = torch.device(keras_device())
        self.batch_size = ON_GPU if self.device.type == "cuda" else ON_CPU
        self.looked_at_layer = False
        self.align = "receptive_field"
        self._latest: Captured | None = None
        self._answers = False

    # What a kind of network has to know

    @property
    @abstractmethod
    def layer(self) -> str:
        """Name of the explained layer.

        Raises:
            InputError: where the model has none.
        """

    @abstractmethod
    def _scores(self, pictures: Tensor) -> Tensor:
        """Scores (N, classes) of pictures in the model's layout, with gradients if enabled."""

    @abstractmethod
    def _capture(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """(A, scores), A channels first and a leaf that requires gradients, scores computed from it."""

    @abstractmethod
    def _trace(self, pictures: Tensor, rows: int, columns: int) -> Cells | None:
        """Where the explained layer's cells lie in a picture in the model's layout, whose dimensions are given."""

    @abstractmethod
    def _guided_scores(self, pictures: Tensor) -> Tensor:
        """As `_scores`, its ReLUs guided."""

    # What explainers ask

    def logits(self, images: Tensor) -> Tensor:
        """Scores (N, classes), differentiable where `images` requires gradients."""
        with torch.set_grad_enabled(images.requires_grad and torch.is_grad_enabled()), exact_convolutions():
            return self._scores(self._pictures(images)).float()

    def probabilities(self, images: Tensor) -> Tensor:
        """Softmax of the scores, (N, classes), in batches."""
        return torch.cat([self.logits(part).softmax(dim=1) for part in images.split(self.batch_size)])

    def gradients(self, images: Tensor, targets: Tensor, guided: bool = False) -> tuple[Tensor, Tensor]:
        """(dy/dimages (N, H, W, C), y (N,))."""
        compute = self._guided_scores if guided else self._scores
        parts = [
            self._gradients(some, chosen, compute)
            for some, chosen in zip(images.split(self.batch_size), targets.split(self.batch_size), strict=True)
        ]
        return torch.cat([gradient for gradient, _ in parts]), torch.cat([y for _, y in parts])

    def path_gradients(
        self, starts: Tensor, ends: Tensor, targets: Tensor, nodes: Tensor, weights: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The weighted sum of gradients along the straight line between images, and y at both ends."""
        total = torch.zeros_like(starts)
        for parts in batches(len(starts), len(nodes), self.batch_size):
            rows = [torch.lerp(starts[i], ends[i], nodes[at].to(starts)[:, None, None, None]) for i, at in parts]
            wanted = torch.cat([targets[i] * weights[at].to(targets)[:, None] for i, at in parts])
            gradient, _ = self._gradients(torch.cat(rows), wanted, self._scores)
            for (i, _), some in zip(parts, gradient.split([len(some) for some in rows]), strict=True):
                total[i] += some.sum(dim=0)
        y0, y1 = ((self.logits(images) * targets).sum(dim=1) for images in (starts, ends))
        return total, y0, y1

    def activations(self, images: Tensor) -> Tensor:
        """A (N, channels, h, w), channels first."""
        return self._captured(images).activations.detach()

    def activations_and_gradients(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(A, g, y); the pass through the model is kept for the next explainer of the same images."""
        captured = self._captured(images)
        with torch.enable_grad(), exact_convolutions():
            y = (captured.scores * targets).sum(dim=1)
            g = None
            if y.requires_grad:  # where it does not, nothing after the layer has gradients, the layer among it
                (g,) = torch.autograd.grad(y.sum(), captured.activations, retain_graph=True, allow_unused=True)
        if g is None:
            raise InputError(f"the scores do not depend on what layer '{self.layer}' gives.")
        return captured.activations.detach(), g, y.detach()

    def enlarge(self, maps: Tensor, size: tuple[int, int]) -> Tensor:
        """Maps (N, h, w) of the explained layer's cells at the images' size (H, W)."""
        latest = self._latest if self.looked_at_layer else None  # what another method looked at says nothing of these
        known = latest is not None and maps.shape[1:] == latest.activations.shape[2:]
        return enlarge(maps, size, self.cells if known and self.align == "receptive_field" else None)

    @cached_property
    def cells(self) -> Cells | None:
        """Where the explained layer's cells lie in a picture; None where that cannot be followed."""
        with torch.no_grad():
            return self._trace(self._black(), *((2, 3) if self.layout.channels_first else (1, 2)))

    def has_negative_activations(self) -> Tensor:
        """Of each image of the pass that is kept, bool (N,): whether the layer was looked at before its ReLU."""
        assert self._latest is not None
        return (self._latest.activations.detach() < 0).flatten(1).any(dim=1)

    def answers(self, images: Tensor) -> bool:
        """Whether any score differs between an image, its negative and a black one. Where none does, nothing in a
        picture matters to the model; once one does, it is not asked again."""
        if not self._answers:
            first = images[:1].detach()
            scores = self.logits(torch.cat([first, 255 - first, torch.zeros_like(first)]))
            spread = scores.amax(dim=0) - scores.amin(dim=0)
            self._answers = not bool((spread <= ROUNDING * scores.abs().amax(dim=0)).all())
        return self._answers

    def forget(self) -> None:
        """Lets go of the pass that is kept."""
        self._latest = None

    # Shared

    def _captured(self, images: Tensor) -> Captured:
        self.looked_at_layer = True
        if self._latest is None or self._latest.images is not images:
            self._latest = None  # before the next one is made: only one has to fit into memory
            with torch.enable_grad(), exact_convolutions():
                self._latest = Captured(images, *self._capture(self._pictures(images)))
        return self._latest

    def _gradients(self, images: Tensor, targets: Tensor, compute: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        with torch.enable_grad(), exact_convolutions():
            leaf = images.detach().requires_grad_()
            y = (compute(self._pictures(leaf)).float() * targets).sum(dim=1)
            (gradient,) = torch.autograd.grad(y.sum(), leaf)
        return gradient, y.detach()

    def _black(self) -> Tensor:
        """One black picture in the model's layout."""
        return self._pictures(torch.zeros(1, *self.layout.side, self.layout.channels, device=self.device))

    def _pictures(self, images: Tensor) -> Tensor:
        return images.permute(0, 3, 1, 2) if self.layout.channels_first else images


def batches(images: int, nodes: int, at_once: int) -> Iterator[list[tuple[int, slice]]]:
    """Every (image, node) once, in full batches: lists of an image's number and which of its nodes."""
    for start in range(0, images * nodes, at_once):
        end = min(start + at_once, images * nodes)
        parts = []
        while start < end:
            image, first = divmod(start, nodes)
            last = min(nodes, first + end - start)
            parts.append((image, slice(first, last)))
            start += last - first
        yield parts


def no_scores(model: keras.Model) -> str:
    """What to say of a model that is no classifier."""
    return f"model '{model.name}' must give one row of class scores a picture to be explained."


def log_probabilities(probabilities: Tensor) -> Tensor:
    """Scores of a model whose logits cannot be had; their softmax is the probabilities."""
    return probabilities.float().clamp_min(1e-30).log()


def two_classes(scores: Tensor) -> Tensor:
    """One output z decides between two classes: (0, z), whose softmax is (1 - sigmoid(z), sigmoid(z))."""
    scores = scores.float()
    return torch.cat([torch.zeros_like(scores), scores], dim=1) if scores.shape[1] == 1 else scores
