"""The sheet of explained slices: examples in rows, methods in columns, right and wrong predictions apart.

The sheet is one set of axes in inches, y downwards: hundreds of small axes would take a layout engine minutes.
"""

import textwrap
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import contourpy
import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray
from PIL import Image

from braintumor_kit.notice import NOTICE
from braintumor_kit.report.overlays import (
    OUTLINE,
    OUTLINE_EDGE,
    heat,
    in_colour,
    over_tissue,
    scale_end,
    shortened,
)
from braintumor_kit.report.style import INK, QUIET, figure

MARGIN, GAP = 0.15, 0.06
CELL = 1.5
BESIDE = 1.65  # the words at a row's left
KEY = 0.21  # a line of the key
TITLE, COLUMNS = 0.5, 0.36
CAPTION = 0.14  # flags below a map
BETWEEN_CLASSES = 0.12
"""Inches."""

WRONG = "#D55E00"
SIZE, SMALL = 8, 7
"""Of letters, in points."""

_FINEST = 256  # pixels a side of a picture on the sheet; more are not seen and fill the memory


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """A slice with its maps, to be shown.

    Attributes:
        label: the true class; None where it is not known.
        probability: of the predicted class.
        picture: uint8 (H, W), (H, W, 1) or (H, W, 3), as the network saw it.
        target: what the maps explain: a class, or words for a contrast of two.
        maps: raw relevance, float32 (H, W), by method.
        mask: bool (H, W), the tumour's.
        signed: the methods whose negative relevance counts.
        flags: what is odd about a map, by method.
    """

    id: str
    label: str | None
    predicted: str
    probability: float
    picture: NDArray[np.uint8]
    target: str
    maps: Mapping[str, NDArray[np.float32]]
    mask: NDArray[np.bool_] | None = None
    signed: Collection[str] = frozenset()
    flags: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def correct(self) -> bool | None:
        """Whether the prediction is the label; None where the label is not known."""
        return None if self.label is None else self.label == self.predicted


def choose_examples(
    labels: Sequence[str | None],
    predicted: Sequence[str],
    probability: Sequence[float],
    per_class: int = 2,
    wrong_per_class: int = 2,
) -> list[int]:
    """Indices of slices to show, by a rule that leaves no room to pick pretty ones.

    For each true class in order of name: of the correct predictions, ranked by probability and cut into `per_class`
    equal groups, the middle one of each (for 2, the lower and the upper quartile; for 1, the median), then the
    `wrong_per_class` wrong ones of the largest probability. Slices without a label come last, by predicted class,
    chosen as correct ones are. The more probable come first; equal probabilities stand in the order given.
    """
    rows = sorted(enumerate(zip(labels, predicted, probability, strict=True)), key=lambda row: -row[1][2])
    right: dict[str, list[int]] = {}
    wrong: dict[str, list[int]] = {}
    unknown: dict[str, list[int]] = {}
    for index, (label, guess, _) in rows:
        if label is None:
            unknown.setdefault(guess, []).append(index)
        else:
            (right if label == guess else wrong).setdefault(label, []).append(index)
    chosen: list[int] = []
    for name in sorted(right.keys() | wrong.keys()):
        chosen += _spread(right.get(name, []), per_class) + wrong.get(name, [])[:wrong_per_class]
    for name in sorted(unknown):
        chosen += _spread(unknown[name], per_class)
    return chosen


def _spread(ranked: list[int], count: int) -> list[int]:
    """The middle one of each of `count` equal groups of a ranking."""
    if len(ranked) <= count:
        return ranked
    return [ranked[(2 * group + 1) * len(ranked) // (2 * count)] for group in range(count)]


def summary_sheet(path: Path, examples: Sequence[Example], methods: Sequence[str]) -> None:
    """Draws each example's slice and its maps side by side, each map on a scale of its own.

    Correct predictions, wrong ones and slices without a label stand in blocks of their own, grouped by class.

    Args:
        methods: the columns, in order; an example without a method's map has a blank there.

    Raises:
        ValueError: where a map's or mask's shape is not its picture's.
        WorkError: where the file cannot be written.
    """
    blocks = _blocks(examples)
    key = _key(examples, methods)
    caption = CAPTION if any(any(example.flags.values()) for example in examples) else 0.0
    width = 2 * MARGIN + BESIDE + (1 + len(methods)) * (CELL + GAP) - GAP
    height = 2 * MARGIN + KEY * len(key) + sum(_height(rows, caption) for _, rows in blocks)
    with figure(path, width, height) as drawn:
        drawn.set_layout_engine("none")
        axes = drawn.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0), autoscale_on=False)
        axes.axis("off")
        _draw_key(axes, key)
        y = MARGIN + KEY * len(key)
        for title, rows in blocks:
            _draw_block(axes, y, title, rows, methods, caption)
            y += _height(rows, caption)


