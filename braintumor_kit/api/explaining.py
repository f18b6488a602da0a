"""`explain`: maps of a batch of pictures, from any Keras classifier, file or run."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from braintumor_kit.errors import InputError
from braintumor_kit.explanation.engine import FLAGS, Method, explain_batch
from braintumor_kit.explanation.network import Network
from braintumor_kit.explanation.open import network_of
from braintumor_kit.explanation.targets import parse_target
from braintumor_kit.memory import kept_memory
from braintumor_kit.model.load import is_channels_first
from braintumor_kit.model.precision import PRECISIONS, resolve_precision
from braintumor_kit.notice import NOTICE
from braintumor_kit.recipe.load import load_explainer
from braintumor_kit.recipe.tables import PixelsTable
from braintumor_kit.registry import Registry
from braintumor_kit.report.notebook import SHOWN, Shown, explanation_html
from braintumor_kit.report.overlays import overlay
from braintumor_kit.runs import Run
from braintumor_kit.workflows.trained import Trained, trained_from_file, trained_of

import keras  # isort: skip  (after what puts it on torch)

BATCH = 32


@dataclass(frozen=True, eq=False)
class Explanation:
    """Maps of one method, one a picture, or one a picture and class for `target="all"`.

    Attributes:
        maps: float32 (M, H, W), raw: neither normalised nor coloured.
        image: (M,), the number of each map's picture.
        targets: what each map explains.
        predicted: the class that the model gives each map's picture.
        probabilities: (M, classes).
        flags: of each map, keys of `braintumor_kit.explanation.engine.FLAGS`.
        completeness: (M,), how far each map's sum is from the change of the score, as a share of it; None where the
            method has no such property.
        layer: the layer that was looked at, None for methods on pixels.
        method: its name.
        signed: whether negative relevance is evidence against the target.
        pictures: (M, H, W, C), 0..255, what was explained.
    """

    maps: NDArray[np.float32]
    image: NDArray[np.int64]
    targets: tuple[str, ...]
    predicted: tuple[str, ...]
    probabilities: NDArray[np.float64]
    flags: tuple[tuple[str, ...], ...]
    completeness: NDArray[np.float64] | None
    layer: str | None
    method: str
    signed: bool
    pictures: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.maps)

    def overlay(self, number: int = 0, mask: NDArray[np.bool_] | None = None, style: str = "heat") -> Image.Image:
        """One map over its picture; notebooks show it as it is.

        Args:
            mask: bool (H, W), whose outline is drawn.
            style: "heat" or "contours".
        """
        said = f"predicted {self.predicted[number]}, p = {self.probabilities[number].max():.2f}"
        words = [f"{self.method}: {self.targets[number]}", said, *self.flags[number], NOTICE]
        return overlay(
            self.pictures[number], self.maps[number], words=words, mask=mask, signed=self.signed, style=style
        )

    def _repr_html_(self) -> str:
        shown = [
            Shown(
                self.overlay(number),
                self.targets[number],
                self.predicted[number],
                float(self.probabilities[number].max()),
                [FLAGS[flag] for flag in self.flags[number]],
            )
            for number in range(min(len(self), SHOWN))
        ]
        return explanation_html(self.method, self.layer, shown, len(self))


def explain(
    model: keras.Model | str | Path,
    images: NDArray[Any],
    method: str = "gradcam",
    *,
    target: str = "predicted",
    classes: Sequence[str] | None = None,
    labels: Sequence[int] | None = None,
    layer: str | None = None,
    precision: str = "auto",
    align: str = "receptive_field",
    plugins: Sequence[Path] = (),
    **options: Any,
) -> Explanation:
    """Explains a batch of pictures.

    Args:
        model: a Keras classifier of pictures, a `.keras` file or a run folder; it is not changed.
        images: (N, H, W), (N, H, W, C) or as the model takes them, 0..255, of the model's size.
        method: an explainer; `btkit plugins list` shows them.
        target: "predicted", "label", a class, "CLASS-vs-CLASS" or "all".
        classes: names of the model's classes; "class_0", "class_1", .. where nobody knows them.
        labels: (N,), numbers of the true classes, for `target="label"`.
        layer: that is looked at; by default the backbone's own, else the last that has rows and columns.
        precision: of convolutions: "auto", "float32" or "bfloat16".
        align: "receptive_field" or "grid", as `btkit explain --align`.
        plugins: folders of plugins of yours.
        options: of the method, such as steps=100.

    Raises:
        InputError: where something does not fit; PluginError where an explainer fails.
    """
    return explain_trained(
        _trained(model, classes), images, method, target=target, classes=classes, labels=labels, layer=layer,
        precision=precision, align=align, plugins=plugins, **options,
    )  # fmt: skip


def explain_trained(
    trained: Trained,
    images: NDArray[Any],
    method: str = "gradcam",
    *,
    target: str = "predicted",
    classes: Sequence[str] | None = None,
    labels: Sequence[int] | None = None,
    layer: str | None = None,
    precision: str = "auto",
    align: str = "receptive_field",
    plugins: Sequence[Path] = (),
    **options: Any,
) -> Explanation:
    """The same of a model that is loaded."""
    _check_choice("precision", precision, ("auto", *PRECISIONS))
    _check_choice("align", align, ("receptive_field", "grid"))
    pictures = np.asarray(images)
    dtype = PRECISIONS[resolve_precision(precision)]
    network = network_of(trained.model, dtype, layer or trained.explain_layer, _shape(pictures))
    network.align = align
    names = _names(trained, network, classes)
    chosen = load_explainer(method, options, Registry.from_environment(plugins))
    ready = Method(method, chosen.make(), chosen.info)
    chooses = parse_target(target, names)
    batch = _as_images(pictures, network)
    numbers = None if labels is None else _as_numbers(labels, len(batch), len(names))
    parts = []
    with kept_memory():
        for start in range(0, len(batch), BATCH):
            some = batch[start : start + BATCH].to(network.device)
            probabilities = network.probabilities(some).double().cpu().numpy()
            true = None if numbers is None else numbers[start : start + BATCH]
            for choose in chooses:
                targets = choose(probabilities.argmax(axis=1), true)
                done = explain_batch(network, ready, some, targets, probabilities)
                parts.append((start, done, probabilities))
            network.forget()
    return _joined(parts, batch, names, ready)


def _joined(parts: list[Any], batch: torch.Tensor, names: Sequence[str], method: Method) -> Explanation:
    """Batches put together, the maps of one picture next to each other."""
    image = np.concatenate([start + np.arange(len(done.maps)) for start, done, _ in parts])
    order = np.argsort(image, kind="stable")
    probabilities = np.concatenate([p for _, _, p in parts])[order]
    flags = [flags for _, done, _ in parts for flags in done.flags]
    targets = [name for _, done, _ in parts for name in done.targets.names]
    first = parts[0][1]
    return Explanation(
        maps=np.concatenate([done.maps for _, done, _ in parts])[order],
        image=image[order],
        targets=tuple(targets[place] for place in order),
        predicted=tuple(names[number] for number in probabilities.argmax(axis=1)),
        probabilities=probabilities,
        flags=tuple(flags[place] for place in order),
        completeness=(
            None if first.completeness is None else np.concatenate([d.completeness for _, d, _ in parts])[order]
        ),
        layer=first.layer,
        method=method.name,
        signed=method.signed,
        pictures=batch[image[order]].clamp(0, 255).round().byte().numpy(),
    )


def _trained(model: keras.Model | str | Path, classes: Sequence[str] | None) -> Trained:
    if isinstance(model, keras.Model):
        return Trained(model, tuple(classes or ()), PixelsTable())
    path = Path(model)
    return trained_of(Run(path)) if path.is_dir() else trained_from_file(path, any_end=True)


def _names(trained: Trained, network: Network, classes: Sequence[str] | None) -> tuple[str, ...]:
    names = tuple(classes or trained.classes) or tuple(f"class_{number}" for number in range(network.classes))
    if len(names) != network.classes:
        raise InputError(f"the model has {network.classes} classes; {len(names)} names were given.")
    return names


def _check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise InputError(f"{name} '{value}' is unknown: expected {', '.join(choices[:-1])} or {choices[-1]}.")


def _shape(pictures: NDArray[Any]) -> tuple[int, int, int]:
    """(H, W, C) of pictures in either layout, for models that take any size; of grey ones C is 3."""
    if pictures.ndim not in (3, 4):
        raise InputError(f"the model takes pictures (N, H, W) or (N, H, W, C); these are {pictures.shape}.")
    shape = pictures.shape if pictures.ndim == 4 else (*pictures.shape, 3)
    return (shape[2], shape[3], shape[1]) if is_channels_first(shape) else shape[1:]


def _as_numbers(labels: Sequence[int], pictures: int, classes: int) -> NDArray[np.int64]:
    numbers = np.asarray(labels)
    if numbers.shape != (pictures,) or numbers.dtype.kind not in "iu":
        raise InputError(
            f"labels must be {pictures} class numbers, one a picture; these are {numbers.dtype} {numbers.shape}."
        )
    if numbers.min() < 0 or numbers.max() >= classes:
        raise InputError(f"labels must be in 0..{classes - 1}; these are in {numbers.min()}..{numbers.max()}.")
    return numbers.astype(np.int64)


def _as_images(pictures: NDArray[Any], network: Network) -> torch.Tensor:
    """float32 (N, H, W, C)."""
    layout = network.layout
    wanted = (*layout.side, layout.channels)
    if layout.channels_first and pictures.shape[1:] == (layout.channels, *layout.side):
        pictures = pictures.transpose(0, 2, 3, 1)
    if pictures.ndim == 3:
        pictures = pictures[..., np.newaxis]
    if pictures.ndim != 4 or len(pictures) == 0 or pictures.shape[1:3] != layout.side:
        raise InputError(f"the model takes pictures (N, {', '.join(map(str, wanted))}); these are {pictures.shape}.")
    if pictures.shape[3] not in (1, layout.channels):
        raise InputError(f"the model takes {layout.channels} channels; these pictures have {pictures.shape[3]}.")
    batch = torch.from_numpy(np.array(pictures, dtype=np.float32))
    return batch.expand(-1, -1, -1, layout.channels).contiguous()
