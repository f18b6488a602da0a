"""From any picture to the network's square of 0..255: the one place where pixels are prepared.

Training, evaluation, prediction, explanation and the server all call `prepare` with the recipe's `[pixels]`,
so a model meets the same pixels everywhere. Its steps, in order, each a function below:

    brightness   16-bit pictures are stretched from their own range to 0..255, 8-bit ones taken as they are
    colour       to grey by luminance, or kept
    crop         cut to the head's bounding box, where asked for
    intensity    the head's 1st..99th percentile stretched to 0..255, where asked for
    fit          stretched or padded to the square, resized with antialiasing

Pixels stay uint8 where a step allows it and are float32 otherwise; they are rounded once, at the end.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from braintumor_kit.errors import ImageError
from braintumor_kit.recipe.tables import PixelsTable

Array = NDArray[Any]

LUMINANCE = (0.299, 0.587, 0.114)
"""Weights of red, green and blue (ITU-R BT.601), those of Pillow's mode L."""

HEAD_THRESHOLD = 0.12
"""What is brighter than this part of the way from the darkest to the brightest percentile counts as head."""

HEAD_WORKING_SIZE = 256
"""The head is looked for in a copy whose longer side is at most so many pixels."""

SMALLEST_PIECE = 0.05
"""Connected pieces that are smaller than this part of the largest are specks and burnt-in text, no head."""

SMALLEST_HEAD = 0.02
"""A head that fills less than this part of the picture is no head: the whole picture is taken."""


class Box(NamedTuple):
    """A rectangle of pixels: rows top..bottom-1, columns left..right-1."""

    top: int
    left: int
    bottom: int
    right: int

    def cut(self, picture: Array) -> Array:
        return picture[self.top : self.bottom, self.left : self.right]


def prepare(picture: Array, settings: PixelsTable) -> NDArray[np.uint8]:
    """Turns a picture into the square that the network takes.

    Args:
        picture: what `Source.image` gives: uint8 or uint16, (H, W) or (H, W, 3).
        settings: the recipe's `[pixels]`.

    Returns:
        uint8 (S, S, C), S = `image_size`; C is 1 for `colour = "grey"` and 3 for "rgb". It may share memory
        with an 8-bit picture that is of that size already: write into a copy.

    Raises:
        ImageError: where `picture` is not such an array.
    """
    _check(picture)
    display = to_display(picture)
    pixels = to_colour(display, settings.colour)
    box = Box(0, 0, *picture.shape[:2])
    if settings.crop == "head" or settings.intensity == "percentile":
        head = head_mask(_grey_of(display))
        if settings.crop == "head":
            box = bounding_box(head, settings.crop_margin)
        if settings.intensity == "percentile":
            pixels = stretch_percentiles(pixels, head)
    square = fit(box.cut(pixels), settings)
    return square if square.ndim == 3 else square[..., np.newaxis]


def prepare_mask(mask: Array, picture: Array, settings: PixelsTable) -> NDArray[np.bool_]:
    """Gives a tumour's mask the same crop and fit as its picture.

    Args:
        mask: bool (H, W), on the grid of `picture`.
        picture: the picture as the source gives it, which decides the crop.

    Returns:
        bool (S, S): the pixels of which the mask covers more than half.

    Raises:
        ImageError: where the mask is not of the picture's height and width.
    """
    _check(picture)
    if mask.shape != picture.shape[:2]:
        raise ImageError(f"its mask is {_size(mask)} pixels where the picture is {_size(picture)}")
    cut = crop_box(picture, settings).cut(mask.astype(np.float32))
    return _fit(cut, settings, Image.Resampling.BOX) > 0.5


def restore(values: NDArray[np.float32], picture: Array, settings: PixelsTable) -> NDArray[np.float32]:
    """Brings a map over the prepared square back to the picture's own grid; what was cropped away is 0.

    Args:
        values: float32 (S, S).
        picture: as the source gives it.

    Returns:
        float32 (H, W), resized bilinearly.
    """
    _check(picture)
    box = crop_box(picture, settings)
    height, width = box.bottom - box.top, box.right - box.left
    if settings.fit == "pad":
        inner_height, inner_width = _size_within(height, width, settings.image_size)
        values = _middle(inner_height, inner_width, settings.image_size).cut(values)
    whole = np.zeros(picture.shape[:2], np.float32)
    whole[box.top : box.bottom, box.left : box.right] = _resized(values, height, width, Image.Resampling.BILINEAR)
    return whole


def crop_box(picture: Array, settings: PixelsTable) -> Box:
    """The part of a picture that `prepare` keeps: all of it, or the head with its margin."""
    if settings.crop == "none":
        return Box(0, 0, *picture.shape[:2])
    return head_box(_grey_of(to_display(picture)), settings.crop_margin)


# Brightness and colour


def to_display(picture: Array) -> Array:
    """uint8 as it is; uint16 as float32, its own range stretched to 0..255 (a constant picture is black)."""
    if picture.dtype == np.uint8:
        return picture
    low, high = int(picture.min()), int(picture.max())
    if low == high:
        return np.zeros(picture.shape, np.float32)
    return (picture.astype(np.float32) - low) * np.float32(255 / (high - low))


def to_colour(pixels: Array, colour: str) -> Array:
    """(H, W) for `colour = "grey"`, (H, W, 3) for "rgb"; grey pictures are repeated to three channels."""
    if colour == "grey":
        return _grey_of(pixels)
    return pixels if pixels.ndim == 3 else np.repeat(pixels[..., np.newaxis], 3, axis=2)