# Blocks and rows


def _blocks(examples: Sequence[Example]) -> list[tuple[str, list[Example]]]:
    """Titles with their examples, sorted by class; without a labelled example, no word about right and wrong."""
    known = sorted((example for example in examples if example.label is not None), key=_class_of)
    unknown = sorted((example for example in examples if example.label is None), key=_class_of)
    blocks = []
    if known or not unknown:
        blocks.append(("Correct predictions", [example for example in known if example.correct]))
        blocks.append(("Wrong predictions", [example for example in known if not example.correct]))
    if unknown:
        blocks.append(("Slices of unknown class", unknown))
    return blocks


def _class_of(example: Example) -> str:
    return example.predicted if example.label is None else example.label


def _height(rows: Sequence[Example], caption: float) -> float:
    """Of a block, in inches."""
    if not rows:
        return TITLE + COLUMNS
    classes = len({_class_of(row) for row in rows})
    return TITLE + COLUMNS + len(rows) * (CELL + GAP + caption) + (classes - 1) * BETWEEN_CLASSES


def _draw_block(
    axes: Axes, y: float, title: str, rows: Sequence[Example], methods: Sequence[str], caption: float
) -> None:
    right = axes.get_xlim()[1] - MARGIN
    y += TITLE
    axes.text(MARGIN, y - 0.08, title, fontsize=11, fontweight="bold", color=INK)
    axes.plot([MARGIN, right], [y, y], color=QUIET, linewidth=0.8)
    if not rows:
        kind = title.split()[0].lower()
        _write(axes, MARGIN, y + 0.2, f"No {kind} prediction among the slices explained.")
        return
    y += COLUMNS
    for column, name in enumerate(("slice", *methods)):
        x = MARGIN + BESIDE + column * (CELL + GAP)
        _write(axes, x + CELL / 2, y - 0.05, _heading(name), ha="center", va="bottom")
    for _, group in groupby(rows, key=_class_of):
        for example in group:
            _draw_row(axes, y, example, methods)
            y += CELL + GAP + caption
        y += BETWEEN_CLASSES


def _draw_row(axes: Axes, y: float, example: Example, methods: Sequence[str]) -> None:
    _draw_words(axes, y, example)
    x = MARGIN + BESIDE
    _draw_cell(axes, x, y, in_colour(example.picture), example.mask)
    for method in methods:
        x += CELL + GAP
        if method not in example.maps:
            continue
        _draw_cell(axes, x, y, _coloured(example, method), example.mask)
        flags = ", ".join(example.flags.get(method, ()))
        flags = _fitted(flags, CELL, SMALL)
        _write(axes, x + CELL / 2, y + CELL + 0.02, flags, ha="center", va="top", fontsize=SMALL, color=QUIET)


def _draw_words(axes: Axes, y: float, example: Example) -> None:
    colour = WRONG if example.correct is False else INK
    room = BESIDE - 0.1
    name = _fitted("class unknown" if example.label is None else example.label, 0.85 * room)  # bold letters are wider
    lines = [
        (name, INK, "bold"),
        (_fitted(f"predicted {example.predicted}", room), colour, "normal"),
        (f"p = {example.probability:.2f}", colour, "normal"),
    ]
    if example.target != example.predicted:
        lines.append((_fitted(f"maps: {example.target}", room), INK, "normal"))
    lines.append((_fitted(example.id[::-1], room)[::-1], QUIET, "normal"))  # an identifier's end tells it from others
    for number, (text, colour, weight) in enumerate(lines):
        _write(axes, MARGIN, y + 0.1 + 0.17 * number, text, va="center", color=colour, fontweight=weight)


