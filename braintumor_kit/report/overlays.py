"""Explanation maps over their slices: the brain in the middle, everything that is written in margins around it.

Relevance is shown as a share of `top`, the end of the colour scale. Where the share is zero the slice keeps its
pixels; elsewhere the map's colour covers it, the more the larger the share (`heat` gives the formula).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import contourpy
import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from braintumor_kit.files import whole
from braintumor_kit.report.style import INK, QUIET

Array = NDArray[Any]

STYLES = ("heat", "contours")

SIDE_ON_SCREEN = 448
"""Small pictures are enlarged by the whole factor that brings their longer side nearest to this, in pixels."""

OPACITY, RISE = 0.75, 0.7
"""A colour covers OPACITY x share ** RISE of the slice; a power below 1 keeps weak relevance visible."""

LEVELS = (0.25, 0.5, 0.75)
"""Contours are drawn at these shares of the largest relevance."""

OUTLINE, OUTLINE_EDGE = (0, 255, 255), (0, 0, 0)
"""A mask's outline, and the dark line around it that sets it off from bright tissue and bright colours."""

_TISSUE = 96  # a common grey of brain; the colour bar is drawn over it, so that it shows what the slice shows
_PAPER = (255, 255, 255)
_STEPS = 255  # colours of a map; odd, so that a signed map has one for zero
_FINER = 2  # contours are drawn so many times larger and shrunk, which smooths their edges
_NARROWEST = 360  # pixels that a line of words is given at least
_MOST_LETTERS = 400  # of a line of words; more would only be measured to be cut

_NONE_TO_MOST = ("inferno", 0.25, 1.0)
_NONE_TO_AGAINST, _NONE_TO_FOR = ("Blues_r", 0.2, 0.7), ("Oranges_r", 0.2, 0.7)
"""Colour maps of Matplotlib and the part of each that stands off from dark tissue: lighter always means more."""

OUTLYING = 0.005
"""Share of a signed map's pixels that are drawn as the end of its colour scale."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where things stand on an overlay, in its pixels.

    Attributes:
        factor: each of the slice's pixels becomes factor x factor pixels.
        left, top, width, height: the enlarged slice.
        size: (width, height) of the whole overlay.
        letters: height of the letters; margins and the colour bar grow with it.
    """

    factor: int
    left: int
    top: int
    width: int
    height: int
    size: tuple[int, int]
    letters: int

    @property
    def bar(self) -> tuple[int, int, int, int]:
        """left, top, width, height of the colour bar."""
        return self.left + self.width + self.letters, self.top, self.letters, max(self.height, 6 * self.letters)


