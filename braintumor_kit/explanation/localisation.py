"""Where a map lies: on the tumour, on the head, or beside both.

All figures are taken of the map's relevance, its positive part: what speaks against the class does not say where the
network finds it. Ties count in expectation, so that a map of few different values gains nothing by the order of its
pixels, and a constant map scores what chance does.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Map = NDArray[np.float32]
Mask = NDArray[np.bool_]

IOU_THRESHOLD = 0.5
TOLERANCE = 15 / 224
"""Of the pointing game, as a share of the picture's side: 15 pixels at the usual size."""

OF_MASK = ("pointing_game", "pointing_game_strict", "relevance_mass", "relevance_rank", "iou")
OF_HEAD = ("outside_head", "peak_outside_head")

_ROWS = ("top", "", "bottom")
_COLUMNS = ("left", "", "right")


def localise(raw: Map, mask: Mask | None = None, head: Mask | None = None) -> dict[str, float]:
    """Every figure of one map.

    Args:
        raw: (H, W), signed or not.
        mask: of the tumour (H, W); None or empty where there is none.
        head: (H, W), True inside the head; None where not known.

    Returns:
        The figures of OF_MASK where there is a mask, those of OF_HEAD where there is a head.

    Raises:
        ValueError: where a mask is not of the map's shape.
    """
    for name, other in (("mask", mask), ("head", head)):
        if other is not None and other.shape != raw.shape:
            raise ValueError(f"a map of shape {raw.shape} and a {name} of shape {other.shape}: expected the same.")
    r = relevance(raw)
    figures: dict[str, float] = {}
    if mask is not None and mask.any():
        figures |= {"pointing_game": pointing_game(r, mask, TOLERANCE * max(mask.shape))}
        figures |= {"pointing_game_strict": pointing_game(r, mask), "relevance_mass": relevance_mass(r, mask)}
        figures |= {"relevance_rank": relevance_rank(r, mask), "iou": iou(r, mask)}
    if head is not None:
        figures |= {"outside_head": outside_head(r, head), "peak_outside_head": peak_outside_head(r, head)}
    return figures


def localise_baselines(mask: Mask | None = None, head: Mask | None = None) -> dict[str, dict[str, float]]:
    """What maps score that have seen neither slice nor network: `chance` and `centre_blob`.

    Chance is a constant map. A blob at the centre is the harder test: tumours, pituitary ones most of all, lie near it.

    Raises:
        ValueError: where neither mask nor head is given, or their shapes differ.
    """
    known = mask if mask is not None else head
    if known is None:
        raise ValueError("expected a mask, a head or both; found neither.")
    constant = np.ones(known.shape, np.float32)
    return {"chance": localise(constant, mask, head), "centre_blob": localise(centre_blob(*known.shape), mask, head)}


def relevance(raw: Map) -> Map:
    """The positive part of a map: evidence for its target."""
    return np.maximum(raw, 0)


def pointing_game(r: Map, mask: Mask, tolerance: float = 0.0) -> float:
    """Whether the maximum lies in the mask or at most `tolerance` pixels from it (Zhang et al. 2016, arXiv 1608.00507,
    who allow 15). Of several maximal pixels, the share that does; 0 for an empty map."""
    if r.max() <= 0:
        return 0.0
    near = ndimage.distance_transform_edt(~mask) <= tolerance if tolerance else mask
    return float(near[r == r.max()].mean())


def relevance_mass(r: Map, mask: Mask) -> float:
    """Share of the relevance that lies in the mask (Arras et al. 2022, arXiv 2003.07258); 0 for an empty map."""
    whole = r.sum(dtype=np.float64)
    return float(r[mask].sum(dtype=np.float64) / whole) if whole > 0 else 0.0


def relevance_rank(r: Map, mask: Mask) -> float:
    """Share of the K most relevant pixels that lie in the mask of K pixels (Arras et al. 2022).

    Where pixels of the same relevance are cut apart, the mean over all ways to do so. A constant map, an empty one
    too, thus scores the mask's share of the picture. 0 for an empty mask.
    """
    count = int(mask.sum())
    if count == 0:
        return 0.0
    border = np.partition(r, -count, axis=None)[-count]
    above, tied = r > border, r == border
    inside = mask[above].sum() + (count - above.sum()) * mask[tied].mean()
    return float(inside / count)


def iou(r: Map, mask: Mask, threshold: float = IOU_THRESHOLD) -> float:
    """Intersection over union of the mask and the pixels of at least `threshold` of the maximum; 0 for an empty map."""
    if r.max() <= 0:
        return 0.0
    chosen = r >= threshold * r.max()
    return float((chosen & mask).sum() / (chosen | mask).sum())


def outside_head(r: Map, head: Mask) -> float:
    """Share of the relevance that lies outside of the head; 0 for an empty map."""
    return relevance_mass(r, ~head)


def peak_outside_head(r: Map, head: Mask) -> float:
    """Share of the maximal pixels that lie outside of the head; 0 for an empty map."""
    return pointing_game(r, ~head)


def peak_place(r: Map) -> str:
    """The third of the picture, across and down, where the maximum lies: "top left", "top", .. "centre", .. .

    Of several maximal pixels the one nearest to their mean, which makes it "centre" for a constant map.
    """
    peaks = np.argwhere(r == r.max())
    row, column = peaks[((peaks - peaks.mean(axis=0)) ** 2).sum(axis=1).argmin()]
    height, width = r.shape
    return f"{_ROWS[3 * row // height]} {_COLUMNS[3 * column // width]}".strip() or "centre"


def centre_blob(height: int, width: int) -> Map:
    """A Gaussian at the centre (H, W), maximum about 1, standard deviation 1/8 of each side."""
    down, across = (
        np.exp(-(((np.arange(side) - (side - 1) / 2) / (side / 8)) ** 2) / 2).astype(np.float32)
        for side in (height, width)
    )
    return down[:, None] * across