# Cells


def _coloured(example: Example, method: str) -> NDArray[np.uint8]:
    relevance, signed = example.maps[method], method in example.signed
    if relevance.shape != example.picture.shape[:2]:
        raise ValueError(f"{method} of {example.id} is of shape {relevance.shape}, its picture {example.picture.shape}")
    top = scale_end(relevance, signed)
    return heat(example.picture, relevance, top, signed) if top else in_colour(example.picture)


def _draw_cell(axes: Axes, x: float, y: float, pixels: NDArray[np.uint8], mask: NDArray[np.bool_] | None) -> None:
    """A picture in the middle of a cell, as large as fits, with the outline of a mask."""
    height, width = pixels.shape[:2]
    scale = CELL / max(height, width)
    x, y = x + (CELL - width * scale) / 2, y + (CELL - height * scale) / 2
    small = Image.fromarray(pixels)
    small.thumbnail((_FINEST, _FINEST))
    extent = (x, x + width * scale, y + height * scale, y)
    axes.imshow(np.asarray(small), extent=extent, aspect="auto")
    if mask is None:
        return
    if mask.shape != (height, width):
        raise ValueError(f"a mask is of shape {mask.shape} where its picture is of {pixels.shape}")
    for line in contourpy.contour_generator(z=np.pad(mask, 1).astype(np.float64)).lines(0.5):
        points = (np.asarray(line) - 0.5) * scale + (x, y)  # the frame of one pixel taken off, to pixels' corners
        for colour, thickness in ((OUTLINE_EDGE, 1.6), (OUTLINE, 0.8)):
            axes.plot(*points.T, color=np.divide(colour, 255), linewidth=thickness)


# The key and words


def _key(examples: Sequence[Example], methods: Sequence[str]) -> list[tuple[str, str]]:
    """(kind, words) of each line of the key; only what the sheet shows is explained."""
    shown = [(example, method) for example in examples for method in methods if method in example.maps]
    signed = {method in example.signed for example, method in shown}
    key = []
    if False in signed or not signed:
        key.append(("unsigned", "relevance: none | most (each map by its own maximum)"))
    if True in signed:
        key.append(("signed", "signed relevance: against | for (each map by its own range)"))
    if any(example.mask is not None for example in examples):
        key.append(("mask", "tumour mask: | "))
    usual = all(example.target == example.predicted for example in examples)
    key.append(("", "maps explain the predicted class" + ("" if usual else " unless a row says otherwise") + " | "))
    key.append(("", f"{NOTICE} | "))
    return key


def _draw_key(axes: Axes, key: Sequence[tuple[str, str]]) -> None:
    bar = 0.8
    for number, (kind, words) in enumerate(key):
        y = MARGIN + KEY * (number + 0.5)
        before, after = words.split(" | ")
        if not kind:
            _write(axes, MARGIN, y, before, va="center")
            continue
        left = MARGIN + BESIDE
        _write(axes, left - 0.08, y, before, va="center", ha="right")
        if kind == "mask":
            for colour, thickness in ((OUTLINE_EDGE, 2.6), (OUTLINE, 1.4)):
                axes.plot([left, left + 0.3], [y, y], color=np.divide(colour, 255), linewidth=thickness)
            continue
        extent = (left, left + bar, y + 0.055, y - 0.055)
        axes.imshow(over_tissue(255, kind == "signed")[np.newaxis], extent=extent, aspect="auto")
        _write(axes, left + bar + 0.08, y, after, va="center")


def _write(axes: Axes, x: float, y: float, text: str, **options: Any) -> None:
    """Plain words: a dollar sign is a dollar sign."""
    axes.text(x, y, text, parse_math=False, **{"fontsize": SIZE, "color": INK, **options})


def _heading(name: str) -> str:
    """A method's name in two lines at most, broken behind an underscore."""
    lines = textwrap.wrap(name.replace("_", "_ "), 17, max_lines=2, placeholder="…")
    return "\n".join(_fitted(line.replace("_ ", "_"), CELL) for line in lines)


def _fitted(text: str, width: float, size: int = SIZE) -> str:
    """As much of a text as fits in so many inches."""
    return shortened(text, width * 720, size * 10)  # tenths of a point, where rounded widths do no harm
