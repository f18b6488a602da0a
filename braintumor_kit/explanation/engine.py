"""One method, one batch: maps at the images' size, with flags."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from braintumor_kit.contracts import Explainer, Maps, PluginError
from braintumor_kit.explanation.network import Network
from braintumor_kit.explanation.targets import Targets
from braintumor_kit.registry import PluginInfo

FLAGS: Mapping[str, str] = {
    "empty": "no pixel has any relevance",
    "constant": "the model says the same of every picture: no map of it means anything",
    "not_finite": "the method gave values that are no numbers; they count as zero",
    "saturated": "the target's probability is above 0.9999: it says nothing any more, the map explains the score",
    "target_differs": "the model predicts another class than the one that is explained",
    "incomplete": "relevance sums to something more than 1 % off the change of the score: take more steps",
    "before_relu": "the layer's output has negative values: methods on it expect the layer after its ReLU",
}
"""What each flag says of a map."""

SATURATED = 0.9999
INCOMPLETE = 0.01


@dataclass(frozen=True)
class Method:
    """A method of explanation.

    Attributes:
        name: under which its maps are kept.
        explainer: the plugin.
        info: where the plugin is from, for messages.
    """

    name: str
    explainer: Explainer[Any]
    info: PluginInfo

    @property
    def signed(self) -> bool:
        """Whether negative values of its maps are evidence against the target."""
        return bool(self.explainer.signed)


@dataclass(frozen=True)
class Explained:
    """Maps of one method for one batch.

    Attributes:
        method: its name.
        targets: what each map explains.
        maps: float32 (N, H, W), raw, at the images' size.
        flags: of each map, keys of `FLAGS`.
        completeness: (N,), None where the method has no such property.
        layer: the layer that was looked at, None for methods on pixels.
    """

    method: str
    targets: Targets
    maps: NDArray[np.float32]
    flags: tuple[tuple[str, ...], ...]
    completeness: NDArray[np.float64] | None
    layer: str | None


def explain_batch(
    network: Network, method: Method, images: Tensor, targets: Targets, probabilities: NDArray[np.floating[Any]]
) -> Explained:
    """Explains one batch.

    Args:
        images: float32 (N, H, W, C), 0..255, on the network's device. Methods that are given the same tensor one
            after the other share a pass through the trunk.
        probabilities: (N, classes), what the model says of the images.

    Raises:
        InputError: where the method does not fit the model.
        PluginError: where the explainer fails, or gives something else than its contract says.
    """
    network.looked_at_layer = False
    weights = torch.from_numpy(targets.weights).to(images)
    with method.info.blamed("explaining"):
        given = method.explainer.maps(network, images, weights)
    made = given if isinstance(given, Maps) else Maps(given)
    values = _checked(made.values, len(images), method)
    completeness = _completeness(made.completeness, len(images), method)
    finite = values.isfinite()
    size = (images.shape[1], images.shape[2])
    zeroed = torch.where(finite, values, torch.zeros_like(values))
    maps = zeroed if zeroed.shape[1:] == size else network.enlarge(zeroed, size)
    marks = {
        "empty": ~maps.flatten(1).any(dim=1),
        "constant": torch.tensor([not network.answers(images)] * len(images)),
        "not_finite": ~finite.flatten(1).all(dim=1),
        "saturated": torch.from_numpy(_saturated(targets, probabilities)),
        "target_differs": torch.from_numpy(targets.classes != probabilities.argmax(axis=1)),
        "incomplete": None if completeness is None else completeness > INCOMPLETE,
        "before_relu": network.has_negative_activations() if network.looked_at_layer else None,
    }
    layer = network.layer if network.looked_at_layer else None
    shares = None if completeness is None else completeness.double().cpu().numpy()
    return Explained(method.name, targets, maps.cpu().numpy(), _flags(marks, len(images)), shares, layer)


def _checked(values: Any, count: int, method: Method) -> Tensor:
    if not isinstance(values, Tensor) or values.ndim != 3 or len(values) != count or 0 in values.shape[1:]:
        found = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise PluginError(f"{method.info} gave {found} for {count} images; its contract asks for a tensor (N, h, w).")
    return values.detach().float()


def _completeness(shares: Any, count: int, method: Method) -> Tensor | None:
    if shares is None:
        return None
    if not isinstance(shares, Tensor) or shares.shape != (count,):
        found = tuple(shares.shape) if isinstance(shares, Tensor) else type(shares).__name__
        raise PluginError(
            f"{method.info} gave completeness {found} for {count} images; its contract asks for a tensor (N,)."
        )
    return shares.detach()


def _saturated(targets: Targets, probabilities: NDArray[np.floating[Any]]) -> NDArray[np.bool_]:
    if not targets.alone:
        return np.zeros(len(probabilities), bool)
    return np.asarray(np.take_along_axis(probabilities, targets.classes[:, None], axis=1)[:, 0] > SATURATED)


def _flags(marks: Mapping[str, Tensor | None], count: int) -> tuple[tuple[str, ...], ...]:
    set_ = {name: mark.tolist() for name, mark in marks.items() if mark is not None}
    return tuple(tuple(name for name in FLAGS if set_.get(name, [False] * count)[image]) for image in range(count))


def unique_names(names: Sequence[str]) -> list[str]:
    """Names by which methods are told apart: the second "occlusion" is "occlusion-2"."""
    seen: dict[str, int] = {}
    unique = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        unique.append(name if seen[name] == 1 else f"{name}-{seen[name]}")
    return unique