def _grey_of(pixels: Array) -> Array:
    if pixels.ndim == 2:
        return pixels
    if pixels.dtype == np.uint8:
        return np.asarray(Image.fromarray(pixels).convert("L"))
    return pixels @ np.asarray(LUMINANCE, np.float32)


# The head


def head_mask(grey: Array) -> NDArray[np.bool_]:
    """Where the head is, holes filled: bool (H, W) for a grey picture (H, W) of 0..255; empty if not found.

    The background is what is dark by the picture's own measure, so lifted blacks and dim scans do no harm.
    Scalp and brain may be separate pieces: the bone between them is dark.
    """
    small, factor = _reduced(grey)
    smooth = ndimage.uniform_filter(small, size=5, mode="nearest")
    low, high = np.percentile(smooth, [1, 99])
    bright = smooth > low + HEAD_THRESHOLD * (high - low)
    mask = ndimage.binary_fill_holes(_large_pieces(ndimage.binary_opening(bright, iterations=2)))
    mask = ndimage.binary_erosion(mask, iterations=2, border_value=1)  # takes back what smoothing added
    height, width = grey.shape
    return np.asarray(mask).repeat(factor, axis=0).repeat(factor, axis=1)[:height, :width]


def head_box(grey: Array, margin: float = 0.0) -> Box:
    """The head's bounding box in a grey picture (H, W) of 0..255, or all of it where no head is found."""
    return bounding_box(head_mask(grey), margin)


def bounding_box(mask: NDArray[np.bool_], margin: float) -> Box:
    """The box around a head's mask (H, W), or all of the picture where the head is absurdly small.

    Args:
        margin: added on each side, as a fraction of the box's longer side, as far as the picture goes.
    """
    height, width = mask.shape
    if mask.sum() < SMALLEST_HEAD * mask.size:
        return Box(0, 0, height, width)
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    top, bottom, left, right = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
    extra = round(margin * max(bottom - top, right - left))
    return Box(max(top - extra, 0), max(left - extra, 0), min(bottom + extra, height), min(right + extra, width))


def _reduced(grey: Array) -> tuple[NDArray[np.float32], int]:
    factor = -(-max(grey.shape) // HEAD_WORKING_SIZE)
    values = grey.astype(np.float32)
    return (np.asarray(Image.fromarray(values).reduce(factor)) if factor > 1 else values), factor


def _large_pieces(mask: Array) -> NDArray[np.bool_]:
    labels, _ = ndimage.label(mask)
    areas = np.bincount(labels.ravel())
    areas[0] = 0  # the background
    return ((areas > 0) & (areas >= SMALLEST_PIECE * areas.max()))[labels]


def stretch_percentiles(pixels: Array, head: NDArray[np.bool_]) -> Array:
    """Stretches the head's 1st..99th percentile to 0..255, float32; what lies beyond is clipped.

    Colour is stretched by one pair of limits for all channels. Without a head, or without contrast in it,
    nothing is changed.
    """
    if not head.any():
        return pixels
    low, high = np.percentile(pixels[head], [1, 99])
    if high <= low:
        return pixels
    return np.clip((pixels.astype(np.float32) - low) * (255 / (high - low)), 0, 255).astype(np.float32)


# Fitting the square


def fit(pixels: Array, settings: PixelsTable) -> NDArray[np.uint8]:
    """Brings uint8 or float32 (H, W[, 3]) to uint8 (S, S[, 3]), stretched or padded with black first."""
    resized = _fit(pixels, settings, Image.Resampling.BILINEAR)
    return resized if resized.dtype == np.uint8 else np.rint(resized).clip(0, 255).astype(np.uint8)


def _fit(pixels: Array, settings: PixelsTable, method: Image.Resampling) -> Array:
    side = settings.image_size
    if settings.fit == "stretch":
        return _resized(pixels, side, side, method)
    height, width = _size_within(pixels.shape[0], pixels.shape[1], side)
    inside = _resized(pixels, height, width, method)
    box = _middle(height, width, side)
    square = np.zeros((side, side, *pixels.shape[2:]), inside.dtype)
    square[box.top : box.bottom, box.left : box.right] = inside
    return square


def _size_within(height: int, width: int, side: int) -> tuple[int, int]:
    """Of a picture whose longer side is made that of the square."""
    scale = side / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def _middle(height: int, width: int, side: int) -> Box:
    """Where a picture stands in the middle of a square."""
    top, left = (side - height) // 2, (side - width) // 2
    return Box(top, left, top + height, left + width)


def _resized(pixels: Array, height: int, width: int, method: Image.Resampling) -> Array:
    """Pillow's resize, whose filters widen when shrinking and so do not alias."""
    if pixels.shape[:2] == (height, width):
        return pixels
    if pixels.ndim == 3 and pixels.dtype != np.uint8:  # Pillow has no floating-point colour
        return np.stack([_resized(pixels[..., i], height, width, method) for i in range(pixels.shape[2])], axis=2)
    return np.asarray(Image.fromarray(pixels).resize((width, height), method))


# Checks


def _check(picture: Array) -> None:
    shape_fits = picture.ndim == 2 or (picture.ndim == 3 and picture.shape[2] == 3)
    if not shape_fits or picture.dtype not in (np.uint8, np.uint16) or picture.size == 0:
        raise ImageError(
            "the source should give uint8 or uint16 pixels, (H, W) or (H, W, 3), "
            f"and gave {picture.dtype} {picture.shape}"
        )


def _size(array: Array) -> str:
    return " x ".join(str(length) for length in array.shape[:2])
