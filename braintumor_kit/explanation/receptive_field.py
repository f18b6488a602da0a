"""Where the cells of a layer lie in the picture.

A map of 7 by 7 cells is usually stretched over the picture, as if cell i were centred at (i + 1/2) H / 7. It seldom
is: a convolution of stride 2 with one pixel of padding on each side centres its cell i at pixel 2 i, and after five of
them cell i of a ResNet lies at 32 i, half a cell up and left of where stretching puts it. The centre of a cell's
receptive field follows exactly from strides, kernels and paddings (Araujo, Norris and Sim 2019, Distill, "Computing
Receptive Fields of Convolutional Neural Networks"), which are read here off one pass through the network.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

Axis = tuple[float, float]
"""(step, start): cell i along an axis of the picture is centred at pixel start + i step."""

Axes = Mapping[int, Axis]
"""By dimension of a tensor, for those two that are rows and columns, rows first."""


@dataclass(frozen=True)
class Cells:
    """Centres of a layer's cells in pixels of the model's input.

    Attributes:
        rows, columns: (step, start) along each.
    """

    rows: Axis
    columns: Axis


def enlarge(maps: Tensor, size: tuple[int, int], cells: Cells | None = None) -> Tensor:
    """Maps (N, h, w) at the picture's size (N, H, W), bilinearly.

    Args:
        cells: where the maps' cells lie; None stretches them over the picture evenly, as torch's `interpolate` with
            align_corners=False does. Beyond the outermost centres the map goes on as it is there.
    """
    if cells is None:
        if maps.shape[1:] == size:
            return maps
        return F.interpolate(maps[:, None], size, mode="bilinear", align_corners=False)[:, 0]
    down, across = (
        _weights(axis, cells_along, length, maps)
        for axis, cells_along, length in zip((cells.rows, cells.columns), maps.shape[1:], size, strict=True)
    )
    return down @ maps @ across.T


def _weights(axis: Axis, cells: int, length: int, like: Tensor) -> Tensor:
    """How much of each cell each pixel along an axis has, (length, cells)."""
    step, start = axis
    place = ((torch.arange(length, dtype=torch.float64) - start) / step).clamp(0, cells - 1)
    return (1 - (place[:, None] - torch.arange(cells)).abs()).clamp_min(0).to(like)


class Tracing(TorchDispatchMode):
    """Inside, follows where the rows and columns of tensors lie in a picture, through whatever torch computes.

    Args:
        picture: the tensor that they are followed from.
        rows, columns: its dimensions.
    """

    def __init__(self, picture: Tensor, rows: int, columns: int) -> None:
        super().__init__()
        self._known: dict[int, tuple[Tensor, Axes]] = {}
        self._keep(picture, {rows: (1.0, 0.0), columns: (1.0, 0.0)})

    def cells(self, value: Tensor) -> Cells | None:
        """Where a tensor's cells lie, None where that could not be followed."""
        axes = self._axes(value)
        return Cells(*axes.values()) if axes else None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = next((value for value in _tensors(args) if self._axes(value)), None)
        made = next(iter(_tensors((result,))), None)
        if given is not None and made is not None:
            axes = _followed(func.overloadpacket.__name__, given, self._axes(given) or {}, made, args, kwargs or {})
            if axes:
                self._keep(made, axes)
        return result

    def _axes(self, value: Tensor) -> Axes | None:
        kept = self._known.get(id(value))
        return kept[1] if kept else None

    def _keep(self, value: Tensor, axes: Axes) -> None:
        self._known[id(value)] = value, axes  # the tensor too, so that its id stays its own


def _tensors(values: Any) -> list[Tensor]:
    flat = [inner for value in values for inner in (value if isinstance(value, list | tuple) else [value])]
    return [value for value in flat if isinstance(value, Tensor)]


def _followed(
    name: str, given: Tensor, axes: Axes, made: Tensor, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Axes | None:
    """The axes of what an operation makes of a tensor with known axes; None where they cannot be told."""
    rule = _RULES.get(name)
    if rule is not None:
        return rule(axes, args, kwargs)
    # Anything else that leaves rows and columns as many as they are is taken to work on each place by itself.
    same = made.ndim == given.ndim and all(made.shape[dim] == given.shape[dim] for dim in axes)
    return axes if same else None


def _convolution(axes: Axes, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Axes | None:
    _, weight, _, stride, padding, dilation, transposed, *_ = args
    if transposed or set(axes) != {2, 3}:
        return None
    return _windows(axes, weight.shape[2:], stride, padding, dilation)


def _pooling(axes: Axes, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Axes | None:
    _, kernel, stride, padding, dilation = [*args, *([], [0], [1])[len(args) - 2 :]][:5]
    return _windows(axes, kernel, stride or kernel, padding, dilation) if set(axes) == {2, 3} else None


def _averaging(axes: Axes, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Axes | None:
    return _pooling(axes, args[:4], kwargs)  # what follows is no dilation


def _windows(axes: Axes, kernel: Any, stride: Any, padding: Any, dilation: Any) -> Axes:
    """Windows of `kernel` pixels, `stride` apart; the first is centred (kernel - 1) / 2 - padding pixels on."""
    moved = {}
    for dim, (step, start) in axes.items():
        k, s, p, d = (values[(dim - 2) % len(values)] for values in (kernel, stride, padding, dilation))
        moved[dim] = step * s, start + ((k - 1) * d / 2 - p) * step
    return moved


def _padding(axes: Axes, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Axes:
    value, pad = args[:2]
    before = {value.ndim - 1 - place: amount for place, amount in enumerate(pad[::2])}
    return {dim: (step, start - before.get(dim, 0) * step) for dim, (step, start) in axes.items()}


def _permuted(axes: Axes, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Axes:
    value, order = args[:2]
    places = {old % value.ndim: new for new, old in enumerate(order)}
    return {places[dim]: axis for dim, axis in axes.items()}


def _transposed(axes: Axes, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Axes:
    value, a, b = args[:3]
    order = list(range(value.ndim))
    order[a], order[b] = order[b], order[a]
    return _permuted(axes, (value, order), kwargs)


def _sliced(axes: Axes, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Axes:
    value, dim, start, _, step = [*args, *(0, None, None, 1)[len(args) - 1 :]][:5]
    dim %= value.ndim
    if dim not in axes:
        return axes
    size, first = axes[dim]
    begin = max(start + value.shape[dim], 0) if start is not None and start < 0 else start or 0
    return {**axes, dim: (size * (step or 1), first + begin * size)}


def _unknown(axes: Axes, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    return None


_RULES: Mapping[str, Callable[[Axes, tuple[Any, ...], Mapping[str, Any]], Axes | None]] = {
    "convolution": _convolution,
    "max_pool2d_with_indices": _pooling,
    "max_pool2d": _pooling,
    "avg_pool2d": _averaging,
    "constant_pad_nd": _padding,
    "permute": _permuted,
    "transpose": _transposed,
    "slice": _sliced,
    "flip": _unknown,
    "roll": _unknown,
}