def layout(height: int, width: int, lines: int) -> Layout:
    """The layout for a slice of that size, in pixels, with so many lines of words above it."""
    factor = max(1, round(SIDE_ON_SCREEN / max(height, width)))
    high, wide = height * factor, width * factor
    letters = min(max(14, max(high, wide) // 32), 28)
    margin = letters // 2
    top = margin + (lines * _pitch(letters) + margin // 2 if lines else 0)
    beside = 2 * letters + margin + _label_width(letters)
    size = max(margin + wide + beside, _NARROWEST), top + max(high, 6 * letters) + margin
    return Layout(factor, margin, top, wide, high, size, letters)


def overlay(
    picture: NDArray[np.uint8],
    relevance: NDArray[np.float32],
    *,
    words: Sequence[str] = (),
    mask: NDArray[np.bool_] | None = None,
    top: float | None = None,
    signed: bool = False,
    style: str = "heat",
) -> Image.Image:
    """Draws a map over its slice, with words above and a colour bar of raw values beside it.

    Args:
        picture: uint8 (H, W), (H, W, 1) or (H, W, 3), 0..255.
        relevance: (H, W), raw. What is negative counts as none unless `signed`; so does what is not finite.
        words: lines of text; one that is too long ends in an ellipsis.
        mask: bool (H, W), whose outline is drawn.
        top: the relevance at the end of the colour scale; None for the map's own largest (absolute) value.
            If it is not positive and finite, the map says nothing and the slice is drawn alone.
        signed: whether negative relevance is shown too, in colours of its own.
        style: "heat" colours the slice, "contours" draws lines of equal relevance at `LEVELS` of `top`.

    Returns:
        RGB; `layout` says of what size and where the slice stands.

    Raises:
        ValueError: where shapes differ or `style` is none of `STYLES`.
    """
    if style not in STYLES:
        raise ValueError(f"style is {style!r}, expected one of {', '.join(STYLES)}")
    for name, other in (("relevance", relevance), ("mask", mask)):
        if other is not None and other.shape != picture.shape[:2]:
            raise ValueError(f"{name} is of shape {other.shape} where the picture is of {picture.shape}")
    height, width = relevance.shape
    place = layout(height, width, len(words))
    end = scale_end(relevance, signed) if top is None else float(top)
    shown = 0 < end < np.inf
    pixels = heat(picture, relevance, end, signed) if shown and style == "heat" else in_colour(picture)
    brain = Image.fromarray(pixels).resize((place.width, place.height), Image.Resampling.NEAREST)
    if shown and style == "contours":
        _draw_contours(brain, relevance, end, signed, place.factor)
    if mask is not None:
        brain = Image.fromarray(_outlined(np.array(brain), mask, place.factor))
    canvas = Image.new("RGB", place.size, _PAPER)
    canvas.paste(brain, (place.left, place.top))
    _write_words(canvas, words, place)
    if shown:
        _draw_bar(canvas, place, end, signed)
    return canvas


def save_overlay(
    path: Path,
    picture: NDArray[np.uint8],
    relevance: NDArray[np.float32],
    *,
    words: Sequence[str] = (),
    mask: NDArray[np.bool_] | None = None,
    top: float | None = None,
    signed: bool = False,
    style: str = "heat",
) -> None:
    """Writes `overlay` of these arguments as PNG.

    Raises:
        ValueError: as `overlay`.
        WorkError: where the file cannot be written.
    """
    drawn = overlay(picture, relevance, words=words, mask=mask, top=top, signed=signed, style=style)
    with whole(path) as beside:
        drawn.save(beside, "PNG", compress_level=1)  # nearly three times as fast as the default, a sixth larger


# Colour


class Palette(NamedTuple):
    """A colour map with its transparency, entry by entry, from none to most or from most against to most for.

    Attributes:
        colours: uint8 (entries, 3).
        kept: float32 (entries, 1), the part of the slice that shows through.
        added: float32 (entries, 3), what the map adds to it.
    """

    colours: NDArray[np.uint8]
    kept: NDArray[np.float32]
    added: NDArray[np.float32]


@lru_cache
def palette(signed: bool) -> Palette:
    """The colours of relevance: perceptually even, and told apart by colour-blind readers."""
    if signed:
        against, none = _part_of(*_NONE_TO_AGAINST, _STEPS // 2 + 1)[:0:-1], np.zeros((1, 3))
        colours = np.concatenate([against, none, _part_of(*_NONE_TO_FOR, _STEPS // 2 + 1)[1:]])
    else:
        colours = _part_of(*_NONE_TO_MOST, _STEPS)
    shares = np.abs(np.linspace(-1 if signed else 0, 1, _STEPS))[:, np.newaxis]
    cover = OPACITY * shares**RISE
    added = (cover * colours).astype(np.float32)
    return Palette(np.rint(colours).astype(np.uint8), (1 - cover).astype(np.float32), added)


def _part_of(name: str, first: float, last: float, entries: int) -> NDArray[np.float64]:
    """Evenly spaced colours of one of Matplotlib's maps, (entries, 3) in 0..255."""
    return np.asarray(matplotlib.colormaps[name](np.linspace(first, last, entries))[:, :3] * 255)


def scale_end(relevance: Array, signed: bool) -> float:
    """A map's own end of the colour scale: its largest finite value, at least 0.

    A signed map has, as a rule, a value a pixel and a few that stand far out: its scale ends where all but `OUTLYING`
    of the absolute values that are not 0 stay below.
    """
    values = _finite(relevance)
    if not signed:
        return float(max(values.max(), 0.0))
    size = np.abs(values[values != 0])
    return float(np.quantile(size, 1 - OUTLYING, method="higher")) if size.size else 0.0


def heat(picture: Array, relevance: Array, top: float, signed: bool) -> NDArray[np.uint8]:
    """A slice coloured by its map: slice x (1 - a) + colour x a, a = OPACITY x (share of `top`) ** RISE.

    No relevance leaves the slice's pixels exactly as they are.

    Args:
        picture: uint8 (H, W), (H, W, 1) or (H, W, 3).
        relevance: (H, W), raw.
        top: positive and finite; what lies beyond is drawn as `top`.

    Returns:
        uint8 (H, W, 3).
    """
    _, kept, added = palette(signed)
    entry = _entries(relevance, top, signed)
    return np.rint(in_colour(picture) * kept[entry] + added[entry]).astype(np.uint8)


def layer(relevance: Array, top: float, signed: bool) -> NDArray[np.uint8]:
    """A map by itself, to be laid over its slice with an opacity: uint8 (H, W, 4), RGB and cover. With the opacity
    `OPACITY` the two are what `heat` draws."""
    entry = _entries(relevance, top, signed)
    colours = palette(signed).colours[entry]
    cover = np.abs(_shares(relevance, top, signed)) ** RISE
    return np.concatenate([colours, np.rint(255 * cover).astype(np.uint8)[..., np.newaxis]], axis=2)


def in_colour(picture: Array) -> NDArray[np.uint8]:
    """(H, W, 3) of a grey or coloured picture."""
    pixels = picture if picture.ndim == 3 else picture[..., np.newaxis]
    return pixels if pixels.shape[2] == 3 else np.repeat(pixels, 3, axis=2)


def _entries(relevance: Array, top: float, signed: bool) -> NDArray[np.uint8]:
    """Each value's entry in the palette."""
    shares = _shares(relevance, top, signed)
    return np.rint((_STEPS - 1) * ((shares + 1) / 2 if signed else shares)).astype(np.uint8)


def _shares(relevance: Array, top: float, signed: bool) -> NDArray[np.float64]:
    """Of `top`: 0..1, or -1..1 if signed."""
    return np.clip(_finite(relevance), -top if signed else 0.0, top) / top


def _finite(relevance: Array) -> NDArray[np.float64]:
    """float64, in which neither the tiniest nor the largest float32 under- or overflows when divided."""
    return np.where(np.isfinite(relevance), relevance, 0).astype(np.float64)


# Lines


def _draw_contours(brain: Image.Image, relevance: Array, top: float, signed: bool, factor: int) -> None:
    shares = sorted([-level for level in LEVELS] if signed else []) + list(LEVELS)
    lines = contourpy.contour_generator(z=_shares(relevance, top, signed))
    colours = palette(signed).colours
    for share in shares:
        entry = round((_STEPS - 1) * ((share + 1) / 2 if signed else share))
        stroke = _stroke(brain.size, lines.lines(share), factor)
        brain.paste(tuple(map(int, colours[entry])), mask=stroke)


def _stroke(size: tuple[int, int], lines: Any, factor: int) -> Image.Image:
    """Coverage of lines, 2 pixels wide; their points (x, y) count the slice's pixels from the middle of the first."""
    layer = Image.new("L", (size[0] * _FINER, size[1] * _FINER))
    draw = ImageDraw.Draw(layer)
    for line in lines:
        points = (line + 0.5) * (factor * _FINER) - 0.5
        draw.line(points.ravel().tolist(), fill=255, width=2 * _FINER)
    return layer.reduce(_FINER)


def _outlined(pixels: Array, mask: NDArray[np.bool_], factor: int) -> Array:
    """Draws on the enlarged slice: the mask's outermost pixels, and dark the pixels that touch them outside."""
    large = np.pad(mask.repeat(factor, axis=0).repeat(factor, axis=1), 1)
    inner, outer = large.copy(), large.copy()
    for axis in (0, 1):
        for step in (-1, 1):
            beside = np.roll(large, step, axis)
            inner &= beside
            outer |= beside
    middle = np.s_[1:-1, 1:-1]
    pixels[(outer & ~large)[middle]] = OUTLINE_EDGE
    pixels[(large & ~inner)[middle]] = OUTLINE
    return pixels


# The margins


def _draw_bar(canvas: Image.Image, place: Layout, top: float, signed: bool) -> None:
    left, upper, width, height = place.bar
    canvas.paste(_bar(width, height, signed), (left, upper))
    font = _font(place.letters)
    draw = ImageDraw.Draw(canvas)
    half = place.letters / 2
    for share in (0.0, 0.5, 1.0):
        value = top * (2 * share - 1) if signed else top * share
        y = min(max(height * (1 - share), half), height - half)  # the outer ones stay beside the bar
        text = shortened(f"{value:.2g}".replace("-", "−"), _label_width(place.letters), place.letters)
        draw.text((left + width + half, upper + y), text, INK, font, anchor="lm")


@lru_cache(maxsize=64)
def _bar(width: int, height: int, signed: bool) -> Image.Image:
    """A framed colour bar, the end of the scale on top."""
    bar = Image.fromarray(over_tissue(height, signed)[::-1, np.newaxis].repeat(width, axis=1))
    ImageDraw.Draw(bar).rectangle((0, 0, width - 1, height - 1), outline=QUIET)
    return bar


def over_tissue(steps: int, signed: bool) -> NDArray[np.uint8]:
    """A map's colours from none to most, or from most against to most for, as they look on brain: (steps, 3)."""
    ramp = np.linspace(-1.0 if signed else 0.0, 1.0, steps)[np.newaxis]
    return heat(np.full(ramp.shape, _TISSUE, np.uint8), ramp, 1.0, signed)[0]


def _write_words(canvas: Image.Image, words: Sequence[str], place: Layout) -> None:
    font = _font(place.letters)
    draw = ImageDraw.Draw(canvas)
    for row, line in enumerate(words):
        y = place.letters // 2 + (row + 0.5) * _pitch(place.letters)
        text = shortened(line, place.size[0] - 2 * place.left, place.letters)
        draw.text((place.left, y), text, INK, font, anchor="lm")


def shortened(text: str, width: float, letters: int) -> str:
    """One printable line that is at most `width` wide in letters of that height, cut with an ellipsis.

    A space stands for each run of line breaks and other letters that cannot be drawn.
    """
    measured = text[:_MOST_LETTERS]
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in measured).split())
    font = _font(letters)
    if measured == text and font.getlength(line) <= width:
        return line
    fits, too_many = 0, len(line) + 1
    while too_many - fits > 1:
        middle = (fits + too_many) // 2
        if font.getlength(line[:middle] + "…") <= width:
            fits = middle
        else:
            too_many = middle
    return line[:fits].rstrip() + "…"


def _pitch(letters: int) -> int:
    """From one line of words to the next."""
    return round(1.3 * letters)


@lru_cache
def _label_width(letters: int) -> int:
    """Room for a number at the colour bar."""
    return round(_font(letters).getlength("−8.8e−08"))


@lru_cache
def _font(letters: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with Matplotlib; the basic layout needs no library that may be absent."""
    file = Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
    return ImageFont.truetype(str(file), letters, layout_engine=ImageFont.Layout.BASIC)
